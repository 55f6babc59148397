"""Ranges of settings: all that is wrong with an object is said at once."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self


class Range(NamedTuple):
    """Finite numbers from `low` to `high`, which `above` and `below` leave out; with `optional` None too."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    optional: bool = False

    def or_none(self) -> Self:
        """The same range and None."""
        return self._replace(optional=True)

    def has(self, value: Any) -> bool:
        """Is the value one of this range? NaN and infinity never are."""
        if value is None:
            return self.optional
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        is_end = (self.above and value == self.low) or (self.below and value == self.high)
        return self.low <= value <= self.high and not is_end

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:,}" if self.above else f"{self.low:,} or more"
        return (
            f"{'above' if self.above else 'at least'} {self.low:,} and "
            f"{'below' if self.below else 'at most'} {self.high:,}"
        )


AT_LEAST_0 = Range(0)
AT_LEAST_1 = Range(1)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)
POSITIVE_SHARE = Range(0, 1, above=True)
PART = Range(0, 1, above=True, below=True)


def require(settings: Mapping[str, Any], problems: Iterable[str] = (), **ranges: Range) -> None:
    """Checks settings, often `vars(self)`; ValueError names all that are out of range, and further problems."""
    outside = [
        f"{name} must be {expected}, got {settings[name]}"
        for name, expected in ranges.items()
        if not expected.has(settings[name])
    ]
    if wrong := [*outside, *problems]:
        raise ValueError("; ".join(wrong))
