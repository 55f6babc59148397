"""What a language's YAML says about profiles: attributes, how their values are written, and what speaks for them.

In: a YAML file such as `experiments/profiles/ja.yaml`. Out: a `Language`.

    segmenter: unidic | words
    attributes:
      gender:
        written: 性別                               # the attribute, in a prompt
        values: {Female: 女性, Male: 男性}           # value → as written in a prompt; or a file of places
        patterns: {spouse: {Female: '夫が', Male: '妻が'}}
        places: {lives: 'PLACEに住'}                 # for an attribute whose values are places
        areas: {関西: [Osaka, Kyoto]}                # names of several values; `area_lives` finds them in that frame
    forms: {laugh: 'w+'}

Instead of a regular expression, a pattern may be `{asked: ..., said: ...}`: then it counts in answers only, where the
turn before matches `asked`. A file of places has a line for each value: the value, and the names that people use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

PLACE = "PLACE"
TYPES = {"user", "word", "gram", "form", "hour", "pattern"}  # of evidence, in formulas
KEYS = {"segmenter", "attributes", "forms"}
AREA = "area_"  # before the name of a frame: that frame around the name of an area
ATTRIBUTE_KEYS = {"written", "values", "patterns", "places", "areas"}


@dataclass(frozen=True)
class Pattern:
    """What is looked for in a post, and in the turn that it answers."""

    said: re.Pattern[str]
    asked: re.Pattern[str] | None = None


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
    def any_name(self) -> re.Pattern[str]:
        """Finds any name of a place or an area; most posts have none."""
        return re.compile("|".join(map(re.escape, [*self.value_of_place, *self.values_of_area])), re.IGNORECASE)

    def values_of(self, frame: str, name: str) -> tuple[str, ...]:
        """The values that a name found in a frame means: one for a place, several for an area."""
        return self.values_of_area[name.lower()] if frame.startswith(AREA) else (self.value_of(name),)

    def value_of(self, place: str) -> str:
        """The value that a name of a place means, in whatever case its pattern has found it."""
        found = self.value_of_place.get(place.lower())
        if found is None:  # cases that come in more than two, such as the Turkish i
            same = (value for name, value in self.value_of_place.items() if re.fullmatch(re.escape(name), place, re.I))
            found = next(same)
        return found

    @property
    def said(self) -> str:
        """The evidence predicate of its patterns: `SaysGender(user, pattern, gender)`."""
        return f"Says{self.predicate}"


@dataclass(frozen=True)
class Language:
    """All that is said about one language."""

    segmenter: Literal["unidic", "words"]
    attributes: dict[str, Attribute]
    forms: dict[str, re.Pattern[str]]

    @property
    def patterns(self) -> list[str]:
        """Names of patterns and of frames for places, each once."""
        names = {name: None for one in self.attributes.values() for name in [*one.patterns, *one.places]}
        return list(names)


def load_language(path: Path) -> Language:
    """Reads a language's YAML.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown or missing, a pattern is no regular expression or names a value that is not
            there.
    """
    content = _mapping(path)
    _require(path, content, KEYS, {"segmenter", "attributes"})
    if content["segmenter"] not in ("unidic", "words"):
        raise ValueError(f"{path}: segmenter is {content['segmenter']!r}; there are unidic (Japanese) and words")
    entries = _keys_and_values(path, content["attributes"], "attributes")
    if taken := [name for name in entries if not isinstance(name, str) or name in TYPES]:
        raise ValueError(
            f"{path}: an attribute cannot be called {taken[0]!r}; take a text, and none of {sorted(TYPES)}"
        )
    attributes = {name: _attribute(path, name, entry) for name, entry in entries.items()}
    forms = {
        name: _compiled(path, f"forms.{name}", text)
        for name, text in _keys_and_values(path, content.get("forms") or {}, "forms").items()
    }
    return Language(content["segmenter"], attributes, forms)


def language_files(path: Path) -> list[Path]:
    """The language's YAML and the files of places that it names."""
    entries = _mapping(path).get("attributes")
    entries = entries.values() if isinstance(entries, Mapping) else []
    named = [
        entry["values"] for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("values"), str)
    ]
    return [path, *(path.parent / name for name in dict.fromkeys(named))]


