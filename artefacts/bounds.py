"""Values that settings may have: an object declares bounds of its attributes, and all that is wrong is said at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Bounds(NamedTuple):
    """Numbers within these limits; NaN is within none."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, value: Any) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
            and value == value
        )

    def __str__(self) -> str:
        words = {"at least": self.least, "more than": self.above, "at most": self.most, "less than": self.below}
        return " and ".join(f"{word} {limit:,}" for word, limit in words.items() if limit is not None)


AT_LEAST_1 = Bounds(least=1)
SHARE = Bounds(least=0, most=1)
PART = Bounds(above=0, below=1)


def require(owner: object, problems: Iterable[str] = (), **bounds: Bounds) -> None:
    """ValueError with these problems and all attributes of an object that are out of bounds; None is always allowed."""
    values = {name: value for name in bounds if (value := getattr(owner, name)) is not None}
    wrong = [
        f"{name} is {value}, expected {bounds[name]}" for name, value in values.items() if value not in bounds[name]
    ]
    if wrong := [*wrong, *problems]:
        raise ValueError(f"{type(owner).__name__}: {'; '.join(wrong)}")
