"""A user's replies to similar contexts in their training dialogues, as texts or as a part of a prompt.

Only training turns of other dialogues are retrieved: a row of training would find itself, and its prompt would contain
the reply that is to be learnt. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from datamodules.prompts.rendering import Prompts, Turns
from datamodules.shards.ragged import Ragged
from datamodules.users.similar_contexts import SimilarContexts, as_text
from datamodules.users.user_rows import UserSplit, UserTurns

INDICES_IN_MEMORY = 64
"""Users whose index is in memory at the same time."""
PREFIXES_IN_MEMORY = 512
"""Users and splits whose retrieved replies are in memory at the same time."""


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


class PastReplies:
    """The target users' training turns, to be searched by context: by as much of it as the other systems see."""

    def __init__(
        self, train: UserSplit, prompts: Prompts, max_context_tokens: int, retrieved: Retrieved | None
    ) -> None:
        self.train = train
        self.prompts = prompts
        self.max_context_tokens = max_context_tokens
        self.retrieved = retrieved
        self.index_of = lru_cache(INDICES_IN_MEMORY)(self._index_of)
        self.prefixes_of = lru_cache(PREFIXES_IN_MEMORY)(self._prefixes_of)

    def _index_of(self, user: str) -> tuple[UserTurns, SimilarContexts]:
        past = self.train.turns_of(user, self.prompts, self.max_context_tokens)
        return past, SimilarContexts([as_text(context) for context, _ in past.turns])

    def similar(self, user: str, context: Turns, k: int) -> list[tuple[Turns, str]]:
        """The user's training turns with the `k` most similar contexts, the most similar first."""
        past, index = self.index_of(user)
        return [past.turns[row] for row in index.most_similar([as_text(context)], k)[0]]

    def _prefixes_of(self, split: UserSplit, user: str) -> Ragged:
        """The prompt part of each of the user's rows of a split, in their order."""
        past, index = self.index_of(user)
        asked, contexts = past, None
        if split is not self.train:
            asked = split.turns_of(user, self.prompts, self.max_context_tokens)
            contexts = [as_text(context) for context, _ in asked.turns]
        similar = index.most_similar(contexts, self.retrieved.num_replies, asked.dialogues, past.dialogues)
        replies = [[past.reply_ids.row(row) for row in reversed(rows)] for rows in similar]
        return self.prompts.replies(replies, self.retrieved.max_tokens)

    def prefixes(self, split: UserSplit, rows: Mapping[str, np.ndarray], num_rows: int) -> Ragged:
        """What each row of a split has before its context: a `RowPrefixes`."""
        prefixes = [self.prefixes_of(split, user) for user in rows]
        stacked = Ragged.concatenate([*prefixes, Ragged.from_lists([[]])])
        source = np.full(num_rows, len(stacked) - 1)
        source[np.concatenate(list(rows.values()))] = np.arange(len(stacked) - 1)
        return stacked.take(source)
