"""Records of posts in Parquet: batches of columns into tables of `raw_posts.RAW`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from datamodules.corpora.records import Reasons

from .raw_posts import RAW, column_at, raw_table

types = pa.types


def has_column(schema: pa.Schema, path: Sequence[str]) -> bool:
    """Whether these names lead to a column, through structs."""
    inside: pa.Schema | pa.DataType = schema
    for name in path:
        is_open = isinstance(inside, pa.Schema) or types.is_struct(inside)
        at = inside.get_field_index(name) if is_open else -1
        if at < 0:
            return False
        inside = inside.field(at).type
    return True


def parse_batch(
    batch: pa.RecordBatch, paths: Mapping[str, Sequence[str]], where: str, first: int, reasons: Reasons
) -> pa.Table:
    """The records of a batch whose first row is row `first` of its file.

    One whose strings are not UTF-8 is counted in `reasons`, at the place `where` and the number of its row.

    Raises:
        ValueError: a column has a type that its field cannot have.
    """
    columns = {field: _leaf(field, batch, path) for field, path in paths.items()}
    bad = _not_utf8(columns)
    if bad:
        reasons.add("not UTF-8", len(bad), [f"{where} {first + row}" for row in bad])
        good = pa.array([row for row in range(batch.num_rows) if row not in set(bad)], pa.int64())
        columns = {field: column.take(good) for field, column in columns.items()}
    return raw_table(columns, batch.num_rows - len(bad)) if columns else RAW.empty_table()


def _leaf(field: str, batch: pa.RecordBatch, path: Sequence[str]) -> pa.Array:
    column = column_at(batch, path)
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if types.is_null(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return column.cast(pa.string())
    is_right = {
        "time": types.is_integer(kind) or types.is_floating(kind) or types.is_timestamp(kind),
        "repost": types.is_boolean(kind) or types.is_integer(kind),
    }.get(field, types.is_integer(kind) and field in ("id", "author", "in_reply_to"))
    if not is_right:
        raise ValueError(f"column {'.'.join(path)}: got {kind}, which is nothing that the field {field} can be")
    return column


def _not_utf8(columns: Mapping[str, pa.Array]) -> list[int]:
    """Rows with a string that is no UTF-8; Arrow does not look when it reads Parquet."""
    bad = set()
    for column in columns.values():
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            for row, value in enumerate(column.cast(pa.binary()).to_pylist()):
                try:
                    (value or b"").decode("utf-8")
                except UnicodeDecodeError:
                    bad.add(row)
    return sorted(bad)
