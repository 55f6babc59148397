"""Bootstrap intervals against scipy, the normal approximation and the variance worked out on paper.

Tolerance: with 10,000 resamples an end of a percentile interval has a Monte Carlo error of about
sqrt(0.025 * 0.975 / 10000) / 0.058 = 0.027 standard errors; two such ends differ by 0.04, four sigma are 0.15.
"""

import numpy as np
import pytest
from scipy import stats

from evaluation import intervals
from evaluation.intervals import MIN_UNITS, percentiles, resample_items, resample_users

B = 10_000
TOLERANCE = 0.15  # standard errors


def mean(sums):
    """Columns (value, 1) -> mean."""
    return sums[..., 0] / sums[..., 1]


def mean_of_user_means(sums):
    """(resamples, users, 2) -> macro mean."""
    return mean(sums).mean(axis=-1)


def with_count(values):
    """Adds the column of ones."""
    return np.column_stack([values, np.ones(len(values))])


def test_user_interval_agrees_with_scipy():
    """A skewed sample of 30 items."""
    values = np.random.default_rng(1).exponential(size=30)
    ours = percentiles(resample_items(with_count(values), mean, B, seed=0))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=B, method="percentile", rng=2).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * values.std() / np.sqrt(30))


def test_user_interval_agrees_with_the_normal_approximation():
    """400 items: mean +- 1.96 standard errors."""
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    error = values.std() / 20
    ours = percentiles(resample_items(with_count(values), mean, B, seed=0))
    np.testing.assert_allclose(ours, values.mean() + np.array([-1.96, 1.96]) * error, atol=TOLERANCE * error)


def test_paired_ratio_agrees_with_scipy():
    """Columns side by side are drawn together: the ratio of two correlated sums is much tighter than unpaired."""
    random = np.random.default_rng(4)
    base = random.gamma(4.0, size=40)
    lora = 0.8 * base + random.normal(0, 0.1, size=40)
    ours = resample_items(np.column_stack([lora, base]), mean, B, seed=0)
    theirs = stats.bootstrap(
        (lora, base), lambda x, y, axis: x.sum(axis) / y.sum(axis),
        paired=True, vectorized=True, n_resamples=B, method="percentile", rng=5,
    )  # fmt: skip
    np.testing.assert_allclose(
        percentiles(ours), theirs.confidence_interval, atol=TOLERANCE * float(theirs.standard_error)
    )
    assert np.ptp(percentiles(ours)) < 0.1


def test_one_level_over_users_agrees_with_scipy():
    """Users drawn, items left alone: scipy over the per-user means."""
    random = np.random.default_rng(6)
    users = [with_count(random.normal(random.normal(), 1.0, size=random.integers(5, 30))) for _ in range(24)]
    means = np.array([mean(items.sum(axis=0)) for items in users])
    ours = percentiles(resample_users(users, mean_of_user_means, B, seed=0, draw_items=False))
    theirs = stats.bootstrap((means,), np.mean, n_resamples=B, method="percentile", rng=7).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * means.std() / np.sqrt(24))


def test_two_levels_have_the_variance_worked_out_on_paper():
    """Var = (variance of user means + mean over users of their items' variance / items) / users."""
    random = np.random.default_rng(8)
    users = [with_count(random.normal(random.normal(), 3.0, size=random.integers(5, 30))) for _ in range(12)]
    between = np.var([items[:, 0].mean() for items in users])
    within = np.mean([items[:, 0].var() / len(items) for items in users])
    drawn = resample_users(users, mean_of_user_means, B, seed=0)
    assert drawn.std() == pytest.approx(np.sqrt((between + within) / 12), rel=0.04)  # a standard deviation: +-0.7 %
    one_level = resample_users(users, mean_of_user_means, B, seed=0, draw_items=False)
    assert one_level.std() == pytest.approx(np.sqrt(between / 12), rel=0.04)


def test_seed_decides_and_blocks_cover_all_resamples(monkeypatch):
    """Same seed, same figures; small memory blocks give as many resamples, also when they do not divide evenly."""
    users = [with_count(np.random.default_rng(i).normal(size=6)) for i in range(6)]
    first = resample_users(users, mean_of_user_means, 1000, seed=0)
    np.testing.assert_array_equal(first, resample_users(users, mean_of_user_means, 1000, seed=0))
    assert not np.array_equal(first, resample_users(users, mean_of_user_means, 1000, seed=1))
    monkeypatch.setattr(intervals, "_BLOCK", 12 * 7)
    assert resample_users(users, mean_of_user_means, 1000, seed=0).shape == (1000,)
    assert resample_items(users[0], mean, 1001, seed=0).shape == (1001,)
    monkeypatch.setattr(intervals, "_BLOCK", 1)
    assert resample_items(users[0], mean, 3, seed=0).shape == (3,)


def test_too_few_units_give_no_interval():
    """Below five users, or five items of a user; one item per user is fine for the overall figure."""
    item = with_count(np.ones(1))
    assert resample_items(with_count(np.arange(MIN_UNITS - 1.0)), mean, 10, seed=0) is None
    assert resample_items(with_count(np.arange(float(MIN_UNITS))), mean, 10, seed=0) is not None
    assert resample_users([item] * (MIN_UNITS - 1), mean_of_user_means, 10, seed=0) is None
    assert resample_users([item] * MIN_UNITS, mean_of_user_means, 10, seed=0) is not None
