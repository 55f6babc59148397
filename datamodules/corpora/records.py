"""The records that every corpus reader produces, the interface of a reader, and its account of what it dropped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from artefacts.fingerprints import sha256_of_files

EXAMPLES_PER_REASON = 3
OPTED_OUT = "opted out"


@dataclass(frozen=True, slots=True)
class Post:
    """One message by one author at one time; `reply_to` is the id of the post it answers."""

    author: str
    text: str
    time: datetime | None = None
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What one person said until the other one spoke."""

    speaker: str
    text: str
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Alternating turns of exactly two people; `id` is unique within `source`."""

    id: str
    turns: tuple[Turn, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Attributes of one user; a missing one is unknown. `origin` is `declared`, `distant` or `inferred`."""

    user: str
    attributes: Mapping[str, str]
    origin: str


def persona_of(user: str, sentences: Iterable[str]) -> Profile:
    """A profile of the sentences of a persona: `persona_1`, `persona_2`, ...; declared, although it was handed out."""
    return Profile(user, {f"persona_{i}": sentence for i, sentence in enumerate(sentences, start=1)}, "declared")


class Malformed(ValueError):
    """A record that cannot be used: it becomes a counted drop.

    Its detail says what was got and what was expected, in terms of keys, types and positions; it never quotes a person.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


class Reasons(Counter[str]):
    """What was dropped, by reason; `examples` name files, lines or ids, and never quote a text."""

    def __init__(self, *counts: Any) -> None:
        super().__init__(*counts)
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, count: int = 1, examples: Iterable[str] = ()) -> None:
        if count:
            self[reason] += count
            known = self.examples.setdefault(reason, [])
            known.extend(list(examples)[: EXAMPLES_PER_REASON - len(known)])

    def table(self) -> str:
        lines = []
        for reason, count in self.most_common():
            examples = self.examples.get(reason)
            lines.append(f"  {count:>12,} {reason}" + (f" (such as {'; '.join(examples)})" if examples else ""))
        return "\n".join(lines) or "  nothing dropped"


@dataclass
class Drops:
    """Counts the dialogues that were read and dropped, by reason."""

    num_seen: int = 0
    reasons: Reasons = field(default_factory=Reasons)

    @contextmanager
    def dialogue(self, where: str) -> Iterator[None]:
        """Counts one dialogue; it is dropped if it is `Malformed`. `where` is its file and line or its id."""
        self.num_seen += 1
        try:
            yield
        except Malformed as error:
            self.reasons.add(error.reason, examples=[f"{where}: {error}" if str(error) else where])

    def stop_above(self, max_share: float) -> None:
        """ValueError if more than `max_share` was dropped; people who opted out do not make the input broken."""
        if (num_dropped := self.reasons.total() - self.reasons[OPTED_OUT]) > max_share * self.num_seen:
            raise ValueError(
                f"{num_dropped} of {self.num_seen} dialogues would be dropped, more than the allowed share "
                f"{max_share:g}:\n{self.reasons.table()}\n"
                "Mend the input, or raise max_dropped if this is what the data are like."
            )


class Corpus(ABC):
    """A published data set, read from its own files in their own layout."""

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """The files that are read; FileNotFoundError says where to get one that is missing."""

    @abstractmethod
    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        """Yields every usable dialogue in a fixed order and accounts for the others in `drops`."""

    def profiles(self) -> Iterator[Profile]:
        """Yields what the corpus declares about its speakers; by default nothing."""
        return iter(())

    def fingerprint(self) -> str:
        """SHA-256 over names and contents of the files."""
        return sha256_of_files(sorted(self.files), name=lambda path: path.name.encode())


def merge_turns(messages: Iterable[Turn]) -> tuple[Turn, ...]:
    """Joins consecutive messages of one person into one turn, with the time of the first of them that has a text."""
    folded = (replace(message, text=" ".join(message.text.split())) for message in messages)
    spoken = (message for message in folded if message.text)
    runs = (list(run) for _, run in groupby(spoken, key=lambda message: message.speaker))
    return tuple(replace(run[0], text=" ".join(message.text for message in run)) for run in runs)


def two_people(id: str, messages: Iterable[Turn], source: str) -> Dialogue:
    """The dialogue made of these messages; Malformed if it is not one of two people."""
    turns = merge_turns(messages)
    num_people = len({turn.speaker for turn in turns})
    if num_people != 2:
        raise Malformed({0: "no text", 1: "one person only"}.get(num_people, "more than two people"))
    return Dialogue(id, turns, source)
