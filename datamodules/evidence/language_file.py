"""A language's YAML file: attributes, how their values are written in a prompt, and what in a post speaks for them.

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

The last key may be `needs`: strings, one of which is in every text that a pattern (its `asked`, if it has one) matches.
They change nothing but the time of the search, most of it for a pattern that begins with `\\b`. A frame without them
needs the name of a place.

    needs: {gender.spouse.Female: [夫], residence.lives: [住], forms.laugh: [w]}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from datamodules.evidence.language import AREA, Attribute, Language, Pattern
from datamodules.evidence.pattern_search import literals

PLACE = "PLACE"
TYPES = {"user", "word", "gram", "form", "hour", "pattern"}  # of evidence, in formulas
KEYS = {"segmenter", "attributes", "forms", "needs"}
ATTRIBUTE_KEYS = {"written", "values", "patterns", "places", "areas"}
NEEDS = re.compile(rb"^needs:", re.MULTILINE)


def load_language(path: Path) -> Language:
    """Reads a language's YAML.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: a key is unknown or missing, a pattern is no regular expression or names an unknown value.
    """
    content = _mapping(path)
    try:
        return _language(path.parent, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def language_content(path: Path) -> list[bytes]:
    """What decides results in the language's YAML and in those files of places that it names and that exist."""
    entries = _mapping(path).get("attributes")
    entries = entries.values() if isinstance(entries, Mapping) else []
    named = [
        entry["values"] for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("values"), str)
    ]
    files = [path.parent / name for name in dict.fromkeys(named)]
    return [NEEDS.split(path.read_bytes())[0], *(file.read_bytes() for file in files if file.is_file())]


def _language(directory: Path, content: dict[str, Any]) -> Language:
    _require(content, KEYS, {"segmenter", "attributes"})
    if content["segmenter"] not in ("unidic", "words"):
        raise ValueError(f"segmenter is {content['segmenter']!r}; there are unidic (Japanese) and words")
    entries = _keys_and_values(content["attributes"], "attributes")
    if taken := [name for name in entries if not isinstance(name, str) or name in TYPES]:
        raise ValueError(f"an attribute cannot be called {taken[0]!r}; take a text, and none of {sorted(TYPES)}")
    attributes = {name: _attribute(directory, name, entry) for name, entry in entries.items()}
    forms = {
        name: Pattern(_compiled(f"forms.{name}", text))
        for name, text in _keys_and_values(content.get("forms") or {}, "forms").items()
    }
    if "needs" in content and next(reversed(content)) != "needs":
        raise ValueError("needs must be the last key: what is before it decides results, and it does not")
    language = Language(content["segmenter"], attributes, forms)
    _add_needs(language, _needs(content.get("needs") or {}))
    return language


def _needs(entry: Any) -> dict[str, tuple[str, ...]]:
    needs = {}
    for key, strings in _keys_and_values(entry, "needs").items():
        needs[key] = literals(map(str, strings)) if isinstance(strings, list) else ()
        if not needs[key]:
            raise ValueError(
                f"needs.{key} must be a list of strings, in letters of no case or with just one form in upper "
                f"and lower case, got {strings!r}"
            )
    return needs


def _add_needs(language: Language, needs: Mapping[str, tuple[str, ...]]) -> None:
    patterns = [(f"forms.{name}", form) for name, form in language.forms.items()]
    for name, attribute in language.attributes.items():
        for pattern, by_value in attribute.patterns.items():
            patterns += [(f"{name}.{pattern}.{value}", one) for value, one in by_value.items()]
        patterns += [(f"{name}.{frame.removeprefix(AREA)}", one) for frame, one in attribute.places.items()]
    if unknown := sorted(needs.keys() - dict(patterns).keys()):
        raise ValueError(f"needs has unknown patterns {unknown}; there are {sorted(dict(patterns))}")
    for key, pattern in patterns:
        pattern.needs = needs.get(key, pattern.needs)


