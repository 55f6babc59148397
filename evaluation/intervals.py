"""95 % bootstrap intervals for figures that are made from sums over reply pairs.

In: for every user an array of items, `(items, ...)`, whose columns are what a figure needs summed (nll, tokens,
cosine, 1, ... of one or of several systems); and a function from sums to figures. Out: resampled figures and their
2.5 and 97.5 percentiles. Not its job: which figures there are.

- A user's own figure: that user's items are drawn with replacement, as many as there are.
- An overall figure: first users are drawn with replacement, then items within every drawn user (a user who is drawn
  twice gets two independent draws of items). The unit is the user: 30 replies of one person are not 30 people. Drawing
  at both levels counts the noise within users twice, so the interval errs on the wide side, most where users hardly
  differ (Davison & Hinkley 1997, section 3.8).
- Two systems: their columns lie side by side in the same item, so every draw takes the same items of both, and the
  spread of a ratio or difference is that of the paired figure.

`scipy.stats.bootstrap` draws one level of exchangeable observations; it cannot draw items within users, nor share
its draws between several figures. So the drawing is ours, and the tests hold it against scipy where both apply.
Percentiles, not BCa: for two levels there is no agreed jackknife. The paper gives no intervals; all of this is ours.
"""

from collections.abc import Callable, Sequence

import numpy as np

MIN_UNITS = 5  # fewer users (or items of a user) can be drawn in too few ways for a 95 % interval to mean anything
LEVELS = (0.025, 0.975)
_BLOCK = 4_000_000  # numbers held in memory at a time

Statistic = Callable[[np.ndarray], np.ndarray]


def percentiles(figures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the 95 % interval, over the first axis (the resamples)."""
    low, high = np.quantile(figures, LEVELS, axis=0)
    return low, high


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
