"""One person's rows in Parquet and Arrow IPC files: found, and taken out.

Columns that name people are `user`, `speaker`, `partner`, `author`, and those whose names end in `_user` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artefacts.files import replacing

SUFFIXES = (".parquet", ".arrow")
PEOPLE = re.compile(r"(^|_)(user|speaker|partner|author)$")
ALSO_READ = ("pair_id", "dialogue_id")
PART_OF_A_CONVERSATION = r"^[0-9a-f]{16}/[^/]+/\d+/\d+-\d+/"
"""Prefix of the speaker if the "user" of a profile is a part of a conversation (`ConversationPosts`)."""


def rows_of(path: Path, user: str) -> pa.Table:
    """This person's rows of a file: the columns that name people, and `pair_id` and `dialogue_id` if it has them."""
    with _Pieces(path) as pieces:
        names = [name for name in pieces.schema.names if PEOPLE.search(name) or name in ALSO_READ]
        rows = [piece.filter(_is_of(piece, user)) for piece in pieces.read(names)]
        return pa.concat_tables(rows) if rows else pa.schema([]).empty_table()


def people_like(path: Path, user: str) -> set[str]:
    """Other ids in the columns that name people which a reader takes for the same as this one."""
    look, others = _looks(pa.array([user]))[0], set()
    with _Pieces(path) as pieces:
        columns = [name for name in pieces.schema.names if PEOPLE.search(name)]
        for piece in pieces.read(columns) if columns else ():
            for column in piece.columns:
                ids = column.cast(pa.string()).unique()
                others.update(ids.filter(pc.equal(_looks(ids), look)).to_pylist())
    return others - {user, None}


def _looks(ids: pa.Array) -> pa.Array:
    """Ids without what a reader does not see: case, width, form of accents, blanks, invisible characters."""
    folded = pc.utf8_lower(pc.utf8_normalize(ids, "NFKD"))
    return pc.replace_substring_regex(folded, r"[\s\p{Z}\p{Cc}\p{Cf}]+", "")


def take_out(path: Path, user: str) -> None:
    """Rewrites a file without this person's rows; it is whole at any time.

    Row groups of a Parquet file that become empty are dropped. Record batches of an Arrow file keep their numbers:
    those that become empty stay.
    """
    with replacing(path) as partial, _Pieces(path) as pieces, _Writer(pieces, partial, user) as write:
        for piece in pieces.read(None):
            write(piece.filter(pc.invert(_is_of(piece, user))))


def _is_of(table: pa.Table, user: str) -> pa.ChunkedArray | pa.Array:
    """Which rows name this person."""
    masks = []
    for name in table.schema.names:
        if not PEOPLE.search(name):
            continue
        column = table[name].cast(pa.string())
        masks.append(pc.fill_null(pc.equal(column, user), False))
        if name == "user":
            pattern = f"{PART_OF_A_CONVERSATION}{re.escape(user)}$"
            masks.append(pc.fill_null(pc.match_substring_regex(column, pattern), False))
    return reduce(pc.or_, masks) if masks else pa.array([False] * len(table), pa.bool_())


class _Pieces:
    """A file of columns, read a row group or a record batch at a time, and a writer for the same kind of file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Pieces:
        try:
            if self.path.suffix == ".parquet":
                self.kind, self.file = "parquet", pq.ParquetFile(self.path)
                self.schema = self.file.schema_arrow
                return self
            self.source = pa.OSFile(str(self.path))
            try:
                self.kind, self.file = "file", pa.ipc.open_file(self.source)
            except pa.ArrowInvalid:
                self.source.seek(0)
                self.kind, self.file = "stream", pa.ipc.open_stream(self.source)
            self.schema = self.file.schema
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{self.path} is damaged or was not written to its end ({error}); delete it") from None
        return self

    def __exit__(self, *_: object) -> None:
        (self.file if self.kind == "parquet" else self.source).close()

    def read(self, columns: list[str] | None) -> Iterator[pa.Table]:
        """Yields the row groups or record batches; None reads all columns."""
        if self.kind == "parquet":
            for group in range(self.file.num_row_groups):
                yield self.file.read_row_group(group, columns=columns)
            return
        batches = (
            (self.file.get_batch(number) for number in range(self.file.num_record_batches))
            if self.kind == "file"
            else self.file
        )
        for batch in batches:
            table = pa.Table.from_batches([batch], self.schema)
            yield table if columns is None else table.select(columns)


class _Writer:
    """Writes tables as row groups of a Parquet file, or each as exactly one record batch."""

    def __init__(self, like: _Pieces, path: Path, user: str) -> None:
        self.like, self.path, self.user = like, path, user

    def __enter__(self) -> Callable[[pa.Table], None]:
        if self.like.kind == "parquet":
            self.file = pq.ParquetWriter(self.path, self.like.schema, compression="zstd")
            return self._write_group
        # An Arrow file has one dictionary a column, in which the person's name would stay: a new one without it.
        self.dictionaries = {
            field.name: self._names(field.name) for field in self.like.schema if pa.types.is_dictionary(field.type)
        }
        new = pa.ipc.new_file if self.like.kind == "file" else pa.ipc.new_stream
        self.file = new(str(self.path), self.like.schema)
        return self._write_batch

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _names(self, column: str) -> pa.Array:
        values: set[str] = set()
        with _Pieces(self.like.path) as pieces:
            for piece in pieces.read([column]):
                values.update(piece[column].cast(pa.string()).unique().to_pylist())
        return pa.array(sorted(values - {self.user, None}), pa.string())

    def _write_group(self, table: pa.Table) -> None:
        if len(table):
            self.file.write_table(table, row_group_size=len(table))

    def _write_batch(self, table: pa.Table) -> None:
        columns = []
        for field in self.like.schema:
            column = table[field.name].combine_chunks()
            column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
            if field.name in self.dictionaries:
                names = self.dictionaries[field.name]
                places = pc.index_in(column.cast(pa.string()), value_set=names).cast(field.type.index_type)
                column = pa.DictionaryArray.from_arrays(places, names.cast(field.type.value_type))
            columns.append(column)
        self.file.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.like.schema))
