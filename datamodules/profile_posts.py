"""`ProfilePosts`: parts of people's histories as evidence for a Markov logic network.

A user's posts in time order are cut into chunks of 150 (Otsuka et al. 2024). What is in a chunk is the evidence of that
chunk, but for the places that somebody names: these are few, and count for all of their chunks (measured: prefectures
0.44 instead of 0.30; for the other patterns it was no gain, or a loss). A place that few others name says more, as a
rare word does: the degree of such a fact is multiplied by its rarity.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import permutations
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from artefacts.layout import NETWORK
from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, Range, require
from datamodules.batches import EvidenceBatch, Facts, WholePass
from datamodules.evidence.counts import NOTHING, Chunk, Words, choose, gram_counts
from datamodules.evidence.facts import ChunkFacts, cut, rarity, read_vocabulary, saturating
from datamodules.evidence.histories import Spoken, declared_labels, distant_labels, histories_of
from datamodules.evidence.language_file import load_language
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import stable_hash


class ProfilePosts(LightningDataModule):
    """Chunks of users' posts, with their evidence and what is declared about the users.

    Args:
        preparation: the corpus and its splits; the token shards are neither needed nor made.
        language: YAML of attributes, patterns and forms.
        labels: `declared` by the corpus, or `distant`: what a user's posts say by the patterns of `label_patterns`.
        label_patterns: patterns that make distant labels; posts that match one are no evidence for anybody.
        posts_per_chunk: posts that are judged together (150 in the paper).
        min_posts: a user with fewer posts is left out, and counted.
        num_folds: parts of the labelled users for cross-fitting.
        gram_sizes: lengths of character n-grams; empty for none.
        min_users: a word or n-gram is looked at if so many training users have it.
        max_words: most words, those of most users.
        max_grams: most n-grams, those of most users.
        network: directory of a learnt network, whose vocabulary and folds a test or prediction takes; None is that of
            the run.
        chunks_per_batch: chunks in a batch of test and prediction, which memory depends on; 0 puts all into one, as
            formulas between users need it.
        num_workers: processes beside this one that make the evidence of a test or prediction.
        seed: of the folds; None is the run's (`seed_everything`).
    """

    ranges: ClassVar = {
        "posts_per_chunk": AT_LEAST_1,
        "min_posts": AT_LEAST_0,
        "num_folds": Range(2),  # somebody has to be held out
        "min_users": AT_LEAST_0,
        "max_words": AT_LEAST_0,
        "max_grams": AT_LEAST_0,
        "chunks_per_batch": AT_LEAST_0,
        "num_workers": AT_LEAST_0,
        "seed": AT_LEAST_0,
    }

    def __init__(
        self,
        preparation: Preparation,
        language: Path,
        labels: Literal["declared", "distant"] = "declared",
        label_patterns: tuple[str, ...] = ("states",),
        posts_per_chunk: int = 150,
        min_posts: int = 20,
        num_folds: int = 5,
        gram_sizes: tuple[int, ...] = (2, 3),
        min_users: int = 5,
        max_words: int = 20_000,
        max_grams: int = 20_000,
        network: Path | None = None,
        chunks_per_batch: int = 256,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.preparation = preparation
        self.language_path = language
        self.labels_from = labels
        self.label_patterns = label_patterns
        self.posts_per_chunk = posts_per_chunk
        self.min_posts = min_posts
        self.num_folds = num_folds
        self.gram_sizes = gram_sizes
        self.min_users = min_users
        self.max_words = max_words
        self.max_grams = max_grams
        self.network = network
        self.chunks_per_batch = chunks_per_batch
        self.num_workers = num_workers
        self.seed = seed or 0
        self.users: list[str] = []
        require(vars(self), **self.ranges)

    @property
    def network_directory(self) -> Path:
        return self.network or Path(self.trainer.default_root_dir) / NETWORK

    # ---- reading

    def setup(self, stage: str) -> None:
        if self.users:
            return
        self.language = load_language(self.language_path)
        histories = self.histories()
        if self.labels_from == "declared":
            labels = declared_labels(self.preparation.profiles(), self.language, self.language_path)
        else:
            labels = distant_labels(histories, self.language, self.label_patterns)
        least = max(1, self.min_posts)
        self.users = [user for user in sorted(histories) if len(histories[user]) >= least]
        short = len(histories) - len(self.users)
        print(f"{len(self.users):,} users; {short:,} more have fewer than {least} posts and are left out")
        if not self.users:
            raise ValueError(f"nobody has {least} posts; lower data.min_posts")
        self.chunks: list[Chunk] = []
        self.parts: list[list[str]] = []  # of each chunk, the dialogues it is from
        for user in self.users:
            for part in cut(histories[user], self.posts_per_chunk):
                posts, answered, dialogues = zip(*part, strict=True)
                self.chunks.append(Chunk(user, posts, answered))
                self.parts.append(list(dict.fromkeys(dialogues)))
        num_chunks = Counter(chunk.user for chunk in self.chunks)
        self.num_chunks = np.array([num_chunks[user] for user in self.users])
        self.user_of_chunk = np.repeat(np.arange(len(self.users)), self.num_chunks)
        self.first_chunk = np.cumsum(self.num_chunks) - self.num_chunks
        self.is_short = [len(histories[user]) < self.posts_per_chunk for user in self.users]
        self.labels = self._numbers(labels)
        if stage == "fit":
            self._begin()
        else:
            self._take_over()
        self.domains, self.predicates = self.facts.domains, self.facts.predicates

    def histories(self) -> dict[str, list[Spoken]]:
        return histories_of(self.preparation)

    def _numbers(self, labels: Mapping[str, Mapping[str, str]]) -> np.ndarray:
        """Labels by user and attribute, -1 where nothing is known."""
        numbers = np.full((len(self.users), len(self.language.attributes)), -1, dtype=np.int64)
        columns = {name: column for column, name in enumerate(self.language.attributes)}
        for row, user in enumerate(self.users):
            for name, value in labels.get(user, {}).items():
                numbers[row, columns[name]] = list(self.language.attributes[name].values).index(value)
        return numbers

    # ---- folds and vocabulary

    def _begin(self) -> None:
        """Deals the labelled users into folds and chooses the vocabulary of each learner from its training users."""
        for name, labels in zip(self.language.attributes, self.labels.T, strict=True):
            known = labels[labels >= 0]
            if len(np.unique(known)) == 1:
                raise ValueError(f"all {len(known)} labels of {name} are the same: there is nothing to learn")
        labelled = [user for row, user in enumerate(self.users) if (self.labels[row] >= 0).any()]
        if len(labelled) < max(2, self.num_folds):
            raise ValueError(f"{len(labelled)} users with labels are too few for {self.num_folds} folds")
        dealt = sorted(labelled, key=lambda user: stable_hash(self.seed, user))
        self.folds = {user: place % self.num_folds for place, user in enumerate(dealt)}
        fold = np.array([self.folds.get(user, -1) for user in self.users])
        learners = np.stack([(fold >= 0) & (fold != learner) for learner in range(self.num_folds + 1)])
        words = Words(self.language.segmenter)
        counts = words.counts(self.chunks, grow=True) if self.max_words else NOTHING
        texts = list(words.number)
        chosen = choose(counts, self.user_of_chunk, learners, self.min_users, self.max_words)
        words.number = {texts[item]: place for place, item in enumerate(chosen.items.tolist())}
        counts = gram_counts(self.chunks, self.gram_sizes) if self.max_grams else NOTHING
        grams = choose(counts, self.user_of_chunk, learners, self.min_users, self.max_grams)
        self.allowed = {"word": torch.from_numpy(chosen.allowed), "gram": torch.from_numpy(grams.allowed)}
        self.facts = ChunkFacts(self.language, words, grams.items, self.gram_sizes, {})
        places = [self._places(row) for row, user in enumerate(self.users) if user in self.folds]
        self.facts.rarity = {name: rarity([own[name] for own in places]) for name in self.language.attributes}

    def _take_over(self) -> None:
        """Takes vocabulary and folds from a learnt network."""
        content = read_vocabulary(self.network_directory, self.language, self.language_path)
        self.folds, self.num_folds = content["folds"], content["num_folds"]
        self.facts = ChunkFacts.learnt(self.language, content)
        self.allowed = {}

    def vocabulary(self) -> str:
        hidden = list(self.label_patterns) if self.labels_from == "distant" else []
        content = {**self.facts.content(), "num_folds": self.num_folds, "folds": self.folds, "hidden": hidden}
        return json.dumps(content, ensure_ascii=False, indent=0)

    # ---- batches

    def batch(self, rows: Sequence[int]) -> EvidenceBatch:
        # Copies, so that what a chunk keeps of its texts goes with the batch.
        chunks = [replace(self.chunks[row]) for row in rows]
        user = self.user_of_chunk[list(rows)]
        fold = [self.folds.get(chunk.user, self.num_folds) for chunk in chunks]
        return EvidenceBatch(
            facts={
                **self.facts.of(chunks, [self._places(number) for number in user.tolist()]),
                "Replies": self._replies(rows),
            },
            labels=torch.from_numpy(self.labels[user]),
            weights=torch.from_numpy((1 / self.num_chunks[user]).astype(np.float32)),
            learner=torch.tensor(fold),
            index=torch.tensor(list(rows)),
        )

    @lru_cache(maxsize=1024)  # noqa: B019 - the module lives as long as the process
    def _places(self, user: int) -> dict[str, Counter[tuple[str, str]]]:
        """Places in the whole history of a user."""
        start = self.first_chunk[user]
        return self.facts.places(self.chunks[start : start + self.num_chunks[user]])

    def _replies(self, rows: Sequence[int]) -> Facts:
        """Chunks whose authors talk with each other in some dialogue."""
        chunks_of: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(rows):
            for dialogue in self.parts[row]:
                chunks_of[dialogue].append(number)
        pairs = {
            (first, second)
            for numbers in chunks_of.values()
            for first, second in permutations(numbers, 2)
            if self.user_of_chunk[rows[first]] != self.user_of_chunk[rows[second]]
        }
        return saturating([(*pair, math.inf) for pair in sorted(pairs)], 2)

    def _loader(self, rows: Sequence[int]) -> DataLoader:
        size = self.chunks_per_batch or len(rows)
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        # Forked, so that workers have the posts without a copy's being sent to them.
        context = "fork" if self.num_workers else None
        return DataLoader(
            parts, batch_size=None, collate_fn=self.batch, num_workers=self.num_workers, multiprocessing_context=context
        )

    @cached_property
    def learning_batch(self) -> EvidenceBatch:
        """All chunks of all labelled users: learning always sees everything."""
        return self.batch([row for row, chunk in enumerate(self.chunks) if chunk.user in self.folds])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(WholePass(lambda: iter([self.learning_batch]), 1), batch_size=None)

    def test_dataloader(self) -> DataLoader:
        rows = np.flatnonzero((self.labels >= 0).any(axis=1)[self.user_of_chunk]).tolist()
        if not rows:
            raise ValueError("nobody here has a label: there is nothing to test; lightning predict infers profiles")
        return self._loader(rows)

    def predict_dataloader(self) -> DataLoader:
        return self._loader(range(len(self.chunks)))
