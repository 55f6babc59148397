"""Rows of different lengths in one flat array, so that a window of a corpus is handled without Python loops.

Shapes: `values` (total,), `offsets` (rows + 1,); row i is `values[offsets[i]:offsets[i + 1]]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Ragged:
    """A list of rows of integers."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Cuts the flat values into rows of these lengths."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        values = np.array([value for row in rows for value in row], dtype=np.int32)
        return cls.from_lengths(values, np.array([len(row) for row in rows], dtype=np.int64))

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> Ragged:
        values = pc.list_flatten(column).to_numpy().astype(np.int32)
        return cls.from_lengths(values, pc.list_value_length(column).to_numpy())

    @classmethod
    def concatenate(cls, pieces: Sequence[Ragged]) -> Ragged:
        """The rows of all pieces, one piece after the other."""
        lengths = np.concatenate([piece.lengths for piece in pieces])
        return cls.from_lengths(np.concatenate([piece.values for piece in pieces]), lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:  # (rows,)
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:  # (length of the row,)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def take(self, rows: np.ndarray) -> Ragged:
        """The rows at these indices, in this order."""
        lengths = self.lengths[rows]
        return Ragged.from_lengths(self.values[_positions(self.offsets[rows], lengths)], lengths)

    def pad(self, rows: np.ndarray, value: int, multiple: int = 1) -> np.ndarray:
        """The rows at these indices as one matrix, filled up on the right; its width is at least 1."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        columns = np.arange(-(-max(1, lengths.max(initial=0)) // multiple) * multiple)
        inside = columns < lengths[:, None]
        # Outside a row any readable position will do, for it is overwritten.
        positions = np.where(inside, starts[:, None] + columns, 0)
        if not len(self.values):
            return np.full(inside.shape, value, dtype=np.int64)
        return np.where(inside, self.values[positions], value).astype(np.int64)


def join(*pieces: Ragged) -> Ragged:
    """Puts rows of several ragged arrays after each other, row by row."""
    lengths = np.sum([piece.lengths for piece in pieces], axis=0)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = np.empty(starts[-1], dtype=np.int32)
    ends = starts[:-1].copy()
    for piece in pieces:
        values[_positions(ends, piece.lengths)] = piece.values[_positions(piece.offsets[:-1], piece.lengths)]
        ends += piece.lengths
    return Ragged(values, starts)


def _positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ... for each row, all in one array."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
