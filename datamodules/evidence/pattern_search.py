"""Where patterns occur in many short texts: the matches of a search through each text for itself, but faster.

A pattern may need certain letters, such as `wife`, which most texts do not have. Plain text is found tens of times
faster than a pattern, so it is looked for first, in all texts at once; the pattern searches only the texts that have
it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from itertools import accumulate

LOOKS_AROUND = re.compile(r"\(\?[=!<]|\\[AZ]")
LOOKS_AT_TEXT = re.compile(
    r"\(\?<?[=!](\[[^]\\]+\]|[^][(){}\\.*+?|^$\n]+)\)(?![*+?{])"
)  # at a text, or at one of some characters
STRANGE = re.compile("[ſİı]")
"""What a pattern may match where it has an s or i, whatever the case, and that in lower case is neither."""


def literals(strings: Iterable[str]) -> tuple[str, ...]:
    """Strings as a text in lower case has them; none where one is empty, or has letters with other forms than two."""
    lower = tuple(string.lower() for string in strings)
    return lower if all(string and all(map(_has_two_forms, string)) for string in lower) else ()


@cache
def _has_two_forms(character: str) -> bool:
    return character.isascii() or character.lower() == character.upper() == character.casefold()


class Lines:
    """Texts to search in, each for itself."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self._containing: dict[str, frozenset[int]] = {}

    @cached_property
    def joined(self) -> str:
        return "\n".join(self.texts)

    @cached_property
    def _lower(self) -> tuple[str, list[int]]:
        """All texts in lower case, and where each of them begins, and where one more would."""
        lower = [text.lower() for text in self.texts]
        return "\n".join(lower), list(accumulate((len(text) + 1 for text in lower), initial=0))

    @cached_property
    def _strange(self) -> frozenset[int]:
        return frozenset(number for number, text in enumerate(self.texts) if STRANGE.search(text))

    def matching(self, pattern: re.Pattern[str], needs: Sequence[str] = ()) -> list[int]:
        """Numbers of the texts in which a pattern occurs; `needs` as in `Pattern`."""
        numbers = self.having(needs) if needs else range(len(self.texts))
        return [number for number in numbers if pattern.search(self.texts[number])]

    def having(self, needs: Iterable[str]) -> list[int]:
        """Numbers of all texts that may have one of these strings, in their order."""
        return sorted(self._strange.union(*map(self._with, needs)))

    def _with(self, string: str) -> frozenset[int]:
        if string not in self._containing:
            lower, starts = self._lower
            numbers = []
            while (start := lower.find(string, starts[numbers[-1] + 1] if numbers else 0)) >= 0:
                numbers.append(bisect_right(starts, start) - 1)
            self._containing[string] = frozenset(numbers)
        return self._containing[string]


def occurrences(pattern: re.Pattern[str], lines: Lines, needs: Sequence[str] = ()) -> list[re.Match[str]]:
    """Where a pattern occurs, never from one text into the next; `needs` as in `Pattern`."""
    if needs:
        return [match for number in lines.having(needs) for match in pattern.finditer(lines.texts[number])]
    # One search through all texts is several times faster than one for each, but right only where nothing looks
    # beyond a line's end.
    if stays_in_line(pattern):
        matches = list(pattern.finditer(lines.joined))
        if not any("\n" in match[0] for match in matches):
            return matches
    return [match for text in lines.texts for match in pattern.finditer(text)]


@cache
def stays_in_line(pattern: re.Pattern[str]) -> bool:
    """Whether a line's end looks to a pattern as a text's end: all that it looks around for are texts without one."""

    def without(look: re.Match[str]) -> str:
        return look[0] if re.search(look[1], "\n") else ""

    return not LOOKS_AROUND.search(LOOKS_AT_TEXT.sub(without, pattern.pattern))
