"""Where regular expressions occur in many short texts, found fast.

In: a pattern, texts. Out: its matches, exactly those of a search through each text for itself.

Most patterns need some letters to be there, such as `my wife`, and most texts do not have them. Plain text is found
tens of times faster than a pattern, so it is looked for first, in all texts at once, and the pattern then searches
only the texts that have it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from itertools import product
from re import _constants as ops  # type: ignore[attr-defined]  # there is no public parser of patterns
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

LOOKS_AROUND = re.compile(r"\(\?[=!<]|\\[AZ]")
LOOKS_AT_TEXT = re.compile(
    r"\(\?<?[=!](\[[^]\\]+\]|[^][(){}\\.*+?|^$\n]+)\)(?![*+?{])"
)  # at a text, or at one of some characters
STRANGE = re.compile("[ſİı]")
"""What a pattern may find where it says s or i, whatever the case, and that in lower case is neither."""

MAX_STRINGS = 64
"""Longer lists of what a part of a pattern matches are split, so that few texts have to be looked for."""

Needed = tuple[frozenset[Any], ...]
"""What a text must have: of each set something, which is a string in lower case or itself a `Needed`."""


class Lines:
    """Texts to search in, each for itself.

    Args:
        texts: in their order.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self._having: dict[str, frozenset[int]] = {}

    @cached_property
    def joined(self) -> str:
        """All texts, a line end between them."""
        return "\n".join(self.texts)

    @cached_property
    def _lower(self) -> tuple[str, list[int]]:
        """All texts in lower case, and where each of them begins."""
        lower = [text.lower() for text in self.texts]
        starts, start = [], 0
        for text in lower:
            starts.append(start)
            start += len(text) + 1
        return "\n".join(lower), starts

    @cached_property
    def _strange(self) -> frozenset[int]:
        if not STRANGE.search(self.joined):
            return frozenset()
        return frozenset(place for place, text in enumerate(self.texts) if STRANGE.search(text))

    def places(self, pattern: re.Pattern[str]) -> list[int]:
        """The places of the texts in which a pattern occurs."""
        needed = needed_by(pattern)
        places = self.having(needed) if needed else range(len(self.texts))
        return [place for place in places if pattern.search(self.texts[place])]

    def having(self, needed: Needed) -> list[int]:
        """The places of all texts that may have what is needed."""
        return sorted(self._satisfying(needed) | self._strange)

    def _satisfying(self, needed: Needed) -> frozenset[int]:
        left: frozenset[int] | None = None
        for one_of in needed:
            found = frozenset().union(
                *(self._with(one) if isinstance(one, str) else self._satisfying(one) for one in one_of)
            )
            left = found if left is None else left & found
            if not left:
                return left
        return left

    def _with(self, string: str) -> frozenset[int]:
        known = self._having.get(string)
        if known is None:
            lower, starts = self._lower
            found = []
            at = lower.find(string)
            while at >= 0:
                place = bisect_right(starts, at) - 1
                found.append(place)
                at = lower.find(string, starts[place + 1]) if place + 1 < len(starts) else -1
            known = self._having[string] = frozenset(found)
        return known


def occurrences(pattern: re.Pattern[str], lines: Lines) -> list[re.Match[str]]:
    """Where a pattern occurs, never from one text into the next."""
    if needed := needed_by(pattern):
        return [match for place in lines.having(needed) for match in pattern.finditer(lines.texts[place])]
    # One search through all texts is several times faster than one for each, but only where nothing looks beyond a
    # line's end.
    if stays_in_line(pattern):
        found = list(pattern.finditer(lines.joined))
        if not any("\n" in match[0] for match in found):
            return found
    return [match for text in lines.texts for match in pattern.finditer(text)]


@cache
def stays_in_line(pattern: re.Pattern[str]) -> bool:
    """Whether a line's end looks to a pattern as a text's end: all that it looks around for are texts without one."""

    def without(look: re.Match[str]) -> str:
        return look[0] if re.search(look[1], "\n") else ""

    return not LOOKS_AROUND.search(LOOKS_AT_TEXT.sub(without, pattern.pattern))


