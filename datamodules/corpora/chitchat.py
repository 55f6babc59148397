"""The BYU Chit-Chat corpus: English small talk between anonymous people, April to December 2018.

Only `dataset.json` of the PyPI package `chitchat-dataset` is read; none of its code is run. No attributes are declared.

Terms: MIT. The people are anonymous (UUIDs), and the corpus was collected for research on conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from .records import Corpus, Dialogue, Drops, Turn, two_people


class ChitChat(Corpus):
    """Reads the published file of the Chit-Chat Challenge.

    Args:
        path: `dataset.json`; None finds the one of the installed package `chitchat-dataset`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path

    @property
    def files(self) -> list[Path]:
        path = self.path
        if path is None:
            try:
                package = distribution("chitchat-dataset")
            except PackageNotFoundError:
                raise FileNotFoundError(
                    "the package chitchat-dataset is not installed; install it with: pip install chitchat-dataset"
                ) from None
            path = Path(str(package.locate_file("chitchat_dataset/dataset.json")))
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found; it is part of the PyPI package chitchat-dataset")
        return [path]

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        (path,) = self.files
        conversations = json.loads(path.read_text(encoding="utf-8"))
        for id in sorted(conversations):
            with drops.dialogue(id):
                messages = [
                    Turn(message["sender"], message["text"], datetime.fromisoformat(message["timestamp"]))
                    for run in conversations[id]["messages"]
                    for message in run
                ]
                yield two_people(id, messages, "chitchat", drops.people)
