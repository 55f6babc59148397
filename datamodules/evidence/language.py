"""What is looked for in posts of a language: the attributes of a profile, what speaks for their values, and forms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from datamodules.evidence.pattern_search import literals

AREA = "area_"
"""Begins the name of a frame around the name of an area, instead of that of a place."""


@dataclass
class Pattern:
    """What is looked for in a post, and in the turn that it answers.

    `needs` are strings in lower case: every text that `asked`, or without it `said`, matches has one of them, in any
    case. It is empty where none are known.
    """

    said: re.Pattern[str]
    asked: re.Pattern[str] | None = None  # None looks into posts alone
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribute:
    """One attribute of a profile."""

    name: str
    written: str
    values: dict[str, str]  # value → as written in a prompt
    patterns: dict[str, dict[str, Pattern]]  # name → value → pattern
    places: dict[str, Pattern]  # frame → pattern with one group, the name of a place or of an area
    value_of_place: dict[str, str]  # name of a place in lower case → value
    values_of_area: dict[str, tuple[str, ...]]  # name of an area in lower case → values

    @property
    def predicate(self) -> str:
        """Its name in formulas: `employment_status` is `EmploymentStatus(user, employment_status!)`."""
        return "".join(part.capitalize() for part in self.name.split("_"))

    @cached_property
    def any_name(self) -> Pattern:
        """Finds any name of a place or an area; most posts have none."""
        names = [*self.value_of_place, *self.values_of_area]
        return Pattern(re.compile("|".join(map(re.escape, names)), re.IGNORECASE), needs=literals(names))

    def values_of(self, frame: str, name: str) -> tuple[str, ...]:
        """The values that a name found in a frame means: one for a place, several for an area."""
        return self.values_of_area[name.lower()] if frame.startswith(AREA) else (self.value_of(name),)

    def value_of(self, place: str) -> str:
        if (value := self.value_of_place.get(place.lower())) is not None:
            return value
        # Letters with more than two forms, such as the Turkish i.
        return next(value for name, value in self.value_of_place.items() if re.fullmatch(re.escape(name), place, re.I))

    @property
    def said(self) -> str:
        """The evidence predicate of its patterns: `SaysGender(user, pattern, gender)`."""
        return f"Says{self.predicate}"


@dataclass(frozen=True)
class Language:
    """All that is said about one language."""

    segmenter: Literal["unidic", "words"]
    attributes: dict[str, Attribute]
    forms: dict[str, Pattern]

    @property
    def patterns(self) -> list[str]:
        """Names of patterns and of frames for places, each once."""
        attributes = self.attributes.values()
        return list(dict.fromkeys(name for one in attributes for name in [*one.patterns, *one.places]))
