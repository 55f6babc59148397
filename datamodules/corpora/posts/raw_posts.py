"""Records of posts, whatever their fields are called, as Arrow tables of one layout, `RAW`.

A block of lines is parsed by Arrow in one go. Where that fails it is halved, until few lines are left; they are parsed
by Python, one by one. A line is a record if either parser says so, and both give the same values, so it does not
matter how lines are cut into blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from artefacts.people import clean_id
from datamodules.corpora.records import Malformed, Reasons

from .times import milliseconds

TIME = pa.timestamp("ms", "UTC")
POSTS = pa.schema(
    {"id": pa.string(), "author": pa.string(), "text": pa.string(), "time": TIME, "in_reply_to": pa.string()}
)
RAW = pa.schema([*POSTS, ("repost", pa.bool_()), ("lang", pa.string()), ("bad_time", pa.bool_())])
"""`bad_time`: a time is given and is none."""
KINDS = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
KIND_OF = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "an object", list: "a list"}
ALLOWED = {  # kinds of JSON values, by field
    **dict.fromkeys(("id", "author", "in_reply_to"), ("string", "integer")),
    **dict.fromkeys(("text", "lang"), ("string",)),
    "time": ("string", "number"),
    "repost": ("string", "boolean", "integer"),
}
NO = ("", "0", "false")  # a repost is none if its field says so
SURROGATE = re.compile("[\ud800-\udfff]")
FEW_LINES = 32
BLANK = b" \t\r\n"
CLEAN = r"^([!-~]+( [!-~]+)*)?$"  # ids in ASCII that `clean_id` leaves as they are


@dataclass(frozen=True)
class Fields:
    """What the fields of a post are called; a dot reaches into an object: `user.id_str`. Null: there is no such field.

    Args:
        id: the post's own id, a string or a whole number.
        author: id of who wrote it.
        text: what was written.
        time: when; see datamodules/corpora/posts/times.py for the forms.
        in_reply_to: id of the post that it answers; null or empty if none.
        repost: true, or any id, where the post only repeats somebody else's.
        lang: language of the text, as `ja` or `en-GB`.
    """

    id: str = "id"
    author: str = "author"
    text: str = "text"
    time: str | None = "time"
    in_reply_to: str | None = "in_reply_to"
    repost: str | None = None
    lang: str | None = None

    def __post_init__(self) -> None:
        names = [name for name in vars(self).values() if name]
        for name in names:
            if inside := next((other for other in names if other.startswith(name + ".")), None):
                raise ValueError(f"fields: got {name} and {inside}; {name} cannot be both a value and an object")

    @property
    def paths(self) -> dict[str, tuple[str, ...]]:
        return {field: tuple(name.split(".")) for field, name in vars(self).items() if name}


def value_at(record: Any, path: tuple[str, ...]) -> Any:
    """The value to which these keys lead, or None; Malformed if something on the way is no object."""
    for depth, key in enumerate(path):
        if record is None:
            return None
        if not isinstance(record, dict):
            raise Malformed("wrong type", f"got no object for {'.'.join(path[:depth]) or 'the whole'}, expected one")
        record = record.get(key)
    return record


def column_at(batch: pa.RecordBatch, path: Sequence[str]) -> pa.Array:
    """The column to which these names lead, through structs."""
    first, *rest = path
    return pc.struct_field(batch[first], rest) if rest else batch[first]


class JsonLines:
    """Parses blocks of whole lines of one file."""

    def __init__(self, fields: Fields) -> None:
        self.paths = fields.paths
        self.kinds = dict.fromkeys(self.paths, "string")

    def parse(self, data: bytes, file: str, start: int, reasons: Reasons) -> pa.Table:
        """The records of a block that begins at this byte of the file; what is none is counted in `reasons`."""
        return pa.concat_tables([RAW.empty_table(), *self._tables(data, file, start, reasons)]).combine_chunks()

    def _tables(self, data: bytes, file: str, start: int, reasons: Reasons) -> Iterable[pa.Table]:
        if not data.strip(BLANK):
            return
        table = self._at_once(data)
        if table is None and self._new_kinds(data):
            table = self._at_once(data)
        if table is not None:
            yield table
        elif data.count(b"\n", 0, -1) < FEW_LINES:
            yield from self._one_by_one(data, file, start, reasons)
        else:
            middle = data.find(b"\n", len(data) // 2, -1) + 1 or data.rfind(b"\n", 0, len(data) // 2) + 1
            yield from self._tables(data[:middle], file, start, reasons)
            yield from self._tables(data[middle:], file, start + middle, reasons)

    def _at_once(self, data: bytes) -> pa.Table | None:
        """The records, if each line holds exactly one and all values are of the kinds expected."""
        data = data.strip(BLANK)
        if not _is_one_a_line(data):
            data = b"\n".join(line for line in (line.strip(BLANK) for line in data.split(b"\n")) if line)
            if not _is_one_a_line(data):
                return None
        try:
            pa.array([data], pa.binary()).cast(pa.string())  # checks UTF-8, also in fields that are not read
            table = pj.read_json(
                pa.BufferReader(data),
                pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                pj.ParseOptions(explicit_schema=self._schema(), unexpected_field_behavior="ignore"),
            )
            if table.num_rows != data.count(b"\n") + 1:
                return None
            table.validate(full=True)
        except pa.ArrowInvalid:
            return None
        batch = table.combine_chunks().to_batches()[0]
        return raw_table({field: column_at(batch, path) for field, path in self.paths.items()}, batch.num_rows)

    def _schema(self) -> pa.Schema:
        tree: dict[str, Any] = {}
        for field, (*parents, key) in self.paths.items():
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[key] = KINDS[self.kinds[field]]
        return pa.schema(list(_struct(tree)))

    def _new_kinds(self, data: bytes) -> bool:
        """Looks at the first lines for the kinds of values; says whether they are others than expected."""
        found: dict[str, str] = {}
        for line in data.split(b"\n", FEW_LINES)[:FEW_LINES]:
            try:
                record = json.loads(line)
                for field, path in self.paths.items():
                    kind = _kind(field, value_at(record, path))
                    if kind in ALLOWED[field]:
                        found.setdefault(field, kind)
            except (ValueError, RecursionError):  # Malformed is a ValueError
                continue
        before, self.kinds = self.kinds, {**self.kinds, **found}
        return self.kinds != before

    def _one_by_one(self, data: bytes, file: str, start: int, reasons: Reasons) -> Iterable[pa.Table]:
        rows: list[dict[str, Any]] = []
        for line in data.split(b"\n"):
            if line.strip(BLANK):
                try:
                    rows.append(self._row(line))
                except Malformed as error:
                    table = self._at_once(line) if error.reason == "not JSON" else None
                    if table is None:
                        reasons.add(error.reason, 1, [f"{file}: byte {start}: {error}"])
                    else:
                        yield from (table_of_rows(rows), table)
                        rows = []
            start += len(line) + 1
        yield table_of_rows(rows)

    def _row(self, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise Malformed("not UTF-8", f"got {error.reason}, expected UTF-8") from None
        except (ValueError, RecursionError) as error:  # also a number of thousands of digits, thousands of brackets
            got = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise Malformed("not JSON", f"got {got!r}, expected one JSON object") from None
        return row_of(record, self.paths)


def row_of(record: Any, paths: dict[str, tuple[str, ...]]) -> dict[str, str | None]:
    """The values of the fields as strings; Malformed if one is of no kind for its field."""
    if not isinstance(record, dict):
        raise Malformed("wrong type", "got a JSON value that is no object, expected one object a line")
    row = {}
    for field, path in paths.items():
        value = value_at(record, path)
        kind = _kind(field, value)
        if kind is not None and kind not in ALLOWED[field]:
            name = ".".join(path)
            raise Malformed("wrong type", f"got {kind} for {name}, expected {' or '.join(ALLOWED[field])}")
        if kind == "string" and SURROGATE.search(value):
            raise Malformed("not UTF-8", f"got half a surrogate pair in {'.'.join(path)}")
        row[field] = f"{value:.6f}" if isinstance(value, float) else None if value is None else str(value)
    return row


def table_of_rows(rows: list[dict[str, str | None]]) -> pa.Table:
    """A table of `RAW` of what `row_of` gives."""
    return raw_table({field: pa.array([row.get(field) for row in rows], pa.string()) for field in ALLOWED}, len(rows))


def raw_table(columns: dict[str, pa.Array], num_rows: int) -> pa.Table:
    """A table of `RAW` of columns by field, each of one of the allowed kinds."""
    arrays = {}
    for field in ("id", "author", "text", "in_reply_to", "lang"):
        found = columns.get(field)
        arrays[field] = pa.nulls(num_rows, pa.string()) if found is None else found.cast(pa.string())
    reply_to = arrays["in_reply_to"]
    arrays["in_reply_to"] = pc.if_else(pc.equal(reply_to, ""), None, reply_to)
    time, bad = milliseconds(columns.get("time", pa.nulls(num_rows, pa.string())))
    repost = columns.get("repost", pa.nulls(num_rows, pa.bool_()))
    if not pa.types.is_boolean(repost.type):
        is_no = pc.is_in(pc.utf8_lower(repost.cast(pa.string())), value_set=pa.array(NO))
        repost = pc.and_(repost.is_valid(), pc.invert(is_no))
    arrays |= {"time": time.cast(TIME), "bad_time": bad, "repost": repost.fill_null(False)}
    return pa.table([arrays[name] for name in RAW.names], schema=RAW)


def with_clean_ids(table: pa.Table, column: str) -> pa.Table:
    """The table with ids of people as `clean_id` writes them; most are so already, which is seen for all at once."""
    ids = table[column].combine_chunks()
    is_other = pc.fill_null(pc.invert(pc.and_(pc.string_is_ascii(ids), pc.match_substring_regex(ids, CLEAN))), False)
    if not pc.any(is_other).as_py():
        return table
    coded = ids.filter(is_other).dictionary_encode()
    names = pa.array([clean_id(name) for name in coded.dictionary.to_pylist()], pa.string())
    ids = pc.replace_with_mask(ids, is_other, names.take(coded.indices))
    return table.set_column(table.schema.get_field_index(column), table.schema.field(column), ids)


def _is_one_a_line(data: bytes) -> bool:
    """Whether each line begins and ends with braces, so that no record goes over several lines; and there is no NUL."""
    return data[:1] == b"{" and data[-1:] == b"}" and data.count(b"}\n{") == data.count(b"\n") and b"\0" not in data


def _kind(field: str, value: Any) -> str | None:
    kind = KIND_OF.get(type(value))
    return "number" if kind == "integer" and field == "time" else kind


def _struct(tree: dict[str, Any]) -> Iterable[pa.Field]:
    for name, node in tree.items():
        yield pa.field(name, pa.struct(list(_struct(node))) if isinstance(node, dict) else node)
