"""Shuffle files: each task writes one Arrow IPC file, from which the tasks of the next stage read their own buckets.

A file holds rounds of `num_buckets` record batches; batch `round * num_buckets + bucket` has that bucket's rows, maybe
none. So a stage of a thousand tasks and a thousand buckets writes a thousand files and not a million. Nothing that is
computed from a bucket may depend on the order of its rows, which is that of the tasks that wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from artefacts.files import replacing

BYTES_PER_ROUND = 64 * 2**20
"""Rows are held back until they are this many bytes, so that each bucket gets a record batch worth its overhead."""
OPTIONS = ipc.IpcWriteOptions(compression="lz4")


def hash_strings(column: pa.ChunkedArray | pa.Array, seed: int = 0) -> np.ndarray:
    """(rows,) uint64 hashes of strings without nulls, the same in every process, on every machine and in every release.

    The sum of the bytes, each times a random odd number of its place, and of the length, mixed by splitmix64. Two
    different strings meet with a probability of about 2^-64.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([_hash_chunk(chunk, seed) for chunk in chunks] or [np.empty(0, dtype=np.uint64)])


def _hash_chunk(chunk: pa.Array, seed: int) -> np.ndarray:
    if not len(chunk):
        return np.empty(0, dtype=np.uint64)
    if chunk.null_count:
        raise ValueError(f"{chunk.null_count} of {len(chunk)} strings are null; a null has no hash")
    wide = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
    _, offsets, data = chunk.buffers()
    borders = np.frombuffer(offsets, dtype=wide)[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64)
    lengths = np.diff(borders)
    text = np.frombuffer(data, dtype=np.uint8)[borders[0] : borders[-1]] if data else np.empty(0, dtype=np.uint8)
    place = np.arange(len(text)) - np.repeat(borders[:-1] - borders[0], lengths)
    salt = _mix(np.array([seed + 1], dtype=np.uint64))
    factors = _mix(np.arange(1, int(lengths.max()) + 2, dtype=np.uint64) + salt) | np.uint64(1)
    sums = np.zeros(len(chunk), dtype=np.uint64)
    filled = lengths > 0
    if filled.any():
        products = (text.astype(np.uint64) + np.uint64(1)) * factors[place]
        sums[filled] = np.add.reduceat(products, (borders[:-1] - borders[0])[filled])
    return _mix(sums + lengths.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salt)


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input changes every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hash_of_both(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A hash of two hashed strings that does not depend on which is which."""
    return _mix(one + other)


def share_of(hashes: np.ndarray, number: int) -> np.ndarray:
    """Which of `number` (below 2^32) equal parts of all hashes each one is in: parts in order are hashes in order."""
    return ((hashes >> np.uint64(32)) * np.uint64(number) >> np.uint64(32)).astype(np.int64)


@contextmanager
def shuffle_file(path: Path, schema: pa.Schema, num_buckets: int) -> Iterator[ShuffleWriter]:
    """A writer for one shuffle file, which gets its name when it is complete; two processes may write it at once."""
    with replacing(path, shared=True) as partial, ipc.new_file(str(partial), schema, options=OPTIONS) as file:
        writer = ShuffleWriter(file, schema, num_buckets, path.name)
        yield writer
        writer.write_round()


class ShuffleWriter:
    """Deals rows into the buckets of a shuffle file: see `shuffle_file`."""

    def __init__(self, file: ipc.RecordBatchFileWriter, schema: pa.Schema, num_buckets: int, name: str) -> None:
        self.schema = schema
        self.num_buckets = num_buckets
        self.name = name
        self._file = file
        self._held: list[pa.Table] = []
        self._buckets: list[np.ndarray] = []

    def write(self, table: pa.Table, buckets: np.ndarray) -> None:
        """Adds rows, each to the bucket of the same place in `buckets`."""
        self._held.append(table.select(self.schema.names).cast(self.schema))
        self._buckets.append(buckets)
        if sum(table.nbytes for table in self._held) > BYTES_PER_ROUND:
            self.write_round()

    def write_round(self) -> None:
        """Writes a record batch for each bucket with the rows that are held back."""
        if not self._held:
            return
        table = pa.concat_tables(self._held).combine_chunks()
        buckets = np.concatenate(self._buckets)
        self._held, self._buckets = [], []
        order = np.argsort(buckets, kind="stable")
        table = table.take(pa.array(order)).combine_chunks()
        borders = np.searchsorted(buckets[order], np.arange(self.num_buckets + 1))
        for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            batches = table.slice(start, stop - start).to_batches() if stop > start else []
            if len(batches) > 1:  # only where one column alone has 2 GiB of text
                raise ValueError(f"{self.name}: {stop - start} rows do not fit a record batch; use more buckets")
            self._file.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], self.schema))


def read_bucket(paths: Iterable[Path], bucket: int, num_buckets: int, schema: pa.Schema) -> pa.Table:
    """The rows of one bucket from all files, in their order."""
    batches = []
    for path in paths:
        try:
            with pa.memory_map(str(path)) as source:
                file = ipc.open_file(source)
                batches += [file.get_batch(number) for number in range(bucket, file.num_record_batches, num_buckets)]
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is damaged or truncated ({error}); delete it and prepare again") from None
    return pa.Table.from_batches([batch for batch in batches if batch.num_rows], schema=schema)
