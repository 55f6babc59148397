"""What files of runs have of one person, by the kind of file, each with how it is removed.

A file is rewritten or deleted as a whole. Ids are looked for where the kind of file has them and nowhere else
(`artefacts.people`): a person called like a word of a vocabulary does no harm to the vocabulary.
"""

from __future__ import annotations

import csv
import io
import json
import pickletools
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from artefacts.described import rewrite
from artefacts.files import PARTIAL
from artefacts.layout import CHECKPOINT, CONVERSATIONS, PREDICTIONS
from artefacts.people import keys_to_ids, without_id
from artefacts.sample_replies import is_sample_line
from commands.forgetting.parquet_rows import rows_of, take_out
from commands.forgetting.traces import Person, Trace

COLUMNS = ("user", "adapter", "speaker", "partner")
"""Columns of CSV files that name users."""


def trace_in_file(path: Path, person: Person) -> Trace | None:
    """What a file has of the person; a file behind a link is changed where it is.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.exists():  # a link to nothing
        return None
    if path.suffix == PARTIAL:
        return Trace(path, "what a killed command was writing", partial(path.unlink, missing_ok=True), False)
    reader = _reader_of(path)
    if reader is None:
        return None
    try:
        return reader(path.resolve() if path.is_symlink() else path, person)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, csv.Error, yaml.YAMLError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); repair or delete it") from None


def _reader_of(path: Path) -> Callable[[Path, Person], Trace | None] | None:
    if path.parent.name == CHECKPOINT.parent.name:
        return _checkpoint
    if keys_to_ids(path) is not None:
        return _known_keys
    by_name = {PREDICTIONS: _predictions, CONVERSATIONS: _conversations, "key.json": _human_evaluation}
    by_suffix = {".parquet": _columns, ".csv": _table, ".log": _log, ".ckpt": _checkpoint}
    return by_name.get(path.name) or by_suffix.get(path.suffix)


def _predictions(path: Path, person: Person) -> Trace | None:
    """Lines of the person's own replies and of replies to them, whose context is theirs."""

    def is_theirs(line: dict[str, Any]) -> bool:
        return line["user"] == person.user or int(line["pair_id"]) in person.pair_ids

    return _lines(path, is_theirs, "predictions")


def _conversations(path: Path, person: Person) -> Trace | None:
    """Whole conversations: with the person's model, or that begin with, or are, a real dialogue with the person."""
    lines = [json.loads(line) for line in _read(path).split("\n") if line]
    mine = {
        (line["system"], line["conversation"])
        for line in lines
        if line["speaker"] == person.user or line["speaker"] in person.talked_with
    }
    return _lines(path, lambda line: (line["system"], line["conversation"]) in mine, "turns in conversations")


def _lines(path: Path, is_theirs: Callable[[dict[str, Any]], bool], what: str) -> Trace | None:
    lines = [line for line in _read(path).split("\n") if line]  # texts may have other line ends in them
    kept = [line for line in lines if not is_theirs(json.loads(line))]
    content = "".join(f"{line}\n" for line in kept)
    return _rewrite(path, len(lines) - len(kept), len(lines), what, content)


def _table(path: Path, person: Person) -> Trace | None:
    """Rows of a CSV whose columns name users."""
    before = _read(path)
    header, *rows = list(csv.reader(io.StringIO(before, newline=""))) or [[]]
    columns = [index for index, name in enumerate(header) if name in COLUMNS]
    kept = [row for row in rows if not any(row[index] == person.user for index in columns if index < len(row))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n" if "\r\n" in before else "\n").writerows([header, *kept])
    return _rewrite(path, len(rows) - len(kept), len(rows), "rows", text.getvalue())


def _columns(path: Path, person: Person) -> Trace | None:
    rows = rows_of(path, person.user)
    return Trace(path, f"{len(rows):,} rows", partial(take_out, path, person.user)) if len(rows) else None


def _known_keys(path: Path, person: Person) -> Trace | None:
    """Run cards, logged settings, folds."""
    keys = keys_to_ids(path)
    assert keys is not None, "this reader is for files with such keys"
    is_json = path.suffix == ".json"
    before = json.loads(_read(path)) if is_json else yaml.safe_load(_read(path))
    after = without_id(before, keys, person.user)
    if before == after:
        return None
    dumped = json.dumps(after, indent=1, ensure_ascii=False) + "\n" if is_json else yaml.safe_dump(after)
    return Trace(path, f"the id in {'.'.join(keys)}", partial(rewrite, path, dumped))


def _log(path: Path, person: Person) -> Trace | None:
    """Lines that name the person, and all sample replies: who wrote those is not said."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if not is_sample_line(line) and not names(line.encode(), person.user)]
    what = "lines, among them all sample replies"
    return _rewrite(path, len(lines) - len(kept), len(lines), what, "".join(kept), is_certain=False)


def _checkpoint(path: Path, person: Person) -> Trace | None:
    """A checkpoint is removed as a whole: a fit does not resume with other data anyway."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        pickled = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    is_named = any(argument == person.user for data in pickled for _, argument, _ in pickletools.genops(data))
    return Trace(path, "checkpoint with the person's weights or progress", path.unlink) if is_named else None


def _human_evaluation(path: Path, person: Person) -> Trace | None:
    """The page is deleted with its key, which comes last: what shows one item shows all."""
    items = json.loads(_read(path)).get("items")
    if not isinstance(items, dict):
        return None
    mine = [item for item in items.values() if item["user"] == person.user or int(item["pair_id"]) in person.pair_ids]
    page = path.with_name("page.html")

    def delete() -> None:
        page.unlink(missing_ok=True)
        path.unlink()

    what = f"{len(mine)} of {len(items)} questions (page and key are deleted; ask annotators to delete theirs)"
    return Trace(path, what, delete) if mine else None


def names(content: bytes, user: str) -> bool:
    """Whether a content has the id as a whole word."""
    return re.search(rb"(?<!\w)" + re.escape(user.encode()) + rb"(?!\w)", content) is not None


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _rewrite(path: Path, num: int, of: int, what: str, content: str, is_certain: bool = True) -> Trace | None:
    if not num:
        return None
    return Trace(path, f"{num:,} of {of:,} {what}", partial(rewrite, path, content), is_certain)
