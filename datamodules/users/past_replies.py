"""What a user has replied to contexts like this one, looked up in their training dialogues. No torch.

In: the target users' training turns, and contexts. Out: the replies to the most similar ones, as texts for those who
show them, or as the part of a prompt that stands in front of the context.

Only training turns are ever found, and none of the dialogue at hand: a row of training would find itself, and the
reply that is to be learnt would stand in its own prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from datamodules.prompts.rendering import Prompts
from datamodules.shards.ragged import Ragged
from datamodules.users.similar_contexts import SimilarContexts, as_text

if TYPE_CHECKING:
    from datamodules.users.user_rows import UserSplit

Turns = list[tuple[str, str]]

USERS_SEARCHED = 64
"""People whose index is in memory at the same time."""
FOUND_IN_MEMORY = 512
"""People and splits for whom it is in memory what was found."""


@dataclass(frozen=True)
class Retrieved:
    """The user's own past replies in the prompt (retrieval + LoRA; all of it is ours, not stated in the paper).

    Args:
        num_replies: replies to the most similar contexts of the user's training dialogues.
        max_tokens: most ids of all of them together, markers included; the context has its own limit.
    """

    num_replies: int = 2
    max_tokens: int = 64

    def __post_init__(self) -> None:
        if self.num_replies < 1:
            raise ValueError(
                f"data.retrieved.num_replies must be 1 or more, got {self.num_replies}; for none leave it out"
            )
        if self.max_tokens < 2:
            raise ValueError(
                f"data.retrieved.max_tokens must be 2 or more, a marker and something behind it, got {self.max_tokens}"
            )


@dataclass(frozen=True)
class UserTurns:
    """One user's rows of a split, oldest first, as texts, with what a search needs to know of them."""

    turns: list[tuple[Turns, str]]  # context as `Prompts.turns` gives it, and reply
    reply_ids: Ragged  # (rows, ids), without end tokens
    dialogues: np.ndarray  # (rows,) object, names

    @cached_property
    def contexts(self) -> list[str]:
        """Contexts as they are compared."""
        return [as_text(context) for context, _ in self.turns]


class PastReplies:
    """The target users' training turns, to be searched by context.

    Args:
        train: where they are.
        prompts: turns ids into texts.
        max_context_tokens: ids of context that are compared, from the end: what the other systems see of it.
    """

    def __init__(self, train: UserSplit, prompts: Prompts, max_context_tokens: int) -> None:
        self.train = train
        self.prompts = prompts
        self.max_context_tokens = max_context_tokens
        self.index_of = lru_cache(USERS_SEARCHED)(self._index_of)
        self.found_for = lru_cache(FOUND_IN_MEMORY)(self._found_for)

    def _index_of(self, user: str) -> tuple[UserTurns, SimilarContexts]:
        past = self.train.turns_of(user, self.prompts, self.max_context_tokens)
        return past, SimilarContexts(past.contexts)

    def similar(self, user: str, context: Turns, k: int) -> list[tuple[Turns, str]]:
        """The user's training turns with the `k` most similar contexts, the most similar first."""
        past, index = self.index_of(user)
        return [past.turns[place] for place in index.most_similar([as_text(context)], k)[0]]

    def _found_for(self, split: UserSplit, user: str, retrieved: Retrieved) -> Ragged:
        """What stands in front of each of the user's rows of a split, in their order."""
        past, index = self.index_of(user)
        if split is self.train:
            found = index.most_similar(None, retrieved.num_replies, past.dialogues, past.dialogues)
        else:
            asked = split.turns_of(user, self.prompts, self.max_context_tokens)
            found = index.most_similar(asked.contexts, retrieved.num_replies, asked.dialogues, past.dialogues)
        replies = [[past.reply_ids.row(place) for place in reversed(places)] for places in found]
        return self.prompts.replies(replies, retrieved.max_tokens)


@dataclass(frozen=True)
class RepliesInFront:
    """Puts replies in front of the rows of a split.

    Args:
        past: where they come from.
        retrieved: how many, and how long.
    """

    past: PastReplies
    retrieved: Retrieved

    def of_rows(self, split: UserSplit, rows: Mapping[str, np.ndarray], num_rows: int) -> Ragged:
        """A row for each of `num_rows` pairs; empty where it belongs to none of these users."""
        found = [self.past.found_for(split, user, self.retrieved) for user in rows]
        together = _stacked([*found, Ragged.from_lists([[]])])
        place = np.full(num_rows, len(together) - 1)
        place[np.concatenate(list(rows.values()))] = np.arange(len(together) - 1)
        return together.take(place)


def _stacked(parts: Sequence[Ragged]) -> Ragged:
    """The rows of one below those of the other."""
    return Ragged.from_lengths(
        np.concatenate([part.values for part in parts]), np.concatenate([part.lengths for part in parts])
    )
