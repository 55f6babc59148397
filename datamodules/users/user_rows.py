"""The rows of one split of the target users, and each user's batches: from their rows alone, by seed and epoch."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artefacts.layout import MANIFEST
from datamodules.preparation.splits import stable_hash
from datamodules.prompts.rendering import Prompts, Rendered, Turns
from datamodules.shards.ragged import Ragged
from datamodules.shards.reader import ShardReader
from datamodules.users.history import History, TrainingRows, taken

LENGTH_RATIO = 1.3
"""Target lengths in neighbouring bins differ by this factor."""
MAX_BINS = 64
MAX_SHARE_CUT = 0.2
CYCLES = 4

RowPrefixes = Callable[["UserSplit", Mapping[str, np.ndarray], int], Ragged]
"""(a split, user → their rows, number of rows) → what the prompt of each row has between profile and context; empty for
a row of another user."""


@dataclass(frozen=True)
class UserTurns:
    """One user's rows of a split, oldest first, as texts."""

    turns: list[tuple[Turns, str]]  # context as `Prompts.turns` gives it, and reply
    reply_ids: Ragged  # (rows, ids), without end tokens
    dialogues: np.ndarray  # (rows,) object, names


class UserSplit:
    """One split of the target users, such as `users/train`: where their rows are, and the rows of some of them.

    With a `history`, each user has other rows than those that are there.
    """

    def __init__(self, directory: Path, split: str, history: History | None = None) -> None:
        self.reader = ShardReader(directory, split)
        self.num_turns: Counter[str] = Counter()
        self.num_rows: Counter[str] = Counter()  # whatever the history
        self.num_tokens: Counter[str] = Counter()  # label tokens, with the end token of each response
        self.groups_of: dict[str, set[int]] = defaultdict(set)
        self.lengths: dict[str, np.ndarray] = {}  # of each reply, without its end token; with a history only
        self.chosen: dict[str, TrainingRows] = {}
        for number in range(len(self.reader.groups)):
            table = self.reader.table(number, ["speaker", "response_ids"])
            lengths = pc.add(pc.list_value_length(table["response_ids"]), 1)
            counted = pa.table({"user": table["speaker"], "length": lengths}).group_by("user")
            for entry in counted.aggregate([("length", "count"), ("length", "sum")]).to_pylist():
                self.num_turns[entry["user"]] += entry["length_count"]
                self.num_rows[entry["user"]] += entry["length_count"]
                self.num_tokens[entry["user"]] += entry["length_sum"]
                self.groups_of[entry["user"]].add(number)
        if strangers := sorted(self.num_turns.keys() - self.reader.target_users):
            raise ValueError(
                f"{directory / split} has turns of {strangers[0]!r}, who is not among the target_users of "
                f"{directory / MANIFEST}: one of them was edited; delete {directory} and prepare it again"
            )
        if history is not None:
            self._choose(history)

    def report_of_cut_contexts(self, users: Sequence[str], max_context_tokens: int) -> str | None:
        """A warning if the ids kept of a context are often fewer than the turn that is answered has."""
        cut: Counter[str] = Counter()
        for group in sorted(set().union(*(self.groups_of[user] for user in users))):
            table = self.reader.table(group, ["speaker", "context_lengths"])
            lengths = table["context_lengths"].combine_chunks()
            answered = lengths.flatten().to_numpy()[np.cumsum(pc.list_value_length(lengths).to_numpy()) - 1]
            is_cut = pa.array(answered >= max_context_tokens)  # its marker is one id more
            cut.update(table["speaker"].filter(is_cut).to_pylist())
        shares = {user: cut[user] / self.num_rows[user] for user in users}
        if not (
            worst := sorted((user for user in users if shares[user] > MAX_SHARE_CUT), key=lambda user: -shares[user])
        ):
            return None
        named = ", ".join(f"{user!r} {shares[user]:.0%}" for user in worst[:3])
        return (
            f"warning: of {len(worst):,} users, more than {MAX_SHARE_CUT:.0%} of the turns that they answer do not fit "
            f"into max_context_tokens {max_context_tokens} ({named}): raise it, with a backbone that was trained so"
        )

    def _choose(self, history: History) -> None:
        """Takes the rows that the history names, and counts those."""
        pairs = self.reader.read(range(len(self.reader.groups)))
        lengths = pairs.response.lengths
        self.lengths = {user: lengths[pairs.speaker == index] for index, user in enumerate(pairs.speakers)}
        self.chosen = {user: history.rows_of(user, self.lengths) for user in self.lengths}
        for user, rows in self.chosen.items():
            self.num_turns[user] = len(rows.places)
            self.num_tokens[user] = int(rows.lengths.sum()) + len(rows.places)
        own = dict(self.groups_of)
        self.groups_of.update({u: set().union(*(own[a] for a in set(rows.authors))) for u, rows in self.chosen.items()})

    def load(
        self, users: Sequence[str], prompts: Prompts, max_context_tokens: int, prefixes: RowPrefixes | None = None
    ) -> UserRows:
        """Reads the row groups in which these users have rows, and no others."""
        groups = sorted(set().union(*(self.groups_of[user] for user in users)))
        pairs = self.reader.read(groups)
        if self.chosen:
            pairs = taken(pairs, {user: self.chosen[user] for user in users})
        index = {name: number for number, name in enumerate(pairs.speakers)}
        rows = {user: np.flatnonzero(pairs.speaker == index[user]) for user in users}
        past_replies = None if prefixes is None else prefixes(self, rows, len(pairs))
        return UserRows(prompts.render(pairs, max_context_tokens, past_replies), rows)

    def turns_of(self, user: str, prompts: Prompts, max_context_tokens: int) -> UserTurns:
        """One user's rows, in the order of `load`, as texts, without profiles and past replies."""
        loaded = self.load([user], prompts, max_context_tokens)
        rows, rendered = loaded.rows[user], loaded.rendered
        inputs = [rendered.inputs.row(row).tolist() for row in rows]
        replies = [rendered.targets.row(row)[:-1].tolist() for row in rows]
        decode = prompts.tokenizer.decode
        turns = [(prompts.turns(ids), decode(reply)) for ids, reply in zip(inputs, replies, strict=True)]
        tables = [self.reader.table(group, ["pair_id", "dialogue_id"]) for group in self.groups_of[user]]
        dialogue_of = dict(zip(*(column.to_pylist() for column in pa.concat_tables(tables).columns), strict=True))
        dialogues = np.array([dialogue_of[id] for id in rendered.pair_id[rows].tolist()], dtype=object)
        return UserTurns(turns, Ragged.from_lists(replies), dialogues)


