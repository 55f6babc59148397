"""`ProfileInference`: profiles from the posts of many people, by a learned network.

Evidence (`datamodules`) and networks meet here without a Trainer, so that unlike the rest of this package it may import
both. Torch is imported only when something is inferred: the command that distributes this object need not have it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from artefacts.fingerprints import sha256_of, sha256_of_content
from datamodules.corpora.posts.profile_sources import PROFILES, ProfileSource
from datamodules.corpora.records import Post
from datamodules.evidence.counts import Chunk
from datamodules.evidence.histories import Spoken, label_attributes, stating
from datamodules.evidence.language_file import language_content, load_language
from lightning_modules.markov_logic.decisions import Decision

if TYPE_CHECKING:
    from datamodules.evidence.facts import ChunkFacts
    from datamodules.evidence.language import Attribute
    from lightning_modules.markov_logic.network import MarkovLogicNetwork

CHUNKS_PER_BATCH = 256
"""Chunks that are judged at once; memory depends on it, results do not."""

COLUMNS = ("id", "author", "text", "time", "answered")


class ProfileInference(ProfileSource):
    """A learned Markov logic network as a source of profiles, to the last digit those of `lightning predict`.

    An author's posts are taken in order of time and then id, those without a time last; texts as they are, so they
    should have the Unicode form of those that the network has learned from (NFKC, if not set otherwise). A user in one
    of the network's folds is judged by the learner that has not seen them, any other user by the last one.

    Args:
        network: directory of the learned network, such as `runs/<name>/network`.
        language: YAML of attributes, patterns and forms that it was learned with.
        posts_per_chunk: posts that are judged together (150 in the paper).
        min_posts: a user with fewer posts gets no profile.
        decision: how a person's chunks are put together, and when an attribute is left out.
        label_patterns: if the network was learned with `labels: distant`, its `label_patterns`: posts that match one
            were hidden from it, and are here; otherwise none.
    """

    def __init__(
        self,
        network: Path,
        language: Path,
        posts_per_chunk: int = 150,
        min_posts: int = 20,
        decision: Decision | None = None,
        label_patterns: tuple[str, ...] = (),
    ) -> None:
        if posts_per_chunk < 1:
            raise ValueError(f"posts_per_chunk must be 1 or more, got {posts_per_chunk}")
        self.network = Path(network)
        self.language = Path(language)
        self.posts_per_chunk = posts_per_chunk
        self.min_posts = min_posts
        self.decision = decision or Decision()
        self.label_patterns = tuple(label_patterns)

    def check(self) -> None:
        self._load()

    def fingerprint(self) -> str:
        settings = [self.posts_per_chunk, self.min_posts, asdict(self.decision), self.label_patterns]
        return sha256_of_content(json.dumps([self._content(), settings]))

    def infer(self, posts: pa.Table) -> pa.Table:
        if missing := [name for name in COLUMNS if name not in posts.column_names]:
            raise ValueError(f"the posts lack the columns {missing}; they have {posts.column_names}")
        learned = self._load()
        with one_thread():
            groups = batches(self._people(posts, learned), CHUNKS_PER_BATCH)
            rows = [row for people in groups for row in self._profiles(people, learned)]
        return pa.Table.from_pylist(rows, PROFILES)

    def _content(self) -> list[str]:
        """SHA-256 of every file that a profile depends on; a missing one is reported where it is read."""
        network = [sha256_of(path) for path in sorted(self.network.glob("*")) if path.is_file()]
        return [*network, *map(sha256_of_content, language_content(self.language))]

    def _load(self) -> LearnedNetwork:
        return load(self.network, self.language, self.label_patterns, tuple(self._content()))

    def _people(self, posts: pa.Table, learned: LearnedNetwork) -> Iterator[Person]:
        """Every user who has enough posts, by name."""
        for user, history in histories(posts):
            if learned.hidden:
                hidden = set(stating(history, learned.hidden))
                history = [spoken for index, spoken in enumerate(history) if index not in hidden]
            if len(history) >= max(1, self.min_posts):
                from datamodules.evidence.facts import cut

                parts = [tuple(zip(*part, strict=True)) for part in cut(history, self.posts_per_chunk)]
                chunks = [Chunk(user, texts, answered) for texts, answered, _ in parts]
                yield Person(user, chunks, len(history) < self.posts_per_chunk)

    def _profiles(self, people: Sequence[Person], learned: LearnedNetwork) -> Iterator[dict[str, Any]]:
        chunks = [chunk for person in people for chunk in person.chunks]
        places = [own for person in people for own in [learned.facts.places(person.chunks)] * len(person.chunks)]
        # A user with very many chunks takes several batches.
        parts = [
            learned.posteriors(chunks[start : start + CHUNKS_PER_BATCH], places[start : start + CHUNKS_PER_BATCH])
            for start in range(0, len(chunks), CHUNKS_PER_BATCH)
        ]
        posteriors = {name: np.concatenate([part[name] for part in parts]) for name in sorted(parts[0])}
        ends = np.cumsum([len(person.chunks) for person in people])
        for person, end in zip(people, ends, strict=True):
            for name, marginals in posteriors.items():
                values = list(learned.facts.language.attributes[name].values)
                own = marginals[end - len(person.chunks) : end]
                if (row := self.decision.row(person.user, name, values, own, person.is_short)) is not None:
                    yield row


@dataclass(frozen=True)
class Person:
    """A user's posts in chunks."""

    user: str
    chunks: list[Chunk]
    is_short: bool


