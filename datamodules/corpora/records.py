"""The records that every corpus reader produces, the interface of a reader, and its account of what it dropped."""

from __future__ import annotations

import unicodedata
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
from artefacts.people import clean_id

from .people import People

EXAMPLES_PER_REASON = 3
OPTED_OUT, REPEATED = "opted out", "the same turns as an earlier dialogue"
NOT_BROKEN = (OPTED_OUT, REPEATED)
"""Reasons that say nothing about the input's state."""
INVISIBLE = ("Cc", "Cf", "Mn", "Me", "Zl", "Zp", "Zs")
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that show nothing."""


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", clean_id(self.user))


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
        self.num_respelled = 0  # posts whose author's id was written in another way
        self.opted_out: set[str] = set()  # those who are among the authors

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
    """Counts the dialogues that were read and dropped, by reason, and knows the people in them."""

    num_seen: int = 0
    reasons: Reasons = field(default_factory=Reasons)
    people: People = field(default_factory=People)

    @contextmanager
    def dialogue(self, where: str) -> Iterator[None]:
        """Counts one dialogue; it is dropped if it is `Malformed`. `where` is its file and line or its id."""
        self.num_seen += 1
        try:
            yield
        except Malformed as error:
            self.reasons.add(error.reason, examples=[f"{where}: {error}" if str(error) else where])

    def stop_above(self, max_share: float) -> None:
        """ValueError if more than `max_share` was dropped for reasons that say that the input is broken."""
        num_dropped = self.reasons.total() - sum(self.reasons[reason] for reason in NOT_BROKEN)
        if num_dropped > max_share * self.num_seen:
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
    spoken = (message for message in folded if is_visible(message.text))
    runs = (list(run) for _, run in groupby(spoken, key=lambda message: message.speaker))
    return tuple(replace(run[0], text=" ".join(message.text for message in run)) for run in runs)


def is_visible(text: str) -> bool:
    """Whether a reader sees anything of a text: not of blanks, direction marks and letters without width."""
    return any(unicodedata.category(letter) not in INVISIBLE and letter not in FILLERS for letter in text)


def two_people(id: str, messages: Iterable[Turn], source: str, people: People) -> Dialogue:
    """The dialogue made of these messages, with ids as `people` writes them; Malformed if it is not one of two."""
    turns = merge_turns(replace(message, speaker=people.id_of(message.speaker)) for message in messages)
    speakers = {turn.speaker for turn in turns}
    if not all(speakers):
        raise Malformed("no speaker", "got an id of blanks and invisible letters alone")
    num_people = len(speakers)
    if num_people != 2:
        raise Malformed({0: "no text", 1: "one person only"}.get(num_people, "more than two people"))
    return Dialogue(id, turns, source)
