"""A fast search finds what a search through each text finds, and every match has what its pattern needs."""

import random
import re
import sys
from pathlib import Path

import pytest

from datamodules.evidence.language_file import load_language
from datamodules.evidence.pattern_search import STRANGE, Lines, literals, occurrences

LANGUAGES = Path(__file__).parents[3] / "experiments" / "profiles"
ESCAPES = {"b": "", "w": "x", "d": "7", "s": " "}
MEANING = "|?*+{}()[]\\^$."
HIDE = str.maketrans({character: chr(0xE000 + number) for number, character in enumerate(MEANING)})
SHOW = str.maketrans({hidden: chr(character) for character, hidden in HIDE.items()})
ATOM = re.compile(r"\\(.)|\[(\^?)((?:\\.|[^\]\\])+)\]|\.|[\^$]")
TIMES = r"[?*+]|\{\d+,\d*\}"
GROUP = re.compile(rf"\((\?:|\?<?[=!])?([^()]*)\)({TIMES})?")


def patterns_of(name):
    language = load_language(LANGUAGES / f"{name}.yaml")
    found = [*language.forms.values()]
    for attribute in language.attributes.values():
        found += [pattern for by_value in attribute.patterns.values() for pattern in by_value.values()]
        found += [*attribute.places.values(), *([attribute.any_name] if attribute.places else [])]
    return found


def example(pattern, rng):
    """A text made from a pattern by random choices; mostly it matches, but for what the pattern looks around for."""

    def atom(found):
        escaped, negated, members = found.groups()
        if escaped:
            return ESCAPES.get(escaped, escaped).translate(HIDE)
        if members is None or negated:
            return "" if found[0] in "^$" else "x"
        members = re.sub(r"\\(.)", r"\1", members)
        members = re.sub(r"(.)-(.)", lambda ends: "".join(map(chr, range(ord(ends[1]), ord(ends[2]) + 1))), members)
        return rng.choice(members).translate(HIDE)

    def times(text, quantifier):
        least, most = {None: (1, 1), "?": (0, 1), "*": (0, 2), "+": (1, 3)}.get(quantifier, (0, 0))
        if quantifier and quantifier[0] == "{":
            least, most = (int(number or 3) for number in quantifier[1:-1].split(","))
        return text * rng.randint(least, most)

    def chosen(text):
        return re.sub(rf"(.)({TIMES})\??", lambda found: times(found[1], found[2]), rng.choice(text.split("|")))

    text = ATOM.sub(atom, pattern)
    while group := GROUP.search(text):
        kind, inside, quantifier = group.groups()
        made = times(chosen(inside), quantifier) if kind in (None, "?:") else ""
        text = text[: group.start()] + made + text[group.end() :]
    return chosen(text).translate(SHOW)


def pieces(patterns):
    """Literal parts of patterns, and what may stand around them."""
    words = {word for pattern in patterns for word in re.findall(r"[^\W_]+", pattern.pattern)}
    return [*sorted(words), *" '.,!?\n", "İ", "ſ", "ı", "I'm ", "i am ", "ha", "ll", "9", "年", "から", "😀"]


def test_letters_are_found_in_all_their_forms():
    everything = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]
    joined = "".join(everything)
    for letter in map(chr, range(128)):
        for found in re.findall(re.escape(letter), joined, re.IGNORECASE):
            assert found.lower() == letter.lower() or STRANGE.search(found)
    caseless = "大阪がーゔ！。、漢"
    assert literals([caseless, "My Wife"]) == (caseless, "my wife")
    assert [found for found in re.findall(f"[{caseless}]", joined, re.IGNORECASE) if found not in caseless] == []


@pytest.mark.parametrize("strings", [["gießen"], ["fiancé"], ["tea", ""], []])
def test_no_search_for_letters_of_several_forms_or_for_nothing(strings):
    assert literals(strings) == ()


@pytest.mark.parametrize("name", ["en", "ja"])
def test_every_match_has_what_its_pattern_needs(name):
    rng, needing = random.Random(3), [pattern for pattern in patterns_of(name) if pattern.needs]
    assert len(needing) > 10
    for pattern in needing:
        searched = pattern.asked or pattern.said
        texts = [example(searched.pattern, rng) for _ in range(200)]
        matches = [match for text in texts for match in searched.finditer(text)]
        assert len(matches) > 50
        assert [match for match in matches if not any(string in match[0].lower() for string in pattern.needs)] == []


@pytest.mark.parametrize("name", ["en", "ja"])
def test_patterns_occur_where_a_simple_search_finds_them(name):
    both = [(searched, pattern) for pattern in patterns_of(name) for searched in (pattern.said, pattern.asked)]
    searches = [
        (searched, pattern.needs if searched is (pattern.asked or pattern.said) else ())
        for searched, pattern in both
        if searched is not None
    ]
    parts, rng, num_found = pieces([searched for searched, _ in searches]), random.Random(4), 0
    for searched, needs in searches:
        own = pieces([searched])
        for _ in range(3):
            texts = ["".join(rng.choices(rng.choice([own, parts]), k=rng.randint(0, 9))) for _ in range(30)]
            texts += [example(searched.pattern, rng) for _ in range(5)]
            texts = [rng.choice([str.upper, str.lower, str.title, str])(text) for text in texts]
            lines = Lines(texts)
            simple = [match[0] for text in texts for match in searched.finditer(text)]
            assert [match[0] for match in occurrences(searched, lines, needs)] == simple
            numbers = [number for number, text in enumerate(texts) if searched.search(text)]
            assert lines.matching(searched, needs) == numbers
            num_found += len(simple)
    assert num_found > 500
