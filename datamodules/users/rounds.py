"""A round: one epoch of each of some users, in batches of several users.

Which users share a batch is decided after each user's own batches are formed, by the shape of the next ones, so that
there is little padding; no user's batches depend on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np
from torch.utils.data import IterableDataset

from datamodules.batches import Seq2SeqBatch, collate
from datamodules.prompts.rendering import Prompts
from datamodules.users.general_pairs import evenly
from datamodules.users.user_rows import RowPrefixes, UserRows, UserSplit

USERS_IN_MEMORY = 256

Step = list[tuple[str, np.ndarray]]
"""Users of a batch, each with their rows."""


@dataclass(frozen=True)
class RoundPlan:
    """One epoch of each of some users, in batches of several users.

    With `rows_at_once`, batches are full instead, of about so many rows: a user's rows may come several times in a
    batch, each time `rows_per_user` of them.
    """

    split: UserSplit
    prompts: Prompts
    max_context_tokens: int
    prefixes: RowPrefixes | None  # past replies
    users: Sequence[str]  # names that `user_index` counts in
    epochs: Mapping[str, int | None]  # number of the epoch, which decides the order of rows; None: in that of lengths
    rows_per_user: int
    users_per_batch: int
    seed: int
    cuts: Sequence[
        tuple[int, int]
    ] = ()  # batches after which a resumed run has at most this number of users in a batch
    most_turns: int | None = None  # of each user, evenly spaced from the oldest to the newest
    rows_at_once: int | None = None

    @cached_property
    def blocks(self) -> list[list[str]]:
        """Users that are in memory at the same time."""
        members = [user for user in self.epochs if self.split.num_turns[user]]
        return [members[start : start + USERS_IN_MEMORY] for start in range(0, len(members), USERS_IN_MEMORY)]

    @cached_property
    def num_batches(self) -> int:
        return sum(len(steps) for _, steps in self._steps_of_blocks())

    @cached_property
    def label_tokens_per_batch(self) -> float:
        """Mean over the whole round."""
        return sum(self.split.num_tokens[user] for user in self.epochs) / self.num_batches

    def batches(self) -> Iterator[Seq2SeqBatch]:
        index = {user: number for number, user in enumerate(self.users)}
        for loaded, steps in self._steps_of_blocks():
            rendered = loaded.rendered
            for group in steps:
                rows = np.concatenate([rows for _, rows in group])
                people = np.repeat([index[user] for user, _ in group], self.rows_per_user)
                yield collate(rendered.inputs, rendered.targets, rows, people, rendered.pair_id)

    def _steps_of_blocks(self) -> Iterator[tuple[UserRows, list[Step]]]:
        """Each block with its steps; steps that come after a cut are divided, and those before it stay as they were."""
        start = 0
        for block in self.blocks:
            loaded = self._load(block)
            steps = self._steps(loaded)
            for done, size in self.cuts:
                before = max(0, done - start)
                steps = steps[:before] + [piece for step in steps[before:] for piece in _divided(step, size)]
            start += len(steps)
            yield loaded, steps

    def _load(self, block: Sequence[str]) -> UserRows:
        loaded = self.split.load(block, self.prompts, self.max_context_tokens, self.prefixes)
        if self.most_turns is None:
            return loaded
        rows = {user: rows[evenly(len(rows), self.most_turns)] for user, rows in loaded.rows.items()}
        return replace(loaded, rows=rows)

    def _steps(self, loaded: UserRows) -> list[Step]:
        """Puts users' batches of the same cell together, each user's in their own order, no user twice in a step."""
        cells: dict[int, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
        for user in loaded.rows:
            epoch = self.epochs[user]
            seed = None if epoch is None else [self.seed, epoch]
            for cell, rows in loaded.batches_of(user, self.rows_per_user, seed):
                cells[cell][user].append(rows)
        if self.rows_at_once:
            return self._full(
                [(u, rows) for _, own in sorted(cells.items()) for u, some in own.items() for rows in some]
            )
        lengths = loaded.rendered.targets.lengths
        steps = []
        for _, members in sorted(cells.items()):
            for tick in range(max(len(batches) for batches in members.values())):
                ready = [(user, batches[tick]) for user, batches in members.items() if tick < len(batches)]
                ready.sort(key=lambda item: lengths[item[1][item[1] >= 0]].max())
                steps += _divided(ready, self.users_per_batch)
        if self.users_per_batch == 1:  # a module that changes weights between users has to do so once for each
            steps.sort(key=lambda step: step[0][0])
        return steps

    def _full(self, groups: Step) -> list[Step]:
        """Groups of rows in full batches, in their order; of one user each where batches are of one user."""
        together = [groups]
        if self.users_per_batch == 1:
            groups = sorted(groups, key=lambda group: group[0])
            together = [list(own) for _, own in groupby(groups, key=lambda group: group[0])]
        size = max(1, self.rows_at_once // self.rows_per_user)
        return [step for some in together for step in _divided(some, size)]


def _divided(step: Step, size: int) -> list[Step]:
    return [step[start : start + size] for start in range(0, len(step), size)]


@dataclass
class Round(IterableDataset):
    """Hands a plan's batches to Lightning and remembers how many it has handed out."""

    plan: RoundPlan
    handed_out: int = 0

    def __len__(self) -> int:
        return self.plan.num_batches  # the whole round, also after a resume

    def __iter__(self) -> Iterator[Seq2SeqBatch]:
        if self.handed_out >= len(self):  # no `next_round` since the last pass: the same users, one epoch on
            epochs = {user: epoch + 1 for user, epoch in self.plan.epochs.items()}
            size = self.plan.cuts[-1][1] if self.plan.cuts else self.plan.users_per_batch
            self.plan, self.handed_out = replace(self.plan, epochs=epochs, users_per_batch=size, cuts=()), 0
        for number, batch in enumerate(self.plan.batches()):
            if number >= self.handed_out:
                self.handed_out += 1
                yield batch
