"""Pairs of batches and of prepared corpora, as tests of streams compare them."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from artefacts.manifest import read_manifest, write_manifest
from datamodules.batches import IGNORED, Seq2SeqBatch
from datamodules.preparation.settings import Preparation
from datamodules.preparation.shards import describe_part

TRAIN = "pretrain/train"


def describe_again(directory: Path) -> None:
    """Makes the manifest that of the shards and users that a test has written into a prepared corpus."""
    manifest = read_manifest(directory)
    users: set[str] = set()
    for split, parts in manifest["splits"].items():
        parts[:] = [describe_part(directory / split / part["file"]) for part in parts]
        if split.startswith("users/"):
            users |= set(pq.read_table(directory / split)["speaker"].to_pylist())
    write_manifest(directory, {**manifest, "target_users": sorted(users)})


Ids = list[int]


def ids_of(batches: Iterable[Seq2SeqBatch]) -> list[Ids]:
    return [batch.pair_id.tolist() for batch in batches]


def flat(batches: list[Ids]) -> Ids:
    return [id for batch in batches for id in batch]


def all_ids(preparation: Preparation, split: str = TRAIN) -> Ids:
    return sorted(pq.read_table(preparation.output / split)["pair_id"].to_pylist())


def tokens(batch: Seq2SeqBatch) -> int:
    return int(batch.attention_mask.sum() + (batch.labels != IGNORED).sum())
