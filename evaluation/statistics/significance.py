"""Which system is best, and which others are not significantly worse.

The unit is the user. Systems are compared by Wilcoxon's signed rank test over the users' own figures, paired, against
the best; Holm's step-down keeps the chance of one false claim among all of them at 5 %. Things to know:

- The best is chosen by the same figures that are tested, so a system that only just came out on top is flattered.
  Hence two-sided p-values, as nobody said beforehand which would be best.
- A system can be best in the mean by a few users and lose with most. Then the test speaks for the other one, which is
  not called worse: its p is 1.
- "Not significantly worse" is not "as good": few users, or untested ones, show nothing. With 5 users the smallest
  possible p is 2 / 2^5 = 0.0625, so that it takes at least 6, and more where several systems are compared.

Wilcoxon's test is scipy's; scipy has no Holm. The paper tests nothing; all of this is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import wilcoxon

from evaluation.statistics.bootstrap import MIN_UNITS

ALPHA = 0.05
K = TypeVar("K")
_DECIMALS = 6  # users' figures that differ by less are tied: the same replies encoded in another batch differ by 1e-7


@dataclass(frozen=True)
class Column:
    """One figure of all systems."""

    users: Mapping[str, ArrayLike]  # system → the figure of every user, in the same order
    lower_is_better: bool
    overall: Mapping[str, float] | None = None  # the best is chosen by it; None: by the mean over users
    figure: str | None = None  # what is tested, where two columns test the same; it counts once


@dataclass(frozen=True)
class Standing:
    """How the systems stand in one figure."""

    best: str  # the first of equals
    p_values: dict[str, float | None]  # that a system is worse than the best, by Holm; None if not tested
    not_worse: tuple[str, ...]  # the others that were tested, and have an adjusted p of at least 0.05


def signed_rank(
    ours: ArrayLike, theirs: ArrayLike, alternative: Literal["two-sided", "less", "greater"] = "two-sided"
) -> float | None:
    """p-value of Wilcoxon's signed rank test over users, in one order; None with fewer than `MIN_UNITS` of them.

    Users without a difference speak for neither side and are left out (Wilcoxon's own way); without any difference p
    is 1. What is left is tested exactly up to 50 users, among whom ties in size up to 13 (all signs enumerated), and
    by the normal approximation, corrected for ties, beyond. The alternative is said of ours: less than theirs, greater.
    """
    differences = _differences(ours, theirs)
    if len(differences) < MIN_UNITS:
        return None
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences[differences != 0], alternative=alternative).pvalue)


def win_rate(ours: ArrayLike, theirs: ArrayLike, lower_is_better: bool) -> float:
    """Share of users for whom ours is better, a tie counting half; 0.5 is no difference."""
    gains = _differences(theirs, ours) if lower_is_better else _differences(ours, theirs)
    return float((1 + np.sign(gains)).mean() / 2)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Step-down adjusted p-values (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, ...; none may fall below a smaller one's, none exceeds 1.
    None stays None and does not count towards m.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    reached = 0.0
    for rank, (p, index) in enumerate(tested):
        reached = max(reached, min(1.0, p * (len(tested) - rank)))
        adjusted[index] = reached
    return adjusted


def against_best(columns: Mapping[K, Column]) -> dict[K, Standing]:
    """Finds the best system of every figure and tests the others against it; Holm over all figures together.

    Figures of fewer than two systems are left out: nothing to compare.
    """
    best: dict[K, str] = {}
    tests: dict[tuple[Any, str, str], float | None] = {}  # figure, system, the best one -> p
    for key, column in columns.items():
        if len(column.users) < 2:
            continue
        overall = column.overall or {name: float(np.mean(values)) for name, values in column.users.items()}
        best[key] = top = (min if column.lower_is_better else max)(column.users, key=overall.__getitem__)
        worse = "greater" if column.lower_is_better else "less"
        for name, values in column.users.items():
            if name != top:
                p = signed_rank(values, column.users[top], worse)
                tests[column.figure or key, name, top] = None if p is None else min(1.0, 2 * p)
    adjusted = dict(zip(tests, holm(list(tests.values())), strict=True))
    standings = {}
    for key, top in best.items():
        column = columns[key]
        p_values = {name: adjusted[column.figure or key, name, top] for name in column.users if name != top}
        not_worse = tuple(name for name, p in p_values.items() if p is not None and p >= ALPHA)
        standings[key] = Standing(top, p_values, not_worse)
    return standings


def _differences(ours: ArrayLike, theirs: ArrayLike) -> np.ndarray:
    """Ours minus theirs per user, exactly 0 for ties; raises ValueError for other users, or one without a figure."""
    one, two = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if one.ndim != 1 or one.shape != two.shape:
        raise ValueError(f"expected one figure per user of both systems, got shapes {one.shape} and {two.shape}")
    if np.isnan(one).any() or np.isnan(two).any():
        raise ValueError("a user's figure is not a number; leave out systems that lack it")
    equal = one == two  # also where both are infinite
    return np.round(np.subtract(one, two, where=~equal, out=np.zeros_like(one)), _DECIMALS)
