"""Pairs of batches and of prepared corpora, as tests of streams compare them."""

from collections.abc import Iterable

import pyarrow.parquet as pq

from datamodules.batches import IGNORED, Seq2SeqBatch
from datamodules.preparation.settings import Preparation

TRAIN = "pretrain/train"
Ids = list[int]


def ids_of(batches: Iterable[Seq2SeqBatch]) -> list[Ids]:
    return [batch.pair_id.tolist() for batch in batches]


def flat(batches: list[Ids]) -> Ids:
    return [id for batch in batches for id in batch]


def all_ids(preparation: Preparation, split: str = TRAIN) -> Ids:
    return sorted(pq.read_table(preparation.output / split)["pair_id"].to_pylist())


def tokens(batch: Seq2SeqBatch) -> int:
    return int(batch.attention_mask.sum() + (batch.labels != IGNORED).sum())
