"""95 % bootstrap intervals for figures that are made from sums over reply pairs.

In: for every user an array of items, `(items, ...)`, whose columns are what a figure needs summed (nll, tokens,
cosine, 1, ... of one or of several systems); and a function from sums to figures. Out: resampled figures, jackknifed
figures, and the two ends of an interval. Not its job: which figures there are.

- A user's own figure: that user's items are drawn with replacement, as many as there are.
- An overall figure: first users are drawn with replacement, then items within every drawn user (a user who is drawn
  twice gets two independent draws of items). The unit is the user: 30 replies of one person are not 30 people. Drawing
  at both levels counts the noise within users twice, so the interval errs on the wide side, most where users hardly
  differ (Davison & Hinkley 1997, section 3.8).
- Two systems: their columns lie side by side in the same item, so every draw takes the same items of both, and the
  spread of a ratio or difference is that of the paired figure.

Intervals are BCa, bias-corrected and accelerated (Efron 1987; Efron & Tibshirani 1993, chapter 14), which matters
here because perplexity is convex: resampled ones lie above the estimate on average. `percentiles` are for figures
without a jackknife.

For two levels there is no agreed jackknife. Ours leaves out one user with all items, which is right for users drawn
alone. The bias correction comes from the resamples and so knows both levels; the acceleration knows noise within users
only as part of each user's sums, and not that drawing items counts it twice. So an overall interval is corrected for
bias and for skewness among users, without the second-order accuracy that BCa has for one level.

`scipy.stats.bootstrap` draws one level of exchangeable observations; it cannot draw items within users, nor share
its draws between several figures. So the drawing is ours, and the tests hold it against scipy where both apply.
The paper gives no intervals; all of this is ours.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtr, ndtri

MIN_UNITS = 5  # fewer users (or items of a user) can be drawn in too few ways for a 95 % interval to mean anything
LEVELS = (0.025, 0.975)
_BLOCK = 4_000_000  # numbers held in memory at a time

Statistic = Callable[[np.ndarray], np.ndarray]


def percentiles(figures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the 95 % interval, over the first axis (the resamples)."""
    low, high = np.quantile(figures, LEVELS, axis=0)
    return low, high


def bca(figures: np.ndarray, estimate: np.ndarray, jackknife: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the 95 % BCa interval, for every figure by itself.

    With Phi the normal distribution, z0 = Phi^-1(share of resamples below the estimate, equal ones count half),
    d_i = (mean of the jackknife) - (figure without unit i) and a = sum d_i^3 / (6 (sum d_i^2)^1.5), an end is the
    quantile of the resamples at Phi(z0 + (z0 + z) / (1 - a (z0 + z))) instead of Phi(z), z = -1.96 and 1.96.

    Where that says nothing, an end is the plain percentile: an estimate outside all resamples (z0 infinite), or one
    unit that decides nearly alone (the denominator reaches 0). Units that make no difference give a = 0.

    Args:
        figures: Resampled, `(resamples, *figures)`.
        estimate: From the data as they are, `(*figures)`.
        jackknife: With one unit left out, `(units, *figures)`.

    Returns:
        Two arrays `(*figures)`; NaN where resamples are, or where an end is infinite.
    """
    z0 = ndtri(((figures < estimate).mean(axis=0) + (figures <= estimate).mean(axis=0)) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        differences = jackknife.mean(axis=0) - jackknife
        acceleration = np.nan_to_num((differences**3).sum(axis=0) / (6 * (differences**2).sum(axis=0) ** 1.5))
        low, high = (_quantiles(figures, _level(level, z0, acceleration)) for level in LEVELS)
    return low, high


def _level(level: float, z0: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
    shifted = z0 + ndtri(level)
    stretch = 1 - acceleration * shifted
    return np.where(np.isfinite(z0) & (stretch > 0), ndtr(z0 + shifted / stretch), level)


def _quantiles(figures: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Of every figure the quantile at its own level."""
    columns = zip(figures.reshape(len(figures), -1).T, levels.flat, strict=True)
    return np.array([np.quantile(column, level) for column, level in columns]).reshape(levels.shape)


def jackknife_items(items: np.ndarray, statistic: Statistic) -> np.ndarray:
    """One user's figures with one item left out at a time, `(items, *figures)`; arguments as in `resample_items`."""
    return statistic(items.sum(axis=0) - items)


def jackknife_users(users: Sequence[np.ndarray], statistic: Statistic) -> np.ndarray:
    """Overall figures with one user left out at a time, `(users, *figures)`; arguments as in `resample_users`."""
    totals = np.stack([items.sum(axis=0) for items in users])  # (users, *columns)
    return np.concatenate([statistic(np.delete(totals, index, axis=0)[None]) for index in range(len(totals))])


def resample_items(items: np.ndarray, statistic: Statistic, num_resamples: int, seed: int) -> np.ndarray | None:
    """Resamples one user's figures over that user's items.

    Args:
        items: `(items, *columns)`.
        statistic: Maps sums `(resamples, *columns)` to figures `(resamples, *figures)`.
        num_resamples: Number of resamples.
        seed: Same seed, same intervals.

    Returns:
        `(num_resamples, *figures)`, or None with fewer than `MIN_UNITS` items.
    """
    if len(items) < MIN_UNITS:
        return None
    random = np.random.default_rng(seed)
    blocks = _blocks(num_resamples, items.size)
    return np.concatenate([statistic(_draw_sums(items, size, random)) for size in blocks])


def resample_users(
    users: Sequence[np.ndarray], statistic: Statistic, num_resamples: int, seed: int, draw_items: bool = True
) -> np.ndarray | None:
    """Resamples overall figures over users, and over items within the users drawn.

    Args:
        users: Per user `(items, *columns)`, same columns for all.
        statistic: Maps sums per drawn user `(resamples, users, *columns)` to figures `(resamples, *figures)`.
        num_resamples: Number of resamples.
        seed: Same seed, same intervals.
        draw_items: False keeps every drawn user's items as they are (one level only).

    Returns:
        `(num_resamples, *figures)`, or None with fewer than `MIN_UNITS` users.
    """
    if len(users) < MIN_UNITS:
        return None
    random = np.random.default_rng(seed)
    totals = np.stack([items.sum(axis=0) for items in users])  # (users, *columns)
    figures = []
    for size in _blocks(num_resamples, max(totals.size, *(items.size for items in users))):
        drawn = random.integers(len(users), size=(size, len(users)))
        sums = totals[drawn]  # (size, users, *columns)
        if draw_items:
            for index, items in enumerate(users):
                where = drawn == index
                sums[where] = _draw_sums(items, int(where.sum()), random)
        figures.append(statistic(sums))
    return np.concatenate(figures)


def _draw_sums(items: np.ndarray, num_resamples: int, random: np.random.Generator) -> np.ndarray:
    chosen = random.integers(len(items), size=(num_resamples, len(items)))
    return items[chosen].sum(axis=1)  # (num_resamples, *columns)


def _blocks(num_resamples: int, numbers_per_resample: int) -> list[int]:
    size = max(1, min(num_resamples, _BLOCK // numbers_per_resample))
    return [min(size, num_resamples - start) for start in range(0, num_resamples, size)]
