"""Files that still name a person after all that is known was removed: for a person to look at."""

from __future__ import annotations

import json
import mmap
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from artefacts.files import read_json
from artefacts.layout import CARD, PROMPT, TOKENIZER_CONFIG, TOKENIZER_FILE
from commands.forgetting.run_files import names
from commands.forgetting.traces import walk

NOT_SEARCHED = (".parquet", ".arrow", ".safetensors", ".ckpt")
WITHOUT_IDS = (TOKENIZER_FILE, TOKENIZER_CONFIG, PROMPT, "config.json", "generation_config.json", "adapter_config.json")
"""Files whose words are never ids: a person called like a piece of a vocabulary is not in it."""
ENVIRONMENTS = ("venv", "env", "node_modules", "site-packages", "__pycache__")


def still_naming(user: str, roots: Iterable[Path]) -> Iterator[Path]:
    """Files below these directories that have the id in their name or as a word in their content."""
    for root in roots:
        for directory, _, files in walk(root):
            for path in (directory / name for name in files):
                is_searched = path.is_file() and path.suffix not in NOT_SEARCHED and path.name not in WITHOUT_IDS
                if names(path.name.encode(), user) or (is_searched and names(path.read_bytes(), user)):
                    yield path


def own_files_naming(user: str, runs: Path, skip: Collection[Path]) -> Iterator[Path]:
    """The files that corpora were prepared from, and files of the working directory, that have the id in them.

    Args:
        user: the id.
        runs: directory of runs, whose cards name the files of corpora.
        skip: directories that are searched otherwise.
    """
    skipped = {path.resolve() for path in skip}
    paths = dict.fromkeys(path.resolve() for path in [*_sources(runs), *_in_working_directory(skipped)])
    for path in paths:
        if not any(path.is_relative_to(directory) for directory in skipped) and _has(path, user):
            yield path


def _sources(runs: Path) -> Iterator[Path]:
    for directory, _, files in walk(runs):
        for name in files:
            if name.endswith(f".{CARD}"):
                config = read_json(directory / name).get("config") or {}
                yield from (path for path in map(Path, _texts(config.get("data"))) if path.is_file())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) < 1000:
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _in_working_directory(skipped: Collection[Path]) -> Iterator[Path]:
    for directory, folders, files in walk(Path()):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in ENVIRONMENTS and (directory / name).resolve() not in skipped
        ]
        yield from (path for name in files if (path := directory / name).is_file())


def _has(path: Path, user: str) -> bool:
    """Whether a file has the id as it is or as JSON writes it."""
    forms = {user.encode(), json.dumps(user)[1:-1].encode()}
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(
                (start := content.find(form)) >= 0 and _is_word(content, start, len(form), form) for form in forms
            )


def _is_word(content: mmap.mmap, start: int, length: int, form: bytes) -> bool:
    """Whether some occurrence stands between other letters than those of words."""
    while start >= 0:
        around = content[max(0, start - 1) : start], content[start + length : start + length + 1]
        if not any(side.isalnum() or side == b"_" for side in around):
            return True
        start = content.find(form, start + 1)
    return False
