"""What a LightningModule or callback may ask of `trainer.datamodule`: a protocol for each kind of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from datamodules.batches import ConversationBatch, EvidenceBatch, Seq2SeqBatch
    from datamodules.evidence.language import Language
    from datamodules.preparation.settings import Preparation
    from datamodules.prompts.profiles import ProfileControl
    from datamodules.prompts.rendering import Prompts, Turns
    from datamodules.users.history import History
    from datamodules.users.past_replies import Retrieved
    from datamodules.users.user_rows import UserSplit


class Prepared(Protocol):
    """Any data module: people in a prepared corpus."""

    preparation: Preparation
    users: list[str]  # names that `user_index` counts in


class Replies(Prepared, Protocol):
    """Reply pairs: everything that trains, tests or prompts a model of replies."""

    prompts: Prompts
    profiles: Path | None  # a file other than that of the prepared corpus
    control: ProfileControl | None
    retrieved: Retrieved | None  # past replies in the prompt
    max_context_tokens: int
    seed: int
    splits: dict[str, UserSplit]  # of the target users: train, validation, test; set up for a test or prediction
    tokenizer_directory: Path  # of the prepared corpus
    label_tokens_per_batch: float  # mean number in a training batch of one device
    test_kinds: list[str]  # what each loader of a test holds: `own`, `train` or `general` turns
    test_train_turns: int
    test_general_pairs: int


class UserReplies(Replies, Protocol):
    """Reply pairs of target users, in batches with `rows_per_user` rows of each user."""

    history: History | None  # what of the training turns is learnt from; None is all
    rows_per_user: int
    users_per_batch: int

    def next_round(self, epochs: Mapping[str, int]) -> None:
        """Says who takes part in the next pass of the training and validation loaders, and in which of their epochs."""

    def num_train_batches(self, user: str) -> int:
        """Optimizer steps of one epoch of this user."""

    def label_tokens_per_batch_of(self, user: str) -> float:
        """Mean number of this user's label tokens in those training batches in which they have rows."""

    def training_replies(self, user: str) -> list[tuple[Turns, str]]:
        """A user's training turns, oldest first: context and reply."""

    def similar_replies(self, user: str, context: Turns, k: int) -> list[tuple[Turns, str]]:
        """Those `training_replies` whose contexts are most like this one, the most similar first."""


class Talks(Replies, Protocol):
    """Conversations of two target users, and what their next turns are made from."""

    opening_turns: int

    def read(
        self, batch: ConversationBatch, turns: Sequence[Sequence[tuple[int, list[int]]]], now: int
    ) -> Seq2SeqBatch:
        """The input of each conversation's next turn."""

    def said(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        """The text of generated ids, and the ids that preparation gives this text."""

    def real_turns(self, user: str, number: int) -> list[tuple[bool, str]]:
        """What a user said in the test dialogues."""


class Evidence(Prepared, Protocol):
    """Chunks of posts as evidence for a Markov logic network."""

    network_directory: Path  # where the learnt network is, or will be
    learning_batch: EvidenceBatch  # all chunks of all labelled users
    language: Language
    domains: dict[str, list[str]]  # type → values, as formulas name them
    predicates: dict[str, tuple[str, ...]]  # what formulas may say: predicate → types of its arguments
    labels_from: Literal["declared", "distant"]
    num_folds: int
    chunks_per_batch: int
    allowed: dict[str, Tensor]  # type → (learners, items) bool
    user_of_chunk: np.ndarray  # (chunks,)
    is_short: list[bool]  # of each user: fewer posts than a chunk
    labels: np.ndarray  # (users, attributes), -1 where unknown

    def vocabulary(self) -> str:
        """What a later run needs to see posts as this one, as JSON."""