def _attribute(path: Path, name: str, entry: dict[str, Any]) -> Attribute:
    where = f"attributes.{name}"
    _require(path, entry, ATTRIBUTE_KEYS, {"written", "values"}, where)
    value_of_place: dict[str, str] = {}
    values = entry["values"]
    if isinstance(values, str):
        names = _mapping(path.parent / values)
        for value, called in names.items():
            if not isinstance(called, list) or not all(isinstance(place, str) for place in called) or not called:
                raise ValueError(f"{path.parent / entry['values']}: {value} must have a list of names, got {called!r}")
            for place in called:
                if other := value_of_place.get(place.lower()):
                    raise ValueError(f"{path.parent / values}: {place} is a name of {other} and of {value}")
                value_of_place[place.lower()] = str(value)
        values = {value: called[0] for value, called in names.items()}
    values = {str(value): str(text) for value, text in _keys_and_values(path, values, f"{where}.values").items()}
    patterns = {}
    for pattern, by_value in _keys_and_values(path, entry.get("patterns") or {}, f"{where}.patterns").items():
        _keys_and_values(path, by_value, f"{where}.patterns.{pattern}")
        if unknown := sorted({str(value) for value in by_value} - values.keys()):
            raise ValueError(f"{path}: {where}.patterns.{pattern} speaks for {unknown}; values are {list(values)}")
        patterns[pattern] = {
            str(value): _pattern(path, f"{where}.patterns.{pattern}.{value}", entry)
            for value, entry in by_value.items()
        }
    frames = _keys_and_values(path, entry.get("places") or {}, f"{where}.places")
    if frames and not value_of_place:
        raise ValueError(f"{path}: {where}.places needs a file of places as values")
    if reserved := [frame for frame in frames if str(frame).startswith(AREA)]:
        raise ValueError(f"{path}: {where}.places: {reserved[0]!r} begins with {AREA!r}, which is for areas")
    if entry.get("areas") and not frames:
        raise ValueError(f"{path}: {where}.areas needs frames in {where}.places")
    areas = _areas(path, f"{where}.areas", entry.get("areas") or {}, values)
    places = {
        frame: _frame(path, f"{where}.places.{frame}", wanted, value_of_place) for frame, wanted in frames.items()
    }
    if areas:
        places |= {
            AREA + frame: _frame(path, f"{where}.places.{frame}", wanted, areas) for frame, wanted in frames.items()
        }
    return Attribute(name, entry["written"], values, patterns, places, value_of_place, areas)


def _areas(path: Path, where: str, entry: Any, values: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Name of an area in lower case → the values it means."""
    areas = {}
    for area, members in _keys_and_values(path, entry, where).items():
        if not isinstance(members, list) or not members or (unknown := [one for one in members if one not in values]):
            wrong = unknown if isinstance(members, list) and members else members
            raise ValueError(f"{path}: {where}.{area} must be a list of values of the attribute, got {wrong!r}")
        areas[str(area).lower()] = tuple(members)
    return areas


def _frame(path: Path, where: str, wanted: Any, names: Iterable[str]) -> Pattern:
    """A frame with names for PLACE."""
    text = str(wanted.get("said") if isinstance(wanted, Mapping) else wanted)
    if text.count(PLACE) != 1:
        raise ValueError(f"{path}: {where} must have {PLACE} in it once, got {text!r}")
    # The longest name first: 東大阪 is not 大阪 behind 東.
    said = text.replace(PLACE, f"({'|'.join(re.escape(name) for name in sorted(names, key=len, reverse=True))})")
    pattern = _pattern(path, where, {**wanted, "said": said} if isinstance(wanted, Mapping) else said)
    if pattern.said.groups != 1:
        raise ValueError(f"{path}: {where} must have no groups of its own; write (?:...) for (...)")
    return pattern


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected keys and values, got {type(content).__name__}")
    return dict(content)


def _keys_and_values(path: Path, entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{path}: {where} must be keys and values, got {type(entry).__name__}")
    return entry


def _require(path: Path, entry: Any, known: set[str], needed: set[str], where: str = "") -> None:
    _keys_and_values(path, entry, where)
    if unknown := sorted(map(str, entry.keys() - known)):
        raise ValueError(f"{path}: unknown keys {unknown} {where and 'in ' + where}; there are {sorted(known)}")
    if missing := sorted(needed - entry.keys()):
        raise ValueError(f"{path}: {where} lacks {missing}")


def _pattern(path: Path, where: str, entry: Any) -> Pattern:
    if not isinstance(entry, Mapping):
        return Pattern(_compiled(path, where, entry))
    _require(path, entry, {"asked", "said"}, {"asked", "said"}, where)
    return Pattern(_compiled(path, f"{where}.said", entry["said"]), _compiled(path, f"{where}.asked", entry["asked"]))


def _compiled(path: Path, where: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE | re.MULTILINE)
    except (re.error, TypeError) as error:
        raise ValueError(f"{path}: {where} is no regular expression: {error}") from None
