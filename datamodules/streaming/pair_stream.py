"""The order of reply pairs and how it is cut into batches: shuffled, of about equal cost, each position computed.

The order is a stateless permutation in two levels: each epoch permutes windows of row groups (what is in a
window was drawn when the shards were shuffled) and the rows of each window. How many batches a window gives
follows from the number of its rows alone, so the length of an epoch, which is that of every epoch, and any
position in it are computed without reading. Within a window rows of similar lengths share a batch; batches
are cut at equal shares of the window's tokens.

An epoch may change hands: some batches are made for one number of processes, the others for another. What was
handed out stays handed out; what is left of that window is cut anew, and so are the windows after it. To find
what is left, the window in which the change fell is read, and no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from datamodules.batches import Seq2SeqBatch, collate
from datamodules.prompts.rendering import Prompts, Rendered, concatenate
from datamodules.shards.reader import ShardReader

GROUPS_PER_WINDOW = 8
ROW_MULTIPLE = 8
"""Batches have a multiple of this many rows where they are large; see `batches.LENGTH_MULTIPLE`."""


class Cut(NamedTuple):
    """Batches that were handed out, and what they were made for."""

    world_size: int  # processes
    tokens_per_batch: int
    batches: int  # of each process


class Remainder(NamedTuple):
    """What some cuts have left of an epoch."""

    window: int  # the first of the epoch's windows that is not done
    rows: np.ndarray | None = None  # those of it that remain; None: all
    share: float = 1.0  # of its tokens that remains


@dataclass
class Source:
    """One split of a prepared corpus."""

    reader: ShardReader
    prompts: Prompts
    max_context_tokens: int
    passes: int = 1  # how often each pair comes in an epoch
    is_shuffled: bool = True  # whether the pairs in each row group were drawn from all

    def render(self, groups: Sequence[int]) -> Rendered:
        return self.prompts.render(self.reader.read(groups), self.max_context_tokens)

    @cached_property
    def tokens_per_pair(self) -> np.ndarray:  # (2,): all of them, those of labels
        """Mean of the first row group where pairs are shuffled, otherwise of as many as are in a window, from the first
        to the last: the row groups of target users stand in the order of users."""
        num_groups = len(self.reader.groups)
        size = 1 if self.is_shuffled else min(num_groups, GROUPS_PER_WINDOW)
        sample = self.render(np.unique(np.linspace(0, num_groups - 1, size).round().astype(int)).tolist())
        return np.array([sample.costs.mean(), sample.targets.lengths.mean()])


@dataclass
class PairStream:
    """The batches of one process; all `world_size` processes get equally many batches and no pair twice."""

    sources: Sequence[Source]  # what is mixed; each window holds of every source what is due to it
    tokens_per_batch: int  # about; neither padding nor profile counts
    shuffle: bool  # another order each epoch; otherwise the order of the shards and of lengths
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    @cached_property
    def _row_groups(self) -> np.ndarray:  # (row groups in an epoch, 3): source, row group, number of its pairs
        """All row groups of an epoch, each as often as it comes, the sources spread evenly over each other."""
        row_groups, shares = [np.zeros((0, 3), dtype=np.int64)], [np.zeros(0)]
        for number, source in enumerate(self.sources):
            sizes = np.tile(np.array(source.reader.group_sizes, dtype=np.int64), source.passes)
            groups = np.tile(np.arange(len(source.reader.group_sizes)), source.passes)
            row_groups.append(np.stack([np.full(len(groups), number), groups, sizes], axis=1))
            shares.append((np.arange(len(groups)) + 0.5) / max(1, len(groups)))
        return np.concatenate(row_groups)[np.argsort(np.concatenate(shares), kind="stable")]

    @cached_property
    def label_tokens_per_batch(self) -> float:
        all_tokens, label_tokens = sum(s.passes * sum(s.reader.group_sizes) * s.tokens_per_pair for s in self.sources)
        return self.tokens_per_batch * float(label_tokens / all_tokens)

    def windows(self, epoch: int) -> list[np.ndarray]:
        """Row groups of each window of this epoch. Windows are about equal: a short last group is never alone."""
        indices = np.arange(len(self._row_groups))
        num_windows = math.ceil(len(indices) / GROUPS_PER_WINDOW)
        windows = np.array_split(indices, num_windows) if num_windows else []
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(num_windows)
            windows = [windows[index] for index in order]
        return windows

    def num_pairs(self, window: np.ndarray) -> int:
        return int(self._row_groups[window, 2].sum())

    def num_batches(self, window: np.ndarray, remainder: Remainder | None = None) -> int:
        """Batches of a window, or of what is left of it, for each process."""
        sources, _, sizes = self._row_groups[window].T
        num_pairs = self.num_pairs(window)
        if num_pairs < self.world_size:
            raise ValueError(f"{num_pairs} reply pairs cannot be shared by {self.world_size} processes; use fewer")
        cost = sum(float(self.sources[s].tokens_per_pair[0]) * n for s, n in zip(sources, sizes.tolist(), strict=True))
        num_rows, share = num_pairs, 1.0
        if remainder is not None and remainder.rows is not None:
            num_rows, share = len(remainder.rows), remainder.share
        wanted = math.ceil(share * cost / (self.tokens_per_batch * self.world_size))
        return max(1, min(wanted, num_rows // self.world_size))

    def remainder(self, epoch: int, before: Sequence[Cut] = ()) -> Remainder:
        """What these cuts, one after the other, have left of an epoch."""
        windows = self.windows(epoch)
        remainder = Remainder(0)
        for turn, done in enumerate(before):
            stream = replace(self, world_size=done.world_size, tokens_per_batch=done.tokens_per_batch)
            batches = done.batches
            while remainder.window < len(windows):
                count = stream.num_batches(windows[remainder.window], remainder)
                if batches < count:
                    break
                batches, remainder = batches - count, Remainder(remainder.window + 1)
            if batches:
                window = self.render(windows[remainder.window])
                cut = stream.cut(window, count, [self.seed, epoch, remainder.window, turn], remainder.rows)
                rows = np.sort(np.concatenate(cut[batches * done.world_size :]))
                remainder = Remainder(remainder.window, rows, float(window.costs[rows].sum() / window.costs.sum()))
        return remainder

    def num_batches_in_epoch(self, epoch: int, before: Sequence[Cut] = ()) -> int:
        """Batches for each process of what is left of an epoch. A whole one has equally many every time."""
        remainder = self.remainder(epoch, before)
        windows = self.windows(epoch)[remainder.window :]
        return sum(self.num_batches(window, None if index else remainder) for index, window in enumerate(windows))

    def batches(self, epoch: int, start: int = 0, before: Sequence[Cut] = ()) -> Iterator[Seq2SeqBatch]:
        """Yields this process's batches of what is left of an epoch, from number `start` on."""
        remainder = self.remainder(epoch, before)
        for number, indices in enumerate(self.windows(epoch)[remainder.window :], start=remainder.window):
            is_cut = number == remainder.window
            count = self.num_batches(indices, remainder if is_cut else None)
            if start >= count:
                start -= count
                continue
            window = self.render(indices)
            seed = [self.seed, epoch, number, len(before)]
            of_all = self.cut(window, count, seed, remainder.rows if is_cut else None)
            for rows in of_all[start * self.world_size + self.rank :: self.world_size]:
                rows = rows if len(rows) else np.array([-1])  # every process has to take part in every step
                yield collate(window.inputs, window.targets, rows, np.full(len(rows), -1), window.pair_id)
            start = 0

    def render(self, window: np.ndarray) -> Rendered:
        row_groups = self._row_groups[window]
        groups = [row_groups[row_groups[:, 0] == number, 1].tolist() for number in range(len(self.sources))]
        return concatenate([source.render(some) for source, some in zip(self.sources, groups, strict=True) if some])

    def cut(
        self, window: Rendered, num_batches: int, seed: list[int], rows: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Cuts a window, or these rows of it, into so many batches for each process, of about equal cost.

        Rows are sorted into strips by input length and within a strip by label length, so that both kinds of
        padding stay small; ties fall as the permutation says. Batches are empty only where rows are fewer.
        Process r has every `world_size`-th of the `num_batches * world_size` batches from number r on.
        """
        num_batches *= self.world_size
        random = np.random.default_rng(seed)
        rows = np.arange(len(window.pair_id)) if rows is None else rows
        if self.shuffle:
            rows = random.permutation(rows)
        num_rows, num_full = len(rows), min(num_batches, len(rows))
        sources, labels = window.context_lengths, window.targets.lengths
        rows = rows[np.argsort(sources[rows], kind="stable")]
        num_strips = max(1, round(math.sqrt(num_full)))
        strip = np.arange(num_rows) * num_strips // max(1, num_rows)
        # Every other strip runs backwards, so that a batch across a border still has rows of like length.
        rows = rows[np.lexsort((labels[rows] * np.where(strip % 2, -1, 1), strip))]
        cost = np.cumsum(window.costs[rows])
        borders = np.searchsorted(cost, cost[-1] * np.arange(1, num_full) / num_full)
        if num_rows >= 2 * ROW_MULTIPLE * num_full:
            borders = np.round(borders / ROW_MULTIPLE).astype(int) * ROW_MULTIPLE
        # No batch is empty, also where a single pair costs more than a batch should.
        number = np.arange(1, num_full)
        borders = np.clip(np.maximum.accumulate(borders - number) + number, number, num_rows - num_full + number)
        batches = np.split(rows, borders)
        if self.shuffle:
            batches = [batches[index] for index in random.permutation(num_full)]
        return batches + [rows[:0]] * (num_batches - num_full)
