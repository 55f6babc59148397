"""What the files below `runs` have of one person, by the kind of file, each with how it is taken away.

Each `Trace` replaces or deletes a file as a whole. What cannot be told apart by person goes altogether: embeddings and
answers in caches, sample replies in logs, offline runs of W&B.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickletools
import re
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from artefacts.files import PARTIAL, read_json, write_text
from artefacts.layout import ADAPTERS, CARD, CONVERSATIONS, MODELS, PREDICTIONS, user_directory
from artefacts.sample_replies import SAID, is_sample_line
from commands.forgetting.parquet_rows import rows_of, take_out

COLUMNS = ("user", "adapter", "speaker", "partner")
CACHES = {
    (".cache", "embeddings"): "sentence embeddings, known by a hash: all of them, a table encodes anew",
    ("", ".answers"): "answers of chat endpoints, known by a hash: all of them, a run asks (and pays) anew",
}
ASIDE = ".forgetting"
"""Suffix of a directory that is being deleted."""


@dataclass(frozen=True)
class Person:
    """A person as files of runs know them."""

    user: str
    pair_ids: Collection[int] = ()  # reply pairs in which the person is speaker or partner
    talked_with: Collection[str] = ()  # target users who answer this person in their test dialogues


@dataclass(frozen=True)
class Trace:
    """Something that is there of a person."""

    path: Path
    what: str
    take_away: Callable[[], object]
    is_certain: bool = True  # it shows that the person is known here, and does not go just in case


def traces_in(runs: Path, person: Person) -> list[Trace]:
    """All that is there of a person below `runs`; raises ValueError where a file cannot be read."""
    traces: list[Trace] = []
    gone: set[Path] = set()
    for folder, names, files in os.walk(runs):
        directory = Path(folder)
        for trace in _directories(directory, sorted(names), person):
            traces.append(trace)
            gone.add(trace.path)
        names[:] = sorted(name for name in names if directory / name not in gone)
        for name in sorted(files):
            if trace := _in_file(directory / name, person):
                traces.append(trace)
    return traces


def _directories(directory: Path, names: list[str], person: Person) -> Iterator[Trace]:
    """Directories that go as a whole."""
    own_name = user_directory(directory, person.user).name
    for name in names:
        path = directory / name
        cache = CACHES.get((directory.name, name)) or CACHES.get(("", name))
        away = partial(_remove, path)
        if name.endswith(ASIDE):
            yield Trace(path, "left behind by a command that was killed", partial(shutil.rmtree, path), False)
        elif directory.name in (ADAPTERS, MODELS) and name.split(".")[0] == own_name:  # also .partial, .best, .old
            yield Trace(path, "weights", away)
        elif cache:
            yield Trace(path, f"{sum(one.is_file() for one in path.rglob('*')):,} files of {cache}", away, False)
        elif directory.name == "wandb" and "run-" in name and not path.is_symlink() and _tells(path, person):
            online = "" if name.startswith("offline") else "; delete it on the server as well"
            yield Trace(path, f"a W&B run with sample replies or the id: all of it{online}", away, False)
        elif any(users_of(card) == [person.user] for card in path.glob(f"*.{CARD}")):
            yield Trace(path, "a run of this person alone", away)


def _tells(wandb_run: Path, person: Person) -> bool:
    if any(wandb_run.rglob("replies_*.table.json")):
        return True
    contents = (path.read_bytes() for path in wandb_run.rglob("*") if path.is_file())
    return any(SAID.encode() in content or names(content, person.user) for content in contents)


def users_of(card: Path) -> list[str] | None:
    """The users that a run was told to take, by its card; None for all."""
    try:
        users = read_json(card)["config"]["data"]["init_args"]["users"]
    except (KeyError, TypeError, json.JSONDecodeError):
        return None
    return [users] if isinstance(users, str) else users


def _in_file(path: Path, person: Person) -> Trace | None:
    """What a file has of the person."""
    if path.suffix == PARTIAL:
        return Trace(path, "left behind by a command that was killed", partial(path.unlink, missing_ok=True), False)
    readers: dict[str, Callable[[Path, Person], Trace | None]] = {
        PREDICTIONS: _predictions,
        CONVERSATIONS: _conversations,
        "key.json": _human_evaluation,
        ".parquet": _columns,
        ".csv": _table,
        ".json": _plain,
        ".yaml": _plain,
        ".log": _log,
        ".ckpt": _checkpoint,
    }
    reader = readers.get(path.name) or readers.get(path.suffix)
    if path.parent.name == "checkpoints":
        reader = _checkpoint
    try:
        return reader(path, person) if reader else None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, csv.Error, yaml.YAMLError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not what is written there ({error}); mend it, or delete it") from None


def _predictions(path: Path, person: Person) -> Trace | None:
    """Lines of the person's own replies and of replies to them, whose context is theirs."""

    def is_theirs(line: dict[str, Any]) -> bool:
        return line["user"] == person.user or line["pair_id"] in person.pair_ids

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
    columns = [column for column, name in enumerate(header) if name in COLUMNS]
    kept = [row for row in rows if person.user not in (row[column] for column in columns if column < len(row))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n" if "\r\n" in before else "\n").writerows([header, *kept])
    return _rewrite(path, len(rows) - len(kept), len(rows), "rows", text.getvalue())


def _columns(path: Path, person: Person) -> Trace | None:
    rows = rows_of(path, person.user)
    return Trace(path, f"{len(rows):,} rows", partial(take_out, path, person.user)) if len(rows) else None


def _plain(path: Path, person: Person) -> Trace | None:
    """Cards, settings, folds: entries that are the id, or are called so."""
    text = _read(path)
    if person.user not in text and json.dumps(person.user)[1:-1] not in text:
        return None
    is_json = path.suffix == ".json"
    before = json.loads(text) if is_json else yaml.safe_load(text)
    after = _without(before, person.user)
    if before == after:
        return None
    dumped = json.dumps(after, indent=1, ensure_ascii=False) + "\n" if is_json else yaml.safe_dump(after)
    return Trace(path, "entries that name the person", partial(write_text, path, dumped))


def _without(value: Any, user: str) -> Any:
    if isinstance(value, dict):
        kept = {key: _without(item, user) for key, item in value.items() if key != user}
        return {key: None if item == user else item for key, item in kept.items()}
    if isinstance(value, list):
        return [_without(item, user) for item in value if item != user]
    return value


def _log(path: Path, person: Person) -> Trace | None:
    """Lines that name the person, and all sample replies: who wrote those is not said."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if not is_sample_line(line) and not names(line.encode(), person.user)]
    what = "lines, among them all sample replies"
    return _rewrite(path, len(lines) - len(kept), len(lines), what, "".join(kept), is_certain=False)


def _checkpoint(path: Path, person: Person) -> Trace | None:
    """A checkpoint goes as a whole: a fit never resumes with other data anyway."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        pickled = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    named = any(argument == person.user for data in pickled for _, argument, _ in pickletools.genops(data))
    return Trace(path, "checkpoint with the person's weights or progress", path.unlink) if named else None


def _human_evaluation(path: Path, person: Person) -> Trace | None:
    """The page goes with its key, which comes last: what shows one item shows all."""
    items = json.loads(_read(path)).get("items")
    if not isinstance(items, dict):
        return _plain(path, person)
    mine = [item for item in items.values() if item["user"] == person.user or item["pair_id"] in person.pair_ids]
    page = path.with_name("page.html")

    def delete() -> None:
        page.unlink(missing_ok=True)
        path.unlink()

    what = f"{len(mine)} of {len(items)} questions (page and key go; ask annotators to delete theirs)"
    return Trace(path, what, delete) if mine else None


def names(content: bytes, user: str) -> bool:
    """Whether the id stands there as a word of its own."""
    return re.search(rb"(?<!\w)" + re.escape(user.encode()) + rb"(?!\w)", content) is not None


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _rewrite(path: Path, num: int, of: int, what: str, content: str, is_certain: bool = True) -> Trace | None:
    if not num:
        return None
    return Trace(path, f"{num:,} of {of:,} {what}", partial(write_text, path, content), is_certain)


def _remove(directory: Path) -> None:
    """Deletes a directory under another name, so that after a kill its rest is known for what it is."""
    aside = directory.with_name(directory.name + ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(directory, aside)
    shutil.rmtree(aside)
