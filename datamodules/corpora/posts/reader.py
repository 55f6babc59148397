"""Posts of a social network: the reader for corpora that no memory holds.

It reads JSONL (plain, gzip, zstd) or Parquet at any address that fsspec knows. A JSON line of the default fields:

    {"id": "17", "author": "hana", "text": "Are you up?", "time": "2024-05-01T07:30:00+09:00", "in_reply_to": "16"}

`Fields` maps other names. The cut into units of input does not change the posts of all of them together.

Terms: yours. Posts of people who opted out are dropped before anything else; only their number is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datamodules.corpora.records import OPTED_OUT, Reasons

from .authors import AuthorRules
from .cleaning import Cleaning
from .columns import has_column, parse_batch
from .files import PostFiles, Unit, kind_of
from .profile_sources import ProfileSource
from .raw_posts import POSTS, RAW, Fields, JsonLines, with_clean_ids

BATCH_ROWS = 32_768
CHECKED_FILES, CHECKED_RECORDS = 16, 1000
MALFORMED = frozenset(
    {"not JSON", "not UTF-8", "wrong type", "line too long", "no id", "no author", "no text", "bad time"}
)
"""Reasons that say that a record is broken, not that the post is of no use."""
REQUIRED = ("id", "author", "text")


class Posts:
    """Reads posts from files.

    Args:
        files: paths, globs, directories, or addresses such as `s3://bucket/posts/*.jsonl.zst`; one or several.
        fields: what the fields of a post are called.
        cleaning: which posts are kept, and what is taken out of their texts.
        authors: which posts of an author are the same, and who is no person.
        profiles: where the authors' profiles come from: inferred from their posts, or declared in a table; None makes
            none.
        unit_bytes: size of a unit of input where a file can be cut.
        storage_options: what fsspec needs for these addresses; passed on as it is.
    """

    def __init__(
        self,
        files: str | list[str],
        fields: Fields = Fields(),  # noqa: B008 - frozen
        cleaning: Cleaning = Cleaning(),  # noqa: B008 - frozen
        authors: AuthorRules = AuthorRules(),  # noqa: B008 - frozen
        profiles: ProfileSource | None = None,
        unit_bytes: int = 64 << 20,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        if unit_bytes < 1:
            raise ValueError(f"unit_bytes: got {unit_bytes}, expected 1 or more")
        self.files = [files] if isinstance(files, str) else list(files)
        self.fields = fields
        self.cleaning = cleaning
        self.authors = authors
        self.profiles = profiles
        self.unit_bytes = unit_bytes
        self.storage_options = storage_options or {}

    def units(self) -> list[Unit]:
        """The units of input, in a fixed order.

        Raises:
            ValueError: all files are empty, or a field that is mapped is in none of the first records of a file.
        """
        sizes = self._source.find()
        empty = [path for path, size in sizes.items() if size == 0]
        if len(empty) == len(sizes):
            raise ValueError(f"{', '.join(self.files)}: all {len(sizes)} files are empty")
        if empty:
            print(f"{len(empty)} of {len(sizes)} files are empty, such as {', '.join(empty[:3])}")
        full = [path for path in sizes if sizes[path]]
        self._check_fields(full[:: -(-len(full) // CHECKED_FILES)])
        return [unit for path, size in sizes.items() for unit in self._source.units(path, size, self.unit_bytes)]

    def read(self, unit: Unit, opted_out: frozenset[str] = frozenset()) -> Iterator[tuple[pa.Table, Reasons]]:
        """Yields blocks of cleaned posts, of some tens of thousands at most, and what was left out of each.

        Every record is a post or counted under one reason; `empty file` counts files.

        Raises:
            ValueError: a compressed or a Parquet file is damaged or cut off.
        """
        num_records = 0
        for raw, reasons in self._raw(unit):
            num_records += raw.num_rows + reasons.total()
            cleaned = with_clean_ids(raw, "author")
            reasons.num_respelled = pc.sum(pc.not_equal(raw["author"], cleaned["author"])).as_py() or 0
            yield self.cleaning.clean(_without(opted_out, cleaned, reasons), reasons), reasons
        if num_records == 0 and self._is_whole(unit):
            reasons = Reasons()
            reasons.add("empty file", 1, [unit.path])
            yield POSTS.empty_table(), reasons

    def num_bytes(self) -> int:
        return sum(self._source.find().values())

    def fingerprint(self) -> str:
        """SHA-256 over names, sizes and samples of the files.

        Of a file above 1 MiB only 16 samples of 64 KiB are read: a change between them that keeps its size is not seen.
        """
        digest = hashlib.sha256()
        for path, size in self._source.find().items():
            digest.update(f"{path.rpartition('/')[2]} {size} {self._source.sample(path, size)}\n".encode())
        return digest.hexdigest()

    def settings(self) -> dict[str, Any]:
        """What decides the content of the posts besides the files, as plain values."""
        return {
            "fields": asdict(self.fields),
            "cleaning": asdict(self.cleaning),
            "authors": asdict(self.authors),
            "profiles": self._profiles_fingerprint(),
        }

    def _profiles_fingerprint(self) -> str | None:
        try:
            return self.profiles and self.profiles.fingerprint()
        except FileNotFoundError:  # checked when they are inferred
            return None

    @property
    def _source(self) -> PostFiles:
        return PostFiles(self.files, self.storage_options)

    def _raw(self, unit: Unit) -> Iterator[tuple[pa.Table, Reasons]]:
        if unit.kind == "parquet":
            yield from self._rows(unit)
            return
        if unit.kind == "archive":
            raise ValueError(f"{unit.path}: got a Twitter archive; its reader is datamodules.corpora.TwitterArchive")
        lines = JsonLines(self.fields)
        too_long = Reasons()
        for position, data in self._source.blocks(unit, too_long):
            reasons = Reasons()
            yield lines.parse(data, unit.path, position, reasons), reasons
        if too_long:
            yield RAW.empty_table(), too_long

    def _rows(self, unit: Unit) -> Iterator[tuple[pa.Table, Reasons]]:
        if not self._source.size(unit.path):
            return
        with self._source.parquet(unit.path) as file:
            paths = {name: path for name, path in self.fields.paths.items() if has_column(file.schema_arrow, path)}
            columns = [".".join(path) for path in paths.values()]
            groups = list(range(unit.start, file.num_row_groups if unit.stop is None else unit.stop))
            first = sum(file.metadata.row_group(group).num_rows for group in range(unit.start))
            try:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False):
                    reasons = Reasons()
                    yield parse_batch(batch, paths, f"{unit.path}: row", first, reasons), reasons
                    first += batch.num_rows
            except (pa.ArrowInvalid, OSError) as error:
                raise ValueError(f"{unit.path}: got {error}; expected a whole Parquet file: replace it") from None

    def _check_fields(self, paths: list[str]) -> None:
        """ValueError where one of these files has no `id`, `author` or `text`, or none has one of the other fields."""
        named = self.fields.paths
        missing_in_all = set(named) - set(REQUIRED)
        names: set[str] = set()
        for path in paths:
            if kind_of(path) == "parquet":
                with self._source.parquet(path) as file:
                    schema = file.schema_arrow
                missing = {field for field, keys in named.items() if not has_column(schema, keys)}
                here = set(schema.empty_table().flatten().column_names)
            else:
                records = list(self._first_records(path))
                if not records:
                    raise ValueError(f"{path}: got no JSON object in its first lines, expected one post a line")
                missing = {field for field, keys in named.items() if not any(_has(one, keys) for one in records)}
                here = {name for record in records for name in _names(record)}
            if missing & set(REQUIRED):
                raise ValueError(self._without_field(path, missing, here))
            missing_in_all &= missing
            names |= here
        if missing_in_all:
            raise ValueError(self._without_field(", ".join(self.files), missing_in_all, names))

    def _without_field(self, where: str, missing: set[str], names: set[str]) -> str:
        wanted = ", ".join(f"{field}: {name}" for field, name in vars(self.fields).items() if field in missing)
        return (
            f"{where}: no post has what `fields` names: {wanted}; there are {', '.join(sorted(names))}. Give the right "
            "names, or null for an optional field that this corpus does not have"
        )

    def _first_records(self, path: str) -> Iterator[dict[str, Any]]:
        for _, data in self._source.blocks(Unit(path, kind_of(path)), Reasons()):
            for line in data.split(b"\n", CHECKED_RECORDS)[:CHECKED_RECORDS]:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict):
                    yield record
            return

    def _is_whole(self, unit: Unit) -> bool:
        return unit.start == 0 and (unit.kind != "lines" or unit.stop in (None, self._source.size(unit.path)))


def _has(record: Any, keys: Sequence[str]) -> bool:
    """Whether the last of these keys exists, with whatever value; or an object above it is null."""
    for key in keys:
        if record is None:
            return True
        if not isinstance(record, dict) or key not in record:
            return False
        record = record[key]
    return True


def _names(record: dict[str, Any], depth: int = 2) -> Iterator[str]:
    """Names of fields, down to those of objects within the record."""
    for key, value in record.items():
        if isinstance(value, dict) and depth > 1:
            yield from (f"{key}.{name}" for name in _names(value, depth - 1))
        else:
            yield key


def _without(opted_out: frozenset[str], raw: pa.Table, reasons: Reasons) -> pa.Table:
    if not opted_out:
        return raw
    is_theirs = pc.is_in(raw["author"], value_set=pa.array(sorted(opted_out), pa.string()))
    reasons.opted_out = set(raw["author"].filter(is_theirs).unique().to_pylist())
    reasons.add(OPTED_OUT, pc.sum(is_theirs).as_py())
    return raw.filter(pc.invert(is_theirs))