def _attribute(directory: Path, name: str, entry: dict[str, Any]) -> Attribute:
    where = f"attributes.{name}"
    _require(entry, ATTRIBUTE_KEYS, {"written", "values"}, where)
    values, value_of_place = entry["values"], {}
    if isinstance(values, str):
        values, value_of_place = _places(directory / values)
    values = {str(value): str(text) for value, text in _keys_and_values(values, f"{where}.values").items()}
    patterns = {
        pattern: _by_value(f"{where}.patterns.{pattern}", by_value, values)
        for pattern, by_value in _keys_and_values(entry.get("patterns") or {}, f"{where}.patterns").items()
    }
    frames = _keys_and_values(entry.get("places") or {}, f"{where}.places")
    if frames and not value_of_place:
        raise ValueError(f"{where}.places needs a file of places as values")
    if reserved := [frame for frame in frames if str(frame).startswith(AREA)]:
        raise ValueError(f"{where}.places: {reserved[0]!r} begins with {AREA!r}, which is for areas")
    if entry.get("areas") and not frames:
        raise ValueError(f"{where}.areas needs frames in {where}.places")
    areas = _areas(f"{where}.areas", entry.get("areas") or {}, values)
    places = {
        prefix + frame: _frame(f"{where}.places.{frame}", content, names)
        for prefix, names in (("", value_of_place), (AREA, areas))
        for frame, content in frames.items()
        if names
    }
    return Attribute(name, entry["written"], values, patterns, places, value_of_place, areas)


def _places(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Value → its first name, and each name in lower case → its value, of a file of places."""
    content = _mapping(path)
    value_of_place: dict[str, str] = {}
    for value, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
            raise ValueError(f"{path}: {value} must have a list of names, got {names!r}")
        for name in names:
            if other := value_of_place.get(name.lower()):
                raise ValueError(f"{path}: {name} is a name of {other} and of {value}")
            value_of_place[name.lower()] = str(value)
    return {value: names[0] for value, names in content.items()}, value_of_place


def _by_value(where: str, entry: Any, values: Mapping[str, str]) -> dict[str, Pattern]:
    if unknown := sorted(set(map(str, _keys_and_values(entry, where))) - values.keys()):
        raise ValueError(f"{where} speaks for {unknown}; values are {list(values)}")
    return {str(value): _pattern(f"{where}.{value}", content) for value, content in entry.items()}


def _areas(where: str, entry: Any, values: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Name of an area in lower case → the values it means."""
    areas = {}
    for area, members in _keys_and_values(entry, where).items():
        if not isinstance(members, list) or not members or (unknown := [one for one in members if one not in values]):
            wrong = unknown if isinstance(members, list) and members else members
            raise ValueError(f"{where}.{area} must be a list of values of the attribute, got {wrong!r}")
        areas[str(area).lower()] = tuple(members)
    return areas


def _frame(where: str, entry: Any, names: Collection[str]) -> Pattern:
    """A frame with names for PLACE."""
    text = str(entry.get("said") if isinstance(entry, Mapping) else entry)
    if text.count(PLACE) != 1:
        raise ValueError(f"{where} must have {PLACE} in it once, got {text!r}")
    # The longest name first: 東大阪 is not 大阪 after 東.
    longest_first = sorted(names, key=len, reverse=True)
    said = text.replace(PLACE, f"({'|'.join(map(re.escape, longest_first))})")
    pattern = _pattern(where, {**entry, "said": said} if isinstance(entry, Mapping) else said)
    if pattern.said.groups != 1:
        raise ValueError(f"{where} must have no groups of its own; write (?:...) for (...)")
    return pattern if pattern.asked else replace(pattern, needs=literals(names))


def _pattern(where: str, entry: Any) -> Pattern:
    if not isinstance(entry, Mapping):
        return Pattern(_compiled(where, entry))
    _require(entry, {"asked", "said"}, {"asked", "said"}, where)
    return Pattern(_compiled(f"{where}.said", entry["said"]), _compiled(f"{where}.asked", entry["asked"]))


def _compiled(where: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE | re.MULTILINE)
    except (re.error, TypeError) as error:
        raise ValueError(f"{where} is no regular expression: {error}") from None


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


def _keys_and_values(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} must be keys and values, got {type(entry).__name__}")
    return entry


def _require(entry: Any, known: set[str], needed: set[str], where: str = "") -> None:
    _keys_and_values(entry, where)
    if unknown := sorted(map(str, entry.keys() - known)):
        raise ValueError(f"unknown keys {unknown} {where and 'in ' + where}; there are {sorted(known)}")
    if missing := sorted(needed - entry.keys()):
        raise ValueError(f"{where} lacks {missing}")
