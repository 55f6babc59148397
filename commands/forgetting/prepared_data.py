"""Takes one person out of prepared corpora: pairs, profile, place among the target users; then counts and checksums.

In: a prepared directory, or one whose preparation was stopped, and a person's id. Out: what there is of that person,
and the directory without it. Every pair goes in which the person is speaker or partner, because its context holds
what they said.

The order makes it safe to be killed: a note in the directory says what is to be written anew (`forgetting.json`, which
knows the person by a salted hash alone), then each file is replaced as a whole, then the manifest, and the note goes.
The same command goes on from any of these.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artefacts.manifest import read_manifest, user_numbers
from datamodules.preparation.run import alone
from datamodules.preparation.shards import sha256_of

from .parquet_rows import SUFFIXES, rows_of, take_out

NOTE = "forgetting.json"
LEFT_BEHIND = ".forgetting"  # of a file that was being written when the process was killed


def prepared_directories(data: Path) -> list[Path]:
    """The directories below `data` that hold a prepared corpus, or one whose preparation was stopped."""
    found = []
    for directory in [data, *sorted(path for path in data.rglob("*") if path.is_dir())]:
        if not any(directory.is_relative_to(above) for above in found) and (
            directory.name.endswith(".partial") or _is_prepared(directory)
        ):
            found.append(directory)
    return found


def _is_prepared(directory: Path) -> bool:
    path = directory / "manifest.json"
    return path.is_file() and "splits" in json.loads(path.read_text(encoding="utf-8"))


@dataclass
class PersonInCorpus:
    """What a prepared directory has of one person.

    Args:
        directory: with a manifest, or `<output>.partial` without one.
        user: the person's id.
    """

    directory: Path
    user: str

    @cached_property
    def rows(self) -> dict[Path, pa.Table]:
        """File → the person's rows in it, of those that have any."""
        found = {path: rows_of(path, self.user) for path in self._files()}
        return {path: table for path, table in found.items() if len(table)}

    def _files(self) -> Iterator[Path]:
        return (path for path in sorted(self.directory.rglob("*")) if path.suffix in SUFFIXES)

    @property
    def has_manifest(self) -> bool:
        return (self.directory / "manifest.json").is_file()

    @cached_property
    def is_target_user(self) -> bool:
        """Whether the manifest names the person."""
        return self.has_manifest and self.user in read_manifest(self.directory).get("target_users", ())

    @cached_property
    def note(self) -> dict[str, Any] | None:
        """What a run that was killed has left to do.

        Raises:
            ValueError: it was about somebody else.
        """
        path = self.directory / NOTE
        if not path.is_file():
            return None
        note = json.loads(path.read_text(encoding="utf-8"))
        if note["person"] != _salted(note["salt"], self.user):
            raise ValueError(
                f"forgetting somebody else was interrupted in {self.directory}: first give that command again (unless "
                "told otherwise, it has written the id to the end of the opt-out file)"
            )
        return note

    @property
    def is_there(self) -> bool:
        return self.note is not None or self.is_target_user or bool(self.rows)

    def values(self, column: str, split: str = "") -> set[Any]:
        """What the person's rows have in a column, in the files of a split or in all."""
        tables = [table for path, table in self.rows.items() if path.is_relative_to(self.directory / split)]
        return {value for table in tables if column in table.column_names for value in table[column].to_pylist()}

    def forget(self) -> None:
        """Takes the person out.

        Raises:
            ValueError: a file is not what the manifest describes, or a preparation is at work on the directory.
        """
        output = self.directory.with_name(self.directory.name.removesuffix(".partial"))
        with alone(output):
            note = self.note or self._write_note()
            for path in self.rows:
                take_out(path, self.user)
            for path in self.directory.rglob(f"*{LEFT_BEHIND}"):
                path.unlink()
            if self.has_manifest:
                manifest = self._manifest_without(note)
                _write_json(self.directory / "manifest.json", manifest)
            (self.directory / NOTE).unlink()

    def _write_note(self) -> dict[str, Any]:
        """Says what is to be written anew, after a look at whether it is what the manifest describes."""
        files = [path.relative_to(self.directory).as_posix() for path in self.rows]
        for name, part in self._parts(files):
            if sha256_of(self.directory / name) != part["sha256"]:
                raise ValueError(f"{self.directory / name} is not what manifest.json describes; prepare it anew first")
        salt = secrets.token_hex(16)
        num_dialogues = len(self.values("dialogue_id", "pretrain") | self.values("dialogue_id", "users"))
        number = user_numbers(read_manifest(self.directory)).get(self.user) if self.is_target_user else None
        note = {
            "salt": salt,
            "person": _salted(salt, self.user),
            "files": files,
            "num_dialogues": num_dialogues,
            "number": number,
        }
        _write_json(self.directory / NOTE, note)
        return note

    def _parts(self, files: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Those of these files that the manifest describes, and how."""
        if self.has_manifest:
            for split, parts in read_manifest(self.directory)["splits"].items():
                yield from ((f"{split}/{part['file']}", part) for part in parts if f"{split}/{part['file']}" in files)

    def _manifest_without(self, note: dict[str, Any]) -> dict[str, Any]:
        """The manifest of what is there now; the same again if it was written before, because of its target users."""
        manifest = read_manifest(self.directory)
        if manifest.get("forgotten_last") == note["person"]:
            return manifest
        for split, parts in manifest["splits"].items():
            for place, part in enumerate(parts):
                if f"{split}/{part['file']}" in note["files"]:
                    parts[place] = described(self.directory / split / part["file"])
        if "num_dialogues" in manifest:
            manifest["num_dialogues"] -= note["num_dialogues"]
        if "profiles.parquet" in note["files"]:
            users = pq.read_table(self.directory / "profiles.parquet", columns=["user"])["user"]
            manifest["profiles"] = len(users.unique())
        if note["number"] is not None:
            manifest["target_users"].remove(self.user)
            manifest["free_numbers"] = sorted([*manifest.get("free_numbers", ()), note["number"]])
        manifest["forgotten"] = manifest.get("forgotten", 0) + 1
        manifest["forgotten_last"] = note["person"]  # its salt goes with the note
        return manifest


def described(path: Path) -> dict[str, Any]:
    """A part as a manifest describes it: see `shards.write_part`."""
    groups = []
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, columns=["context_ids", "response_ids"])
            tokens = [pc.sum(pc.list_value_length(table[name])).as_py() for name in ("context_ids", "response_ids")]
            groups.append([len(table), *tokens])
    return {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size, "row_groups": groups}


def _salted(salt: str, user: str) -> str:
    return hashlib.blake2b(f"{salt}\x1f{user}".encode(), digest_size=16).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(path.name + LEFT_BEHIND)
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
