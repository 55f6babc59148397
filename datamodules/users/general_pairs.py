"""A sample of general reply pairs: what people say with each other who are no target users and were not trained on.

It depends on the corpus alone, so that every model, whoever it was tuned to, is tested on the same pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datamodules.batches import Seq2SeqBatch, collate
from datamodules.prompts.rendering import Prompts, Rendered
from datamodules.shards.reader import ShardReader

SPLIT = "pretrain/validation"


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of the places 0 ... count - 1, evenly spaced, the first and the last among them."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(int)


@dataclass
class GeneralPairs:
    """Evenly spaced pairs of the first row groups that hold enough; all pairs where there are fewer.

    A profile in their prompts is that of the person who speaks in the pair.

    Raises:
        ValueError: the split is empty.
    """

    reader: ShardReader  # of `SPLIT`
    prompts: Prompts
    max_context_tokens: int
    num_pairs: int
    rows_per_batch: int

    def __post_init__(self) -> None:
        if not sum(self.reader.group_sizes):
            raise ValueError(
                f"{self.reader.directory} has no reply pairs in {SPLIT} for data.test_general_pairs={self.num_pairs}; "
                "set it to 0, or prepare the corpus with a larger splits.pretrain_validation_share"
            )

    @cached_property
    def _rendered(self) -> Rendered:
        enough = 1 + np.searchsorted(np.cumsum(self.reader.group_sizes), self.num_pairs)
        pairs = self.reader.read(range(len(self.reader.groups))[:enough])
        return self.prompts.render(pairs, self.max_context_tokens)

    @property
    def num_batches(self) -> int:
        return -(-min(self.num_pairs, sum(self.reader.group_sizes)) // self.rows_per_batch)

    def batches(self) -> Iterator[Seq2SeqBatch]:
        """Yields the sample, rows of like length together, with `user_index` -1."""
        rendered = self._rendered
        rows = evenly(len(rendered.pair_id), self.num_pairs)
        rows = rows[np.argsort(rendered.costs[rows], kind="stable")]
        for start in range(0, len(rows), self.rows_per_batch):
            some = rows[start : start + self.rows_per_batch]
            yield collate(rendered.inputs, rendered.targets, some, np.full(len(some), -1), rendered.pair_id)
