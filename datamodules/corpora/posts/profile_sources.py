"""Where the profiles of the authors of posts come from: the interface, and a table of declared profiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from artefacts.fingerprints import sha256_of_files
from artefacts.people import clean_id
from datamodules.corpora.jsonl import numbered_lines, parse_object, take
from datamodules.corpora.records import Malformed

from .raw_posts import with_clean_ids

PROFILES = pa.schema(
    [
        ("user", pa.string()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("posterior", pa.float64()),
        ("num_chunks", pa.int64()),
        ("is_short", pa.bool_()),
        ("origin", pa.string()),
    ]
)
"""Rows of `profiles.parquet`, as `callbacks.ProfileWriter` writes them."""

NEEDED = ("user", "attribute", "value")


class ProfileSource(ABC):
    """Gives profiles for the authors of a table of posts; can be pickled."""

    @abstractmethod
    def infer(self, posts: pa.Table) -> pa.Table:
        """Profiles of all who wrote one of the posts: `PROFILES`, sorted by user and attribute.

        A profile depends on its own author's posts only, in whatever order. An attribute without a row is unknown.

        Args:
            posts: id, author, text, time, and `answered`, the text of the post that was replied to, null where that is
                not known. All posts of an author are in the same table. The caller leaves out what must not be
                evidence: the response of a held-out pair, also where it stands as `answered`.
        """

    @abstractmethod
    def check(self) -> None:
        """Raises what `infer` would raise, whatever the posts."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over all that decides a profile but for the posts: files by content, and settings."""


class DeclaredProfiles(ProfileSource):
    """Profiles that people have declared, from a table, which is read again for each bucket of authors.

    Args:
        path: Parquet (a file, or a directory of them) or `.jsonl`, a row an attribute of a user: user, attribute,
            value, and if there is such a column, origin (otherwise `declared`).
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def infer(self, posts: pa.Table) -> pa.Table:
        users = pc.unique(posts["author"])
        rows = self._lines(users) if self.path.suffix == ".jsonl" else self._parquet(users)
        rows = rows.sort_by([("user", "ascending"), ("attribute", "ascending")])
        self._require_one_value(rows)
        columns = {
            **{name: rows[name] for name in NEEDED},
            "posterior": pa.repeat(1.0, len(rows)),
            "num_chunks": pa.repeat(0, len(rows)),  # no posts were looked at
            "is_short": pa.repeat(False, len(rows)),
            "origin": pc.fill_null(rows["origin"], "declared"),
        }
        return pa.table(columns).cast(PROFILES)

    def check(self) -> None:
        if not self.path.exists():
            raise FileNotFoundError(f"no declared profiles in {self.path}")
        if self.path.suffix == ".jsonl":
            next(self._entries(), None)
        else:
            self._dataset()

    def fingerprint(self) -> str:
        self.check()
        files = sorted(path for path in self.path.rglob("*") if path.is_file()) if self.path.is_dir() else [self.path]
        return sha256_of_files(files)

    def _dataset(self) -> ds.Dataset:
        try:
            table = ds.dataset(self.path, format="parquet")
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{self.path} is neither Parquet nor .jsonl, or is damaged ({error})") from None
        if missing := sorted(set(NEEDED) - set(table.schema.names)):
            raise ValueError(f"{self.path} lacks the columns {missing}; it has {table.schema.names}")
        return table

    def _parquet(self, users: pa.Array) -> pa.Table:
        dataset = self._dataset()
        names = [name for name in (*NEEDED, "origin") if name in dataset.schema.names]
        columns = pa.schema(dict.fromkeys(names, pa.string()))
        pieces = [columns.empty_table()]
        for batch in dataset.to_batches(columns=names, use_threads=False):  # what is not wanted never piles up
            piece = with_clean_ids(pa.Table.from_batches([batch]).cast(columns), "user")
            pieces.append(piece.filter(pc.is_in(piece["user"], value_set=users)))
        rows = pa.concat_tables(pieces)
        return rows if "origin" in names else rows.append_column("origin", pa.nulls(len(rows), pa.string()))

    def _lines(self, users: pa.Array) -> pa.Table:
        wanted = set(users.to_pylist())
        rows = [entry for entry in self._entries() if entry["user"] in wanted]
        return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in (*NEEDED, "origin")]))

    def _entries(self) -> Iterator[dict[str, str]]:
        for number, raw in numbered_lines(self.path):
            try:
                entry = parse_object(raw)
                for name in NEEDED:
                    take(entry, name, str, may_be_empty=True)
                entry["user"] = clean_id(entry["user"])
            except Malformed as error:
                raise ValueError(f"{self.path}, line {number}: {error}") from None
            yield entry

    def _require_one_value(self, rows: pa.Table) -> None:
        """ValueError if a user has an attribute twice."""
        counts = rows.group_by(["user", "attribute"]).aggregate([("value", "count")])
        twice = counts.filter(pc.greater(counts["value_count"], 1)).sort_by("user")
        if len(twice):
            user, attribute = twice["user"][0].as_py(), twice["attribute"][0].as_py()
            raise ValueError(f"{self.path} has {attribute} of {user!r} more than once; leave one row of it")
