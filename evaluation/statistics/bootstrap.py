"""95 % bootstrap intervals for figures that are made from sums over reply pairs.

Every user has an array of items, `(items, ...)`, whose columns are what a figure needs summed (nll, tokens, cosine, 1,
... of one or of several systems); a statistic makes figures from sums.

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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

MIN_UNITS = 5  # fewer users (or items of a user) can be drawn in too few ways for a 95 % interval to mean anything
LEVELS = (0.025, 0.975)
_BLOCK = 60_000  # users or items in memory at a time; by these alone, so that draws do not depend on what is summed
_KEPT = 16_000_000  # bytes of draws that are kept for the next figures: 10,000 of 1,600 items

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Bootstrap:
    """How the intervals of a table are drawn: same seed, same intervals."""

    num_resamples: int
    seed: int

    def of_items(self, items: np.ndarray, statistic: Statistic, estimate: np.ndarray) -> np.ndarray:
        """BCa ends of one user's figures, `(2, *figures)`, None with too few items; arguments as `resample_items`."""
        drawn = resample_items(items, statistic, self.num_resamples, self.seed)
        return _ends(drawn, estimate, lambda: jackknife_items(items, statistic))

    def of_users(
        self, users: Sequence[np.ndarray], statistic: Statistic, estimate: np.ndarray, draw_items: bool = True
    ) -> np.ndarray:
        """BCa ends of overall figures, `(2, *figures)`, None with too few users; arguments as `resample_users`."""
        drawn = resample_users(users, statistic, self.num_resamples, self.seed, draw_items)
        return _ends(drawn, estimate, lambda: jackknife_users(users, statistic))


def _ends(drawn: np.ndarray | None, estimate: np.ndarray, jackknife: Callable[[], np.ndarray]) -> np.ndarray:
    if drawn is None:
        return np.full((2, *np.shape(estimate)), None)
    return np.stack(bca(drawn, estimate, jackknife()))


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
    draws = (_times(len(items), size, random) for size in _blocks(num_resamples, len(items)))
    return np.concatenate([statistic(_sums(items, times)) for times in draws])


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
    totals = np.stack([items.sum(axis=0) for items in users])  # (users, *columns)
    blocks = _blocks(num_resamples, max(len(users), *map(len, users)))
    figures = []
    draws = _kept_user_draws if num_resamples * sum(map(len, users)) <= _KEPT else _user_draws
    for drawn, times_of in draws(tuple(map(len, users)), blocks, seed, draw_items):
        sums = totals[drawn]  # (size, users, *columns)
        for index, times in enumerate(times_of):
            sums[drawn == index] = _sums(users[index], times)
        figures.append(statistic(sums))
    return np.concatenate(figures)


def _user_draws(
    sizes: tuple[int, ...], blocks: tuple[int, ...], seed: int, draw_items: bool
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Of every block the users drawn, `(size, users)`, and of every user how often their items come in each draw."""
    random = np.random.default_rng(seed)
    for size in blocks:
        drawn = random.integers(len(sizes), size=(size, len(sizes)))
        counts = [(drawn == index).sum() for index in range(len(sizes))] if draw_items else []
        yield drawn, [_times(sizes[index], int(count), random) for index, count in enumerate(counts)]


@lru_cache(maxsize=8)
def _kept_user_draws(*arguments: Any) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """The same for all systems and scores of a table, which have the same items; a byte for an item of a resample."""
    return list(_user_draws(*arguments))


def _times(num_items: int, num_resamples: int, random: np.random.Generator) -> np.ndarray:
    """How often each item is drawn, `(num_resamples, items)`; small numbers."""
    chosen = random.integers(num_items, size=(num_resamples, num_items))
    chosen += num_items * np.arange(num_resamples)[:, None]
    times = np.bincount(chosen.ravel(), minlength=num_resamples * num_items)
    return times.astype(np.min_scalar_type(times.max(initial=0))).reshape(num_resamples, num_items)


def _sums(items: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Sums of the items that were drawn, each as often as it was: `(num_resamples, *columns)`."""
    columns = items.reshape(len(items), -1)
    finite = np.isfinite(columns).all(axis=0)
    sums = times.astype(np.float64) @ np.where(finite, columns, 0)
    for column in np.flatnonzero(~finite):  # an item that was not drawn adds nothing, and 0 times infinity is none
        one = np.multiply(times, columns[:, column], where=times > 0, out=np.zeros(times.shape))
        sums[:, column] = one.sum(axis=1)
    return sums.reshape(len(times), *items.shape[1:])


def _blocks(num_resamples: int, units: int) -> tuple[int, ...]:
    size = max(1, min(num_resamples, _BLOCK // units))
    return tuple(min(size, num_resamples - start) for start in range(0, num_resamples, size))
