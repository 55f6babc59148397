"""The batch contracts: reply pairs for training, validation and generation; conversations; evidence for profiles.

Shapes: b rows, s input positions, t label positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from datamodules.shards.ragged import Ragged

PADDING = 0
"""Id of the padding token."""
IGNORED = -100
"""Label of padding; prompt and context are never in the labels at all."""

LENGTH_MULTIPLE = 4
"""Lengths are padded to a multiple of this. Matrix kernels are built for each new shape: on a CPU with 16-bit
matrix products a third of a training step went into building them, before lengths and rows were rounded."""


class Seq2SeqBatch(NamedTuple):
    """Reply pairs as padded tensors.

    `user_index` counts within the DataModule's `users` (-1: nobody in particular), and rows of one user stand
    together, or in groups of `rows_per_user` where a prediction fills its batches; `pair_id` is -1 for a row that
    only fills up its user's share and has no labels. Whose rows these are stays on the host when a batch goes to a
    device: to ask would be to wait for it.
    """

    input_ids: Tensor  # (b, s) int64
    attention_mask: Tensor  # (b, s) int64
    labels: Tensor  # (b, t) int64, IGNORED on padding
    user_index: Tensor  # (b,) int64
    pair_id: Tensor  # (b,) int64

    def to(self, device: torch.device) -> Seq2SeqBatch:
        """The batch with what a model reads on a device; Lightning moves it by this."""
        read = (to_device(tensor, device) for tensor in self[:3])
        return Seq2SeqBatch(*read, self.user_index, self.pair_id)


class ConversationBatch(NamedTuple):
    """Conversations of two users that have begun, a row a conversation."""

    number: list[int]
    people: list[tuple[str, str]]  # the first of the two says the next turn
    turns: list[list[tuple[int, list[int]]]]  # so far, oldest first: which of the two, and token ids


class Facts(NamedTuple):
    """What is true of one predicate: one row a fact."""

    arguments: Tensor  # (facts, arguments) int64; the first counts within the batch, the others in their domains
    degrees: Tensor  # (facts,) float32; 1 for plain truth


class EvidenceBatch(NamedTuple):
    """What is given about some users (or parts of their histories), and what is known of their attributes."""

    facts: Mapping[str, Facts]  # predicate →
    labels: Tensor  # (users, attributes) int64, -1 where it is not known
    weights: Tensor  # (users,) float32, how much each counts in learning
    learner: Tensor  # (users,) int64, which of the networks learnt side by side has not seen them
    index: Tensor  # (users,) int64, within the DataModule's list of them


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor, which is on the host, on a device; without waiting for what the device is doing."""
    return tensor.to(device, non_blocking=True)


def collate(
    inputs: Ragged, targets: Ragged, rows: np.ndarray, user_index: np.ndarray, pair_id: np.ndarray
) -> Seq2SeqBatch:
    """Pads these rows of `inputs`, `targets` and `pair_id` to the longest, rounded up to `LENGTH_MULTIPLE`.

    A row -1 becomes an empty one without labels. `user_index` is that of the batch, empty rows included.
    """
    empty = rows < 0
    rows = np.where(empty, rows.max(), rows)
    input_ids = inputs.pad(rows, PADDING, LENGTH_MULTIPLE)
    lengths = np.where(empty, 1, inputs.lengths[rows])  # one visible position, so that attention stays finite
    attention_mask = (np.arange(input_ids.shape[1]) < lengths[:, None]).astype(np.int64)
    labels = targets.pad(rows, IGNORED, LENGTH_MULTIPLE)
    labels[empty] = IGNORED
    return Seq2SeqBatch(
        torch.from_numpy(input_ids),
        torch.from_numpy(attention_mask),
        torch.from_numpy(labels),
        torch.from_numpy(user_index),
        torch.from_numpy(np.where(empty, -1, pair_id[rows])),
    )


@dataclass
class WholePass(IterableDataset):
    """The same batches in every pass: validation and test."""

    batches: Callable[[], Iterator[Seq2SeqBatch]]  # begins a pass
    num_batches: int

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Seq2SeqBatch]:
        return self.batches()
