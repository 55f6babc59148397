"""Ragged rows against plain Python lists."""

import random

import numpy as np
import pyarrow as pa
import pytest

from datamodules.shards.ragged import Ragged, join

ROWS = [[7, 8, 9], [], [10], [11, 12]]


def lists(ragged):
    return [ragged.values[start:end].tolist() for start, end in zip(ragged.offsets, ragged.offsets[1:], strict=False)]


def random_rows(rng, num):
    return [[rng.randrange(100) for _ in range(rng.choice([0, 0, 1, 3, 7]))] for _ in range(num)]


@pytest.mark.parametrize("rows", [ROWS, [[]], [], [[], []], [[1]]])
def test_rows_go_in_and_come_out(rows):
    ragged = Ragged.from_lists(rows)
    assert lists(ragged) == rows
    assert len(ragged) == len(rows)
    assert ragged.lengths.tolist() == [len(row) for row in rows]


def test_pad_by_hand():
    ragged = Ragged.from_lists(ROWS)
    assert ragged.pad(np.array([3, 0, 1]), -1).tolist() == [[11, 12, -1], [7, 8, 9], [-1, -1, -1]]
    assert ragged.pad(np.array([2, 3]), 0, multiple=4).tolist() == [[10, 0, 0, 0], [11, 12, 0, 0]]
    assert ragged.pad(np.array([1]), 0).tolist() == [[0]]  # at least one column
    assert Ragged.from_lists([[], []]).pad(np.array([0, 1]), 5, multiple=4).tolist() == [[5] * 4] * 2
    assert ragged.pad(np.array([0]), 0).dtype == np.int64


def test_random_rows_against_lists():
    rng = random.Random(0)
    for _ in range(50):
        first, second, third = (random_rows(rng, 9) for _ in range(3))
        joined = join(*map(Ragged.from_lists, (first, second, third)))
        assert lists(joined) == [a + b + c for a, b, c in zip(first, second, third, strict=True)]
        rows = [rng.randrange(9) for _ in range(rng.randrange(12))]
        assert lists(joined.take(np.array(rows, dtype=int)).take(np.arange(len(rows)))) == [
            first[row] + second[row] + third[row] for row in rows
        ]


@pytest.mark.parametrize("type", [pa.uint8(), pa.uint16(), pa.uint32()])
def test_from_arrow(type):
    column = pa.chunked_array([ROWS[:2], [], ROWS[2:]], type=pa.list_(type))
    assert lists(Ragged.from_arrow(column)) == ROWS
    assert lists(Ragged.from_arrow(column.slice(1, 2))) == ROWS[1:3]  # a slice shares the values of the whole
    assert lists(Ragged.from_arrow(column.slice(0, 0))) == []
    assert Ragged.from_arrow(column).values.dtype == np.int32


def test_ids_of_two_bytes_do_not_overflow():
    column = pa.chunked_array([[[65_535, 65_534]]], type=pa.list_(pa.uint16()))
    assert Ragged.from_arrow(column).values.tolist() == [65_535, 65_534]
