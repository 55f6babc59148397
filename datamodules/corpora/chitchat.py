"""The BYU Chit-Chat corpus: English small talk between anonymous people, April to December 2018.

Only `dataset.json` of the PyPI package `chitchat-dataset` is read; none of its code is run. No attributes are declared.

Terms: MIT. The people are anonymous (UUIDs), and the corpus was collected for research on conversation.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from artefacts.files import read_object

from .jsonl import expect, take
from .records import Corpus, Dialogue, Drops, Malformed, Turn, two_people

FIELDS = ("sender", "text", "timestamp")


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
        conversations = read_object(path)
        for id in sorted(conversations):
            with drops.dialogue(id):
                runs = take(expect(conversations[id], dict, id), "messages", list)
                messages = [_message(message) for run in runs for message in expect(run, list, "messages[]")]
                yield two_people(id, messages, "chitchat", drops.people)


def _message(message: Any) -> Turn:
    sender, text, stamp = (take(expect(message, dict, "a message"), key, str, "", True) for key in FIELDS)
    try:
        return Turn(sender, text, datetime.fromisoformat(stamp))
    except ValueError:
        raise Malformed("bad time", f"got {stamp[:40]!r} for timestamp, expected ISO 8601") from None
