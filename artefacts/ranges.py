"""Ranges of settings: all that is wrong with an object is said at once."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Range(NamedTuple):
    """Finite numbers from `low` to `high`; with `above` without `low` itself, with `optional` None too."""

    low: float
    high: float = math.inf
    above: bool = False
    optional: bool = False

    def or_none(self) -> Self:
        """The same range and None."""
        return self._replace(optional=True)

    def has(self, value: Any) -> bool:
        """Is the value one of this range? NaN and infinity never are."""
        if value is None:
            return self.optional
        is_finite = isinstance(value, int | float) and math.isfinite(value)
        return is_finite and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"{'above' if self.above else 'at least'} {self.low} and at most {self.high}"
        return f"above {self.low}" if self.above else f"{self.low} or more"


AT_LEAST_0 = Range(0)
AT_LEAST_1 = Range(1)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)
POSITIVE_SHARE = Range(0, 1, above=True)


def require(settings: Mapping[str, Any], **ranges: Range) -> None:
    """Checks settings, often `vars(self)`, against their ranges; ValueError names all that are outside."""
    outside = [
        f"{name} must be {expected}, got {settings[name]}"
        for name, expected in ranges.items()
        if not expected.has(settings[name])
    ]
    if outside:
        raise ValueError("; ".join(outside))