@dataclass(frozen=True)
class UserRows:
    """Rendered reply pairs, and which of them belong to whom."""

    rendered: Rendered
    rows: dict[str, np.ndarray]

    def batches_of(self, user: str, size: int, seed: Sequence[int] | None) -> Iterator[tuple[int, np.ndarray]]:
        """Yields one user's rows in batches of `size`, filled up with -1 where the rows end, each with its cell.

        Rows of like length share a batch, because small batches are mostly padding otherwise. Cells say in which
        order the batches come: lengths fall into bins, and an epoch passes through all bins `CYCLES` times. The
        order of the cells is the same for all users of a seed, so that users are at batches of like shape.

        With a `seed` (and epoch), lengths are blurred by up to a fifth, so that the same rows do not always meet;
        without one, batches are in the order of lengths.
        """
        rows = self.rows[user]
        lengths = self.rendered.targets.lengths
        blurred = lengths[rows].astype(float)
        if seed is not None:
            blurred *= np.random.default_rng([*seed, stable_hash(user)]).uniform(0.8, 1.2, len(rows))
        rows = rows[np.argsort(blurred, kind="stable")]
        batches = np.concatenate([rows, np.full(-len(rows) % size, -1)]).reshape(-1, size)
        widths = np.where(batches < 0, 1, lengths[batches]).max(axis=1)
        bins = np.round(np.log(widths) / math.log(LENGTH_RATIO)).astype(int)
        if seed is None:
            yield from zip(bins.tolist(), batches, strict=True)
            return
        order = np.random.default_rng(seed).random((CYCLES, MAX_BINS)).argsort(axis=1).argsort(axis=1)
        by_bin = np.argsort(bins, kind="stable")
        within = np.arange(len(bins)) - np.searchsorted(bins[by_bin], bins[by_bin])  # rank of a batch within its bin
        cycle = (within + bins[by_bin]) % CYCLES
        cells = cycle * MAX_BINS + order[cycle, bins[by_bin]]
        for position in np.argsort(cells, kind="stable"):
            yield int(cells[position]), batches[by_bin[position]]