def histories(posts: pa.Table) -> Iterator[tuple[str, list[Spoken]]]:
    """Every user's posts in order of time and id, by name of the author."""
    order = [("author", "ascending"), ("time", "ascending"), ("id", "ascending")]  # what is null comes last
    table = posts.select(COLUMNS).sort_by(order).combine_chunks()
    start = 0
    for run in table["author"].value_counts():
        user, count = run["values"].as_py(), run["counts"].as_py()
        own = table.slice(start, count)
        start += count
        texts, answers = (own[name].to_pylist() for name in ("text", "answered"))
        times = own["time"].to_numpy().astype("datetime64[ms]").tolist()  # in UTC, without saying so
        rows = zip(texts, times, answers, strict=True)
        yield user, [Spoken(Post(user, text, time), answered or "", "") for text, time, answered in rows]


def batches(people: Iterable[Person], num_chunks: int) -> Iterator[list[Person]]:
    """Groups of people with at least `num_chunks` chunks in total, except the last group."""
    group: list[Person] = []
    size = 0
    for person in people:
        group.append(person)
        size += len(person.chunks)
        if size >= num_chunks:
            yield group
            group, size = [], 0
    if group:
        yield group


@dataclass(frozen=True)
class LearnedNetwork:
    """A loaded network, with what it needs to see posts."""

    facts: ChunkFacts  # the evidence that it knows
    network: MarkovLogicNetwork
    folds: Mapping[str, int]  # user → the learner that has not seen them
    hidden: list[Attribute]  # attributes with the patterns whose posts are no evidence

    def posteriors(self, chunks: Sequence[Chunk], places: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Attribute → posteriors of the chunks, (chunks, values) float64."""
        import torch

        from datamodules.batches import EvidenceBatch
        from lightning_modules.markov_logic.network_files import posteriors
        from lightning_modules.markov_logic.propagation import BeliefPropagation

        copies = [replace(chunk) for chunk in chunks]  # so that what a chunk caches of its texts goes with the batch
        last = self.network.num_learners - 1
        batch = EvidenceBatch(
            facts=self.facts.of(copies, places),
            labels=torch.full((len(chunks), len(self.facts.language.attributes)), -1),
            weights=torch.ones(len(chunks)),
            learner=torch.tensor([self.folds.get(chunk.user, last) for chunk in chunks]),
            index=torch.arange(len(chunks)),
        )
        names = {attribute.predicate: attribute.name for attribute in self.facts.language.attributes.values()}
        with torch.inference_mode():
            found = posteriors(self.network, batch, BeliefPropagation(), names)
        return {name: marginals.double().numpy() for name, marginals in found.items()}


@lru_cache(maxsize=1)
def load(network: Path, language: Path, label_patterns: tuple[str, ...], content: tuple[str, ...]) -> LearnedNetwork:
    """Loads a network, once in a process as long as the content of its files is the same.

    Raises:
        FileNotFoundError: there is no learned network.
        ValueError: it has another language or was learned with other label patterns, or links people.
    """
    from datamodules.evidence.facts import ChunkFacts, read_vocabulary
    from lightning_modules.markov_logic.network import MarkovLogicNetwork
    from lightning_modules.markov_logic.network_files import FORMULAS, load_weights, read_formulas

    spoken = load_language(language)
    vocabulary = read_vocabulary(network, spoken, language)
    hidden = vocabulary.get("hidden", label_patterns)  # missing in older networks
    if sorted(hidden) != sorted(label_patterns):
        raise ValueError(
            f"{network} was learned with posts hidden that match {list(hidden)}, and label_patterns are "
            f"{list(label_patterns)}; set them to the same"
        )
    facts = ChunkFacts.learnt(spoken, vocabulary)
    program = read_formulas([network / FORMULAS], facts.predicates)
    model = MarkovLogicNetwork(program, facts.domains, vocabulary["num_folds"] + 1)
    load_weights(model, network)
    if linking := [factor.formula for factor in model.factors if len(factor.units) > 1]:
        raise ValueError(
            f"{network} has a formula about two people, '{program.formulas[linking[0]].text}': who is related to "
            "whom would depend on who comes in the same part of the work; learn a network without such formulas"
        )
    states = label_attributes(spoken, label_patterns) if label_patterns else []
    return LearnedNetwork(facts, model, vocabulary["folds"], states)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch to one thread: there are processes enough, and its products here are small."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