@cache
def needed_by(pattern: re.Pattern[str]) -> Needed:
    """What a text must have for the pattern to occur in it; empty where that cannot be said."""
    return _of_sequence(parser.parse(pattern.pattern, pattern.flags))[1]


Part = tuple[frozenset[str] | None, Needed]
"""Of a part of a pattern all strings that it matches, None where these are too many; and what it needs."""

UNKNOWN: Part = (None, ())


def _of_sequence(nodes: Iterable[tuple[Any, Any]]) -> Part:
    """One part after the other: strings grow together as long as they are known."""
    run, needed, is_exact = frozenset([""]), [], True
    for op, argument in nodes:
        strings, also = _of_node(op, argument)
        if strings is not None and len(run) * len(strings) <= MAX_STRINGS:
            run = _joined(run, strings)
            continue
        is_exact = False
        first, last = _ends(op, argument) if strings is None else (None, strings)
        if first is not None and len(run) * len(first) <= MAX_STRINGS:
            run = _joined(run, first)
        needed += [run, *also]
        run = last if last is not None else frozenset([""])
    needed = [one for one in [*needed, run] if "" not in one]
    useful = [one for one in needed if not any(isinstance(string, str) and _is_letter(string) for string in one)]
    # The shortest list first: mostly there is nothing of it, and that is the end.
    return run if is_exact else None, tuple(sorted(dict.fromkeys(useful), key=len))


def _is_letter(string: str) -> bool:
    """Whether it is one letter or digit, which nearly every text has."""
    return len(string) == 1 and string.isascii() and string.isalnum()


def _of_node(op: Any, argument: Any) -> Part:
    if op is ops.LITERAL:
        return _exactly([chr(argument)])
    if op is ops.IN:
        return _exactly(_characters(argument))
    if op in (ops.AT, ops.ASSERT, ops.ASSERT_NOT):
        return _exactly([""])
    if op is ops.SUBPATTERN:
        return _of_sequence(argument[-1])
    if op is ops.ATOMIC_GROUP:
        return _of_sequence(argument)
    if op is ops.BRANCH:
        return _of_branch([_of_sequence(branch) for branch in argument[1]])
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
        least, most, body = argument
        strings, needed = _of_sequence(body)
        if (least, most) == (0, 1) and strings is not None:
            return _exactly([*strings, ""])
        return None, needed if least and strings is None else ()
    return UNKNOWN


def _ends(op: Any, argument: Any) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """What something that repeats known strings begins with, and what it ends with."""
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT) and argument[0]:
        strings, _ = _of_sequence(argument[2])
        if strings is not None:
            first = strings
            for _ in range(min(argument[0], 3) - 1):
                first = _joined(first, strings) if len(first) * len(strings) <= MAX_STRINGS else first
            return first, strings
    return None, None


def _of_branch(parts: Sequence[Part]) -> Part:
    if all(strings is not None for strings, _ in parts):
        return _exactly([string for strings, _ in parts for string in strings])
    if all(needed for _, needed in parts):
        return None, (frozenset(needed for _, needed in parts),)
    return UNKNOWN


def _characters(members: Sequence[tuple[Any, Any]]) -> list[str] | None:
    found: list[str] = []
    for op, argument in members:
        if op is ops.LITERAL:
            found.append(chr(argument))
        elif op is ops.RANGE and argument[1] - argument[0] < MAX_STRINGS:
            found += map(chr, range(argument[0], argument[1] + 1))
        else:
            return None
    return found


def _exactly(strings: Sequence[str] | None) -> Part:
    """Known strings, if their letters have no other forms than upper and lower case."""
    if strings is None or not all(map(_is_plain, "".join(strings))):
        return UNKNOWN
    found = frozenset(string.lower() for string in strings)
    return found, (() if "" in found or any(map(_is_letter, found)) else (found,))


@cache
def _is_plain(character: str) -> bool:
    return character.isascii() or character.lower() == character.upper() == character.casefold()


def _joined(left: Iterable[str], right: Iterable[str]) -> frozenset[str]:
    return frozenset(one + other for one, other in product(left, right))
