"""`Openings`: how conversations of two users begin, and what whoever is next in them reads.

They begin with the first turns of a real test dialogue of one of the two; the other takes the partner's place. What a
model reads is made as reply pairs are: the last turns that preparation keeps, then the last ids that training kept, the
profile in front.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from datamodules.batches import ConversationBatch, Seq2SeqBatch, collate
from datamodules.preparation.settings import Preparation
from datamodules.preparation.tokenizer import harmless
from datamodules.prompts.profiles import ProfileControl
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.ragged import Ragged
from datamodules.shards.reader import ShardReader
from datamodules.user_sets import UserSets


class Heard(NamedTuple):
    """A turn of a real dialogue: whether the target user said it, and its ids."""

    is_own: bool
    ids: list[int]


Dialogue = dict[int, Heard]
"""Position → turn, of a dialogue as far as its reply pairs hold it."""


class Openings(UserSets):
    """Pairs of target users, and real beginnings of their conversations.

    What is not said here is as in `UserSets`, and `--help` says it.

    Args:
        num_conversations: None is one round, in which everybody has one conversation (with an odd number of users one
            of them has none); in each further round everybody has another partner, until all have met.
        opening_turns: first turns of a test dialogue that a conversation begins with (not stated in the paper).
        conversations_per_batch: conversations that are held at the same time.
        seed: decides who talks with whom, and which dialogue of theirs begins it; None is the run's
            (`seed_everything`).
    """

    def __init__(
        self,
        preparation: Preparation,
        users: str | list[str] | None = None,
        prompt: PromptTemplate | None = None,
        profiles: Path | None = None,
        control: ProfileControl | None = None,
        num_conversations: int | None = None,
        opening_turns: int = 2,
        conversations_per_batch: int = 64,
        max_context_tokens: int = 64,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            preparation, users, prompt, profiles, control, max_context_tokens=max_context_tokens, min_train_turns=1,
            seed=seed,
        )  # fmt: skip
        for name, value in (
            ("num_conversations", 1 if num_conversations is None else num_conversations),
            ("opening_turns", opening_turns),
            ("conversations_per_batch", conversations_per_batch),
        ):
            if value < 1:
                raise ValueError(f"data.{name} must be 1 or more, got {value}")
        self.num_conversations = num_conversations
        self.opening_turns = opening_turns
        self.conversations_per_batch = conversations_per_batch

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if len(self.users) < 2:
            raise ValueError(
                f"a conversation needs two users, got {self.users}; name at least two with data.users, or leave it out"
            )
        self.dialogues = read_dialogues(self.splits["test"].reader)

    # ---- beginnings

    def conversations(self) -> ConversationBatch:
        """All of them, as they begin."""
        begun: dict[str, int] = defaultdict(int)
        people, turns = [], []
        for pair in pairs_of(self.users, self.num_conversations, self.seed):
            owner = next((user for user in pair if self._beginnings(user)), None)
            if owner is None:
                raise ValueError(
                    f"neither {pair[0]!r} nor {pair[1]!r} has a test dialogue of {self.opening_turns} turns or more; "
                    "lower data.opening_turns"
                )
            beginnings = self._beginnings(owner)
            opening = beginnings[begun[owner] % len(beginnings)]
            begun[owner] += 1
            other = pair[pair[0] == owner]
            owner_is_next = not opening[-1].is_own
            people.append((owner, other) if owner_is_next else (other, owner))
            turns.append([(int(turn.is_own != owner_is_next), turn.ids) for turn in opening])
        return ConversationBatch(list(range(len(people))), people, turns)

    def _beginnings(self, user: str) -> list[list[Heard]]:
        """The first turns of those test dialogues of a user that have as many, in an order of the seed."""
        whole = range(self.opening_turns)
        beginnings = [
            [turns[position] for position in whole]
            for turns in self.dialogues.get(user, [])
            if all(position in turns for position in whole)
        ]
        return random.Random(f"{self.seed} {user}").sample(beginnings, len(beginnings))

    def predict_dataloader(self) -> DataLoader:
        everything, size = self.conversations(), self.conversations_per_batch
        starts = range(0, len(everything.number), size)
        parts = [ConversationBatch(*(field[start : start + size] for field in everything)) for start in starts]
        return DataLoader(parts, batch_size=None)

    # ---- while they talk

    def read(
        self, batch: ConversationBatch, turns: Sequence[Sequence[tuple[int, list[int]]]], now: int
    ) -> Seq2SeqBatch:
        """What those read who are next, of the two number `now`: a row a conversation, no labels.

        `turns` is all that was said in each conversation, oldest first.
        """
        kept = [own[-self.preparation.max_context_turns :] for own in turns]
        prefixes = self.prompts.prefixes(
            (people[now] for people in batch.people), (people[1 - now] for people in batch.people)
        )
        inputs = self.prompts.inputs(
            prefixes,
            Ragged.from_lists([[id for _, ids in own for id in ids] for own in kept]),
            Ragged.from_lists([[len(ids) for _, ids in own] for own in kept]),
            Ragged.from_lists([[int(side != now) for side, _ in own] for own in kept]),
            self.max_context_tokens,
        )
        rows = np.arange(len(kept))
        return collate(inputs, Ragged.from_lists([[] for _ in kept]), rows, np.full(len(kept), -1), rows)

    def said(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        """The text of generated ids, and the ids that preparation gives this text: the context of the next turns."""
        text = harmless(" ".join(self.prompts.tokenizer.decode(list(ids)).split()))
        return text, self.prompts.tokenizer.encode(text, add_special_tokens=False).ids[
            : self.preparation.max_turn_tokens
        ]

    def real_turns(self, user: str, number: int) -> list[tuple[bool, str]]:
        """The first `number` turns of the user's test dialogues: whether the user said it, and the text.

        Each reply follows what it answers, so that the two alternate, and the partner begins.
        """
        pairs = [
            (turns[position - 1], turn)
            for turns in self.dialogues.get(user, [])
            for position, turn in sorted(turns.items())
            if turn.is_own and position - 1 in turns
        ]
        said = [turn for pair in pairs for turn in pair][:number]
        return [(turn.is_own, self.prompts.tokenizer.decode(turn.ids)) for turn in said]


def pairs_of(users: Sequence[str], number: int | None, seed: int) -> list[tuple[str, str]]:
    """Who talks with whom: rounds in which nobody is twice and nobody meets somebody again before all have met.

    The first of a pair is whose dialogue the conversation begins with; the sides change from round to round.
    """
    order: list[str | None] = random.Random(seed).sample(list(users), len(users))
    order += [None] * (len(order) % 2)  # whoever meets nobody has a rest
    half = len(order) // 2
    number = len(users) // 2 if number is None else number
    pairs: list[tuple[str, str]] = []
    swapped = False
    while len(pairs) < number:  # the circle method: the first stays, the others move on by one
        for first, second in zip(order[:half], reversed(order[half:]), strict=True):
            if first is not None and second is not None:
                pairs.append((second, first) if swapped else (first, second))
        order, swapped = [order[0], order[-1], *order[1:-1]], not swapped
    return pairs[:number]


def read_dialogues(reader: ShardReader) -> dict[str, list[Dialogue]]:
    """Each target user's dialogues in a split, in time order, put together from their reply pairs."""
    context = ["context_ids", "context_lengths", "context_speakers"]
    by_user: dict[str, dict[str, Dialogue]] = defaultdict(lambda: defaultdict(dict))
    for group in range(len(reader.groups)):
        table = reader.table(group, ["dialogue_id", "position", "speaker", *context, "response_ids"])
        for row in table.to_pylist():
            turns = by_user[row["speaker"]][row["dialogue_id"]]
            ids = iter(row["context_ids"])
            start = row["position"] - len(row["context_lengths"])
            authors = zip(row["context_lengths"], row["context_speakers"], strict=True)
            for position, (length, author) in enumerate(authors, start=start):
                turns[position] = Heard(author == 0, [next(ids) for _ in range(length)])
            turns[row["position"]] = Heard(True, row["response_ids"])
    return {user: list(dialogues.values()) for user, dialogues in by_user.items()}
