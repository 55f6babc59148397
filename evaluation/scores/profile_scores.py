"""Inferred profiles against what people declare; the paper gives none of these figures.

    chunk       share of right values over a user's chunks, mean over users
    user        share of users whose value is right
    ECE         expected calibration error of the values decided on, in bins of equal width (Guo et al. 2017, eq. 3)
    at 50 %     share of right values among the half of the users that the system is surest of (ties by name)

Intervals are 95 % percentile bootstrap over users; a change is paired.
"""

from dataclasses import dataclass

import numpy as np

from evaluation.results.profile_judgements import Judgements
from evaluation.statistics.bootstrap import Bootstrap, percentiles, resample_items

COVERAGES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class ProfileScore:
    """A line of `table.csv`; an interval is None with too few users."""

    attribute: str
    system: str
    num_users: int
    majority: float
    chunk: float
    user: float
    user_low: float | None
    user_high: float | None
    change: float
    change_low: float | None
    change_high: float | None
    ece: float
    ece_low: float | None
    ece_high: float | None
    at_25: float
    at_50: float
    at_75: float


def profile_scores(
    systems: dict[str, dict[str, Judgements]], num_bins: int, bootstrap: Bootstrap
) -> list[ProfileScore]:
    """The figures of all systems, attribute by attribute; changes are against the first."""
    reference = next(iter(systems.values()))
    return [
        _score(attribute, name, judgements[attribute], reference[attribute], num_bins, bootstrap)
        for attribute in attributes_of(systems)
        for name, judgements in systems.items()
        if attribute in judgements
    ]


def attributes_of(systems: dict[str, dict[str, Judgements]]) -> list[str]:
    """All attributes that were judged; raises ValueError where the first system has no judgements of one."""
    attributes = list(dict.fromkeys(attribute for judgements in systems.values() for attribute in judgements))
    name, reference = next(iter(systems.items()))
    if alone := [attribute for attribute in attributes if attribute not in reference]:
        raise ValueError(f"{name} has no judgements of {alone}; put a system first that has them")
    return attributes


def _score(
    attribute: str, system: str, mine: Judgements, reference: Judgements, num_bins: int, bootstrap: Bootstrap
) -> ProfileScore:
    right = mine.right.astype(float)
    items = np.column_stack([right, right - reference.right, mine.bins(num_bins)])

    def statistic(sums: np.ndarray) -> np.ndarray:
        return np.column_stack([sums[:, :2], np.abs(sums[:, 2:]).sum(axis=1)]) / len(right)

    drawn = resample_items(items, statistic, bootstrap.num_resamples, bootstrap.seed)
    low, high = (None, None, None), (None, None, None)
    if drawn is not None:
        low, high = (ends.tolist() for ends in percentiles(drawn))
    user, change, ece = statistic(items.sum(axis=0, keepdims=True))[0].tolist()
    covered = mine.covered()
    at = [float(covered[max(1, round(share * len(covered))) - 1]) for share in COVERAGES]
    return ProfileScore(
        attribute, system, len(right), mine.majority, float(mine.chunks.mean()),
        user, low[0], high[0], change, low[1], high[1], ece, low[2], high[2], *at,
    )  # fmt: skip
