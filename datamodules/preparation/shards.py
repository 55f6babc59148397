"""Token shards: reply pairs as Parquet, with what a reader needs to plan its batches.

Columns of a shard, one row a reply pair:

    pair_id           int64         63-bit hash of dialogue and position
    dialogue_id       string
    position          int32         index of the response in its dialogue
    speaker           string        author of the response
    partner           string        the other one
    context_ids       list<uint16>  ids of the context turns, oldest first (uint32 above 65,536 pieces)
    context_lengths   list<uint16>  ids in each context turn
    context_speakers  list<uint8>   author of each context turn: 0 the speaker, 1 the partner
    response_ids      list<uint16>  ids of the response, without an end token
    time              timestamp     of the response, or null
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artefacts.files import replacing
from artefacts.fingerprints import sha256_of

ROWS_PER_GROUP = 8192
ROWS_PER_PART = 64 * ROWS_PER_GROUP
FINGERPRINT_KEY = b"tokenizer_fingerprint"


def schema(vocabulary_size: int, fingerprint: str) -> pa.Schema:
    """The columns above; ids take two bytes when the vocabulary allows, and every file names its tokenizer."""
    ids = pa.list_(pa.uint16() if vocabulary_size <= 65_536 else pa.uint32())
    return pa.schema(
        {
            "pair_id": pa.int64(),
            "dialogue_id": pa.string(),
            "position": pa.int32(),
            "speaker": pa.string(),
            "partner": pa.string(),
            "context_ids": ids,
            "context_lengths": pa.list_(pa.uint16()),
            "context_speakers": pa.list_(pa.uint8()),
            "response_ids": ids,
            "time": pa.timestamp("ms", tz="UTC"),
        },
        metadata={FINGERPRINT_KEY: fingerprint.encode()},
    )


def write_shards(rows: Iterable[Mapping[str, Any]], directory: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Writes the rows in their order; returns a description of each part."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, part_rows in enumerate(_batches(rows, ROWS_PER_PART)):
        groups = (pa.Table.from_pylist(group, schema=schema) for group in _batches(part_rows, ROWS_PER_GROUP))
        parts.append(write_part(groups, directory / part_name(number), schema))
    return parts


def part_name(number: int) -> str:
    """The file of a part of a split."""
    return f"part-{number:05d}.parquet"


def write_part(groups: Iterable[pa.Table], path: Path, schema: pa.Schema) -> dict[str, Any]:
    """Writes one part, a row group from each table; returns its description."""
    sizes = []
    with replacing(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for table in groups:
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            sizes.append(_sizes(table))
    return _description(path, sizes)


def describe_part(path: Path) -> dict[str, Any]:
    """The description of a part that is already written."""
    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        sizes = [_sizes(file.read_row_group(group, columns=["context_ids", "response_ids"])) for group in groups]
    return _description(path, sizes)


def _description(path: Path, sizes: list[list[int]]) -> dict[str, Any]:
    """As in the manifest; `row_groups` is a list of [pairs, context tokens, response tokens]."""
    return {"file": path.name, **describe_file(path), "row_groups": sizes}


def describe_file(path: Path) -> dict[str, Any]:
    """Checksum and size of a file, as in the manifest."""
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def _sizes(group: pa.Table) -> list[int]:
    tokens = [pc.sum(pc.list_value_length(group[name])).as_py() for name in ("context_ids", "response_ids")]
    return [group.num_rows, *tokens]


def _batches(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch
