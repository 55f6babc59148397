"""A fast search finds what a search through each text finds, and looks for no more than what is needed."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest

from datamodules.evidence.language import load_language
from datamodules.evidence.pattern_search import STRANGE, Lines, needed_by, occurrences

LANGUAGES = Path(__file__).parents[3] / "experiments" / "profiles"
BOTH = re.IGNORECASE | re.MULTILINE


def needed(pattern: str):
    return needed_by(re.compile(pattern, BOTH))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\bmy (?:wife|husband)\b", [{"my wife", "my husband"}]),
        (r"i'?m (?:\w+ )?old", [{"old"}, {"i'm ", "im "}]),
        (r"(?:ha){2,}h?", [{"haha"}, {"ha", "hah"}]),
        (r"\blo+l+\b", [{"lo"}, {"ol"}]),
        (r"fianc[eé]e", [{"fianc"}]),  # é has other forms than upper and lower case here; the last e is one letter
        (r"[:;]-?[)D]", [{":)", ";)", ":-)", ";-)", ":d", ";d", ":-d", ";-d"}]),
        (r"!$", [{"!"}]),
        (r"(?<!今)大阪(?!城)", [{"大阪"}]),
        (r"(?:tea|\d+ cups)x", [{(frozenset({" cups"}),), (frozenset({"tea"}),)}]),
        (r"tea|\d", []),
        (r"(?:tea)?", []),
        (r"(?:a|b|)c?", []),
        (r"[a-z]\d", []),  # one letter is nearly everywhere
        (r"[^a]b.!", [{"!"}]),
        (r"(t)ea\1", [{"tea"}]),
    ],
)
def test_what_is_needed_by_hand(pattern: str, expected: list[set]) -> None:
    assert [set(one) for one in needed(pattern)] == expected


def test_letters_are_found_in_all_their_forms() -> None:
    everything = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]
    joined = "".join(everything)
    for letter in map(chr, range(128)):
        for found in re.findall(re.escape(letter), joined, re.IGNORECASE):
            assert found.lower() == letter.lower() or STRANGE.search(found)
    caseless = "大阪がーゔ！。、漢"
    assert [found for found in re.findall(f"[{caseless}]", joined, re.IGNORECASE) if found not in caseless] == []


def pieces(patterns: list[re.Pattern[str]]) -> list[str]:
    """Literal parts of patterns, and what may stand around them."""
    literal = {word for pattern in patterns for word in re.findall(r"[^\W_]+", pattern.pattern)}
    return [*sorted(literal), *" '.,!?\n", "İ", "ſ", "ı", "I'm ", "i am ", "ha", "ll", "9", "年", "から", "😀"]


@pytest.mark.parametrize("name", ["en", "ja"])
def test_patterns_of_the_languages_occur_where_a_simple_search_finds_them(name: str) -> None:
    language = load_language(LANGUAGES / f"{name}.yaml")
    both = [
        pattern
        for attribute in language.attributes.values()
        for one in [*(one for by in attribute.patterns.values() for one in by.values()), *attribute.places.values()]
        for pattern in (one.said, one.asked)
        if pattern is not None
    ]
    patterns = [*both, *language.forms.values()]
    parts, rng, num_found = pieces(patterns), random.Random(4), 0
    for pattern in patterns:
        own = pieces([pattern])
        for _ in range(3):
            texts = ["".join(rng.choices(rng.choice([own, parts]), k=rng.randint(0, 9))) for _ in range(30)]
            texts = [rng.choice([str.upper, str.lower, str.title, str])(text) for text in texts]
            # What the pattern itself says, as far as it is plain.
            texts += [pattern.pattern.replace("\\b", "").replace("(?:", "").replace("'?", "").replace("|", " ")]
            lines = Lines(texts)
            simple = [match for text in texts for match in pattern.finditer(text)]
            found = occurrences(pattern, lines)
            assert [(m.span(), m.string) for m in found if m.string in texts] == [
                (m.span(), m.string) for m in simple if found and found[0].string in texts
            ]
            assert [m[0] for m in found] == [m[0] for m in simple]
            assert lines.places(pattern) == [place for place, text in enumerate(texts) if pattern.search(text)]
            num_found += len(found)
    assert num_found > 100
