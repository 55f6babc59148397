"""Files of posts: where they are, of which kind, and how they are cut into units of input and blocks.

    .jsonl .ndjson .json     lines, cut by bytes     so are all other names that are given, not found in a directory
    .gz .zst .zstd           lines, compressed       one unit a file
    .parquet .pq             rows, cut by row groups
    .js                      a Twitter archive       one unit a file

A line belongs to the unit in which its first byte is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.corpora.records import Reasons

SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "lines"),
    ".gz": "gzip",
    **dict.fromkeys((".zst", ".zstd"), "zstd"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
ARCHIVE = ("tweet.js", "tweets.js", "tweet-part", "tweets-part")  # of the many files of an archive
BLOCK_BYTES = 8 << 20  # of lines, at once in memory
MAX_LINE_BYTES = 16 << 20
SAMPLES, SAMPLE_BYTES = 16, 64 << 10
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Unit:
    """A piece of the input: a file, or its bytes or row groups from `start` to `stop` (None: to the end)."""

    path: str
    kind: str
    start: int = 0
    stop: int | None = None


class PostFiles:
    """The files of a corpus of posts, by paths, globs, directories or addresses."""

    def __init__(self, patterns: Sequence[str], storage_options: Mapping[str, Any]) -> None:
        self.patterns = patterns
        self.storage_options = dict(storage_options)

    def find(self) -> dict[str, int]:
        """Address of each file → its size in bytes, in order of address; FileNotFoundError if a pattern finds none."""
        found: dict[str, int] = {}
        for pattern in self.patterns:
            fs, path = fsspec.core.url_to_fs(pattern, **self.storage_options)
            if fs.isdir(path):
                inside = fs.find(path)
                paths = [one for one in inside if _is_of_posts(one)]
                if len(paths) < len(inside):
                    print(f"{pattern}: {len(inside) - len(paths)} of {len(inside)} files are no posts by their names")
            else:
                paths = fs.glob(path) if fsspec.core.has_magic(path) else [path] if fs.exists(path) else []
            if not paths:
                kinds = ", ".join([*SUFFIXES, "tweets.js"])
                raise FileNotFoundError(f"{pattern}: no file of posts found; in a directory they end in {kinds}")
            is_local = "file" in fs.protocol
            found |= {one if is_local else fs.unstrip_protocol(one): fs.size(one) for one in paths}
        return dict(sorted(found.items()))

    def units(self, path: str, size: int, unit_bytes: int) -> Iterator[Unit]:
        """Cuts a file, where it can be cut, into pieces of about so many bytes."""
        kind = kind_of(path)
        if kind == "lines":
            starts = range(0, size, unit_bytes) or range(1)
            yield from (Unit(path, kind, start, min(start + unit_bytes, size)) for start in starts)
        elif kind == "parquet" and size:
            with self.parquet(path) as file:
                first = num_bytes = 0
                for group in range(file.num_row_groups):
                    num_bytes += file.metadata.row_group(group).total_byte_size
                    if num_bytes >= unit_bytes or group == file.num_row_groups - 1:
                        yield Unit(path, kind, first, group + 1)
                        first, num_bytes = group + 1, 0
                if not file.num_row_groups:
                    yield Unit(path, kind, 0, 0)
        else:
            yield Unit(path, kind)

    @contextmanager
    def parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """An open Parquet file; ValueError names one that is none."""
        with self._open(path) as file:
            try:
                parquet = pq.ParquetFile(file)
            except (pa.ArrowInvalid, OSError) as error:
                raise ValueError(f"{path}: got {error}; expected a whole Parquet file: replace it") from None
            yield parquet

    def blocks(self, unit: Unit, reasons: Reasons) -> Iterator[tuple[int, bytes]]:
        """Yields position and bytes of blocks of whole lines; a line beyond `MAX_LINE_BYTES` is counted."""
        with self._open(unit.path) as file:
            if unit.kind == "lines":
                first, stop, stream = _line_begin(file, unit.start), unit.stop, file
            else:
                first, stop, stream = 0, None, pa.CompressedInputStream(pa.PythonFile(file, "r"), unit.kind)
            try:
                yield from _blocks(stream, first, stop, unit.path, reasons)
            except (pa.ArrowInvalid, OSError) as error:
                if unit.kind == "lines":
                    raise
                raise ValueError(f"{unit.path}: got {error}; expected a whole {unit.kind} file: replace it") from None

    def read(self, path: str) -> bytes:
        with self._open(path) as file:
            return file.read()

    def sample(self, path: str, size: int) -> str:
        """SHA-256 over 16 pieces of 64 KiB from a file's begin to its end: the whole of a file up to 1 MiB."""
        digest = hashlib.sha256()
        with self._open(path) as file:
            for number in range(SAMPLES):
                file.seek(max(0, size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
        return digest.hexdigest()

    def size(self, path: str) -> int | None:
        fs, inside = fsspec.core.url_to_fs(path, **self.storage_options)
        return fs.size(inside) if fs.isfile(inside) else None

    def _open(self, path: str) -> BinaryIO:
        fs, inside = fsspec.core.url_to_fs(path, **self.storage_options)
        return fs.open(inside, "rb")


def kind_of(path: str) -> str:
    """The kind of a file by its name: lines, gzip, zstd, parquet or archive."""
    if path.endswith(".js"):
        return "archive"
    return next((kind for suffix, kind in SUFFIXES.items() if path.lower().endswith(suffix)), "lines")


def _is_of_posts(path: str) -> bool:
    name = path.rpartition("/")[2]
    if name.startswith((".", "_")):
        return False
    if name.endswith(".js"):
        return name.startswith(ARCHIVE)
    return name.lower().endswith(tuple(SUFFIXES))


def _line_begin(file: BinaryIO, start: int) -> int:
    """Goes to the first line that begins at byte `start` or behind it, and says where that is."""
    if start == 0:
        begin = 3 if file.read(3) == BYTE_ORDER_MARK else 0
    else:
        begin = start - 1  # a line begins at `start` if this byte ends one
        file.seek(begin)
        while piece := file.read(SAMPLE_BYTES):
            end = piece.find(b"\n") + 1
            begin += end or len(piece)
            if end:
                break
    file.seek(begin)
    return begin


def _blocks(stream: Any, position: int, stop: int | None, path: str, reasons: Reasons) -> Iterator[tuple[int, bytes]]:
    """Blocks of the lines that begin before byte `stop`; the stream stands at byte `position`, where a line begins."""
    rest = b""  # of a line that goes on; `position` is where it begins
    while stop is None or position < stop:
        data = stream.read(BLOCK_BYTES)
        is_last = not data
        if position == 0 and stop is None and data.startswith(BYTE_ORDER_MARK):
            position, data = 3, data[3:]
        data = rest + data
        if len(data) > MAX_LINE_BYTES and (data.find(b"\n") + 1 or len(data)) > MAX_LINE_BYTES:
            reasons.add("line too long", 1, [f"{path}: byte {position}: got more than {MAX_LINE_BYTES} bytes"])
            position, rest = _behind_line(stream, position, data)
            continue
        end = len(data) if is_last else data.rfind(b"\n") + 1
        if stop is not None and position + len(data) >= stop:  # the line that holds byte stop - 1 is our last
            last = data.find(b"\n", max(0, stop - 1 - position)) + 1
            end, is_last = (last, True) if last else (end, is_last)
        if end:
            yield position, data[:end]
        if is_last:
            return
        position, rest = position + end, data[end:]


def _behind_line(stream: Any, position: int, data: bytes) -> tuple[int, bytes]:
    """Reads on until a line ends that begins at `position` with `data`; position and bytes of what follows."""
    while True:
        end = data.find(b"\n") + 1
        if end or not data:
            return position + end, data[end:]
        position += len(data)
        data = stream.read(BLOCK_BYTES)
