"""Takes one person out of prepared corpora: pairs, profile, number among the target users; then counts and checksums.

Every pair goes in which the person is speaker or partner, because its context holds what they said. The order makes
it safe to be killed: a note in the directory says what is to be rewritten (`forgetting.json`, which knows the person
by a salted hash alone), then each file is replaced as a whole, then the manifest, and the note goes. The same command
resumes from any of these.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artefacts.files import PARTIAL, read_json, write_json
from artefacts.fingerprints import fingerprint_of, sha256_of
from artefacts.layout import MANIFEST, PROFILES
from artefacts.manifest import read_manifest, split_fingerprint, user_numbers, write_manifest
from datamodules.preparation.run import alone
from datamodules.preparation.shards import describe_file, describe_part

from .parquet_rows import SUFFIXES, people_like, rows_of, take_out

NOTE = "forgetting.json"
TEST = "users/test"

Fingerprints = dict[str, str | None]
"""`prepared`: of the manifest; `split`: of the test turns."""


def prepared_directories(data: Path) -> list[Path]:
    """The directories below `data` that hold a prepared corpus, or one whose preparation was stopped."""
    corpora: list[Path] = []
    for directory in [data, *sorted(path for path in data.rglob("*") if path.is_dir())]:
        if not any(directory.is_relative_to(corpus) for corpus in corpora) and (
            directory.suffix == PARTIAL or _is_prepared(directory)
        ):
            corpora.append(directory)
    return corpora


def _is_prepared(directory: Path) -> bool:
    path = directory / MANIFEST
    return path.is_file() and "splits" in read_json(path)


@dataclass
class PersonInCorpus:
    """What a prepared directory has of one person."""

    directory: Path  # with a manifest, or `<output>.partial` without one
    user: str

    @cached_property
    def rows(self) -> dict[Path, pa.Table]:
        """File → the person's rows in it, of those that have any."""
        paths = (path for path in sorted(self.directory.rglob("*")) if path.suffix in SUFFIXES)
        return {path: rows for path in paths if len(rows := rows_of(path, self.user))}

    @cached_property
    def lookalikes(self) -> set[str]:
        """Other ids in the columns that name people which a reader takes for the same."""
        paths = (path for path in sorted(self.directory.rglob("*")) if path.suffix in SUFFIXES)
        return {other for path in paths for other in people_like(path, self.user)}

    @property
    def has_manifest(self) -> bool:
        return (self.directory / MANIFEST).is_file()

    @cached_property
    def is_target_user(self) -> bool:
        """Whether the manifest names the person."""
        return self.has_manifest and self.user in read_manifest(self.directory).get("target_users", ())

    @cached_property
    def note(self) -> dict[str, Any] | None:
        """What a killed run still has to do; ValueError if it was about another person."""
        path = self.directory / NOTE
        if not path.is_file():
            return None
        note = read_json(path)
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

    def check(self) -> None:
        """Raises ValueError if a file of the person's is not what the manifest describes."""
        files = [path.relative_to(self.directory).as_posix() for path in self.rows]
        for name, part in self._parts(files) if self.note is None else ():
            if sha256_of(self.directory / name) != part["sha256"]:
                raise ValueError(f"{self.directory / name} is not what manifest.json describes; prepare it again first")

    def forget(self, keep_usable: Callable[[Fingerprints, Fingerprints], object]) -> None:
        """Removes the person.

        Args:
            keep_usable: is called with the fingerprints of the data before and after.

        Raises:
            ValueError: a file is not what the manifest describes, or a preparation is at work on the directory.
        """
        output = self.directory.with_name(self.directory.name.removesuffix(PARTIAL))
        with alone(output):
            note = self.note or self._write_note()
            for path in self.rows:
                take_out(path, self.user)
            for path in self.directory.rglob(f"*{PARTIAL}"):
                if path.is_file():  # what a killed process was writing
                    path.unlink()
            if self.has_manifest:
                write_manifest(self.directory, self._manifest_without(note))
                keep_usable(note["fingerprints"], self._fingerprints())
            (self.directory / NOTE).unlink()

    def _fingerprints(self) -> Fingerprints:
        manifest = read_manifest(self.directory)
        split = split_fingerprint(manifest, TEST) if TEST in manifest["splits"] else None
        return {"prepared": fingerprint_of(self.directory / MANIFEST), "split": split}

    def _write_note(self) -> dict[str, Any]:
        """Says what is to be rewritten, after checking that it is what the manifest describes."""
        self.check()
        files = [path.relative_to(self.directory).as_posix() for path in self.rows]
        salt = secrets.token_hex(16)
        num_dialogues = len(self.values("dialogue_id", "pretrain") | self.values("dialogue_id", "users"))
        number = user_numbers(read_manifest(self.directory)).get(self.user) if self.is_target_user else None
        note = {
            "salt": salt,
            "person": _salted(salt, self.user),
            "files": files,
            "num_dialogues": num_dialogues,
            "number": number,
            "fingerprints": self._fingerprints() if self.has_manifest else {},
        }
        write_json(self.directory / NOTE, note)
        return note

    def _parts(self, files: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Those of these files that the manifest describes, and how."""
        if self.has_manifest:
            for split, parts in read_manifest(self.directory)["splits"].items():
                yield from ((f"{split}/{part['file']}", part) for part in parts if f"{split}/{part['file']}" in files)

    def _manifest_without(self, note: dict[str, Any]) -> dict[str, Any]:
        """The manifest of what remains; unchanged if a killed run has already written it."""
        manifest = read_manifest(self.directory)
        if manifest.get("forgotten_last") == note["person"]:
            return manifest
        for split, parts in manifest["splits"].items():
            for index, part in enumerate(parts):
                if f"{split}/{part['file']}" in note["files"]:
                    parts[index] = describe_part(self.directory / split / part["file"])
        if "num_dialogues" in manifest:
            manifest["num_dialogues"] -= note["num_dialogues"]
        if PROFILES in note["files"]:
            users = pq.read_table(self.directory / PROFILES, columns=["user"])["user"]
            manifest["profiles"] = len(users.unique())
            manifest.setdefault("files", {})[PROFILES] = describe_file(self.directory / PROFILES)
        if note["number"] is not None:
            manifest["target_users"].remove(self.user)
            manifest["free_numbers"] = sorted([*manifest.get("free_numbers", ()), note["number"]])
        manifest["forgotten"] = manifest.get("forgotten", 0) + 1
        manifest["forgotten_last"] = note["person"]  # its salt goes with the note
        return manifest


def _salted(salt: str, user: str) -> str:
    return hashlib.blake2b(f"{salt}\x1f{user}".encode(), digest_size=16).hexdigest()
