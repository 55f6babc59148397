"""The batch contract, by hand."""

import numpy as np
import torch

from datamodules.batches import IGNORED, WholePass, collate
from datamodules.shards.ragged import Ragged

INPUTS = Ragged.from_lists([[3, 7, 1], [4, 8, 9, 10, 1], [3, 1]])
TARGETS = Ragged.from_lists([[11, 1], [12, 13, 14, 11, 1], [1]])
IDS = np.array([100, 200, 2**62])


def test_a_batch_by_hand():
    batch = collate(INPUTS, TARGETS, np.array([2, 0]), np.array([5, 6]), IDS)
    assert batch.input_ids.tolist() == [[3, 1, 0, 0], [3, 7, 1, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert batch.labels.tolist() == [[1, IGNORED, IGNORED, IGNORED], [11, 1, IGNORED, IGNORED]]
    assert batch.user_index.tolist() == [5, 6]
    assert batch.pair_id.tolist() == [2**62, 100]
    assert {tensor.dtype for tensor in batch} == {torch.int64}


def test_lengths_are_rounded_up_to_four():
    batch = collate(INPUTS, TARGETS, np.array([1]), np.array([0]), IDS)
    assert batch.input_ids.tolist() == [[4, 8, 9, 10, 1, 0, 0, 0]]
    assert batch.labels.tolist() == [[12, 13, 14, 11, 1, IGNORED, IGNORED, IGNORED]]


def test_a_row_that_only_fills_up_has_no_labels_and_one_visible_position():
    batch = collate(INPUTS, TARGETS, np.array([0, -1, -1]), np.array([1, 1, 1]), IDS)
    assert batch.pair_id.tolist() == [100, -1, -1]
    assert batch.attention_mask.sum(1).tolist() == [3, 1, 1]
    assert (batch.labels[1:] == IGNORED).all()
    assert batch.labels[0].tolist() == [11, 1, IGNORED, IGNORED]
    assert batch.user_index.tolist() == [1, 1, 1]


def test_a_whole_pass_begins_anew_each_time():
    batch = collate(INPUTS, TARGETS, np.array([0]), np.array([0]), IDS)
    whole = WholePass(lambda: iter([batch, batch]), 2)
    first = iter(whole)
    next(first)
    assert len(whole) == len(list(whole)) == len(list(whole)) == 2
