"""Bootstrap intervals against scipy and the variance worked out on paper.

Tolerance: with 10,000 resamples an end of a percentile interval has a Monte Carlo error of about
sqrt(0.025 * 0.975 / 10000) / 0.058 = 0.027 standard errors; two such ends differ by 0.04, four sigma are 0.15.
"""

from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics import bootstrap as intervals
from evaluation.statistics.bootstrap import (
    MIN_UNITS,
    bca,
    jackknife_items,
    jackknife_users,
    percentiles,
    resample_items,
    resample_users,
)

B = 10_000
TOLERANCE = 0.15  # standard errors


def mean(sums):
    """Columns (value, 1) -> mean."""
    return sums[..., 0] / sums[..., 1]


def mean_of_user_means(sums):
    """(resamples, users, 2) -> macro mean."""
    return mean(sums).mean(axis=-1)


def with_count(values):
    return np.column_stack([values, np.ones(len(values))])


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
    monkeypatch.setattr(intervals, "_BLOCK", 6 * 7)
    assert resample_users(users, mean_of_user_means, 1000, seed=0).shape == (1000,)
    assert resample_items(users[0], mean, 1001, seed=0).shape == (1001,)
    monkeypatch.setattr(intervals, "_BLOCK", 1)
    assert resample_items(users[0], mean, 3, seed=0).shape == (3,)


def test_draws_do_not_depend_on_what_else_is_summed(monkeypatch):
    """A system has the same interval by itself and in a table of many."""
    monkeypatch.setattr(intervals, "_BLOCK", 100)  # several blocks
    users = [np.random.default_rng(i).normal(size=(6 + i, 30)) for i in range(6)]
    alone = [items[:, :1] for items in users]
    everything = resample_users(users, lambda sums: sums.sum(axis=1), 200, seed=0)
    one = resample_users(alone, lambda sums: sums.sum(axis=1), 200, seed=0)
    np.testing.assert_allclose(one, everything[:, :1], rtol=1e-12)
    everything = resample_items(users[0], lambda sums: sums, 200, seed=0)
    np.testing.assert_allclose(resample_items(alone[0], lambda sums: sums, 200, seed=0), everything[:, :1], rtol=1e-12)


@pytest.mark.parametrize("kept", [0, 10**9])
def test_resamples_are_sums_of_the_items_that_were_drawn(monkeypatch, kept):
    """Against the drawn items themselves, one after the other; some are infinite or not a number."""
    monkeypatch.setattr(intervals, "_KEPT", kept)
    random = np.random.default_rng(2)
    users = [random.normal(size=(size, 2, 2)) for size in (3, 7, 1, 30, 12)]
    users[1][2, 0, 1], users[3][5, 1, 1], users[4][0, 1, 0] = np.inf, np.nan, -np.inf
    random = np.random.default_rng(8)
    drawn = random.integers(5, size=(200, 5))
    expected = np.empty((200, 5, 2, 2))
    for index, items in enumerate(users):
        for place in np.argwhere(drawn == index):
            expected[tuple(place)] = sum(items[item] for item in random.integers(len(items), size=len(items)))
    np.testing.assert_allclose(resample_users(users, lambda sums: sums, 200, seed=8), expected, rtol=1e-12)
    random = np.random.default_rng(8)
    expected = [sum(users[3][item] for item in random.integers(30, size=30)) for _ in range(200)]
    np.testing.assert_allclose(resample_items(users[3], lambda sums: sums, 200, seed=8), expected, rtol=1e-12)


def test_too_few_units_give_no_interval():
    """Below five users, or five items of a user; one item per user is fine for the overall figure."""
    item = with_count(np.ones(1))
    assert resample_items(with_count(np.arange(MIN_UNITS - 1.0)), mean, 10, seed=0) is None
    assert resample_items(with_count(np.arange(float(MIN_UNITS))), mean, 10, seed=0) is not None
    assert resample_users([item] * (MIN_UNITS - 1), mean_of_user_means, 10, seed=0) is None
    assert resample_users([item] * MIN_UNITS, mean_of_user_means, 10, seed=0) is not None


def scipy_bca(data, statistic, figures, **settings):
    """scipy's BCa ends from *our* resamples: nothing differs but the arithmetic, so no room for resampling noise."""
    drawn = SimpleNamespace(bootstrap_distribution=figures)
    return stats.bootstrap(data, statistic, n_resamples=0, bootstrap_result=drawn, **settings).confidence_interval


def test_bca_of_several_figures_agrees_with_scipy():
    """Mean and paired ratio side by side, each with its own levels."""
    random = np.random.default_rng(4)
    base = random.gamma(1.0, size=40)
    lora = 0.8 * base**1.5 + random.gamma(0.1, size=40)

    def both(sums):
        return np.stack([sums[..., 0] / 40, sums[..., 0] / sums[..., 1]], axis=-1)

    def without_one(sums):
        return both(sums) * np.array([40 / 39, 1.0])

    items = np.column_stack([lora, base])
    figures = resample_items(items, both, B, seed=0)
    low, high = bca(figures, both(items.sum(axis=0)), jackknife_items(items, without_one))
    average = scipy_bca((lora,), np.mean, figures[:, 0])
    ratio = scipy_bca(
        (lora, base), lambda x, y, axis: x.sum(axis) / y.sum(axis), figures[:, 1], paired=True, vectorized=True
    )
    np.testing.assert_allclose((low[0], high[0]), average, rtol=1e-9)
    np.testing.assert_allclose((low[1], high[1]), ratio, rtol=1e-9)


def test_bca_over_users_agrees_with_scipy():
    """One level, scipy over the per-user means: the same jackknife."""
    random = np.random.default_rng(6)
    users = [with_count(random.normal(random.exponential(), 1.0, size=random.integers(5, 30))) for _ in range(24)]
    means = np.array([mean(items.sum(axis=0)) for items in users])
    figures = resample_users(users, mean_of_user_means, B, seed=0, draw_items=False)
    ours = bca(figures, means.mean(), jackknife_users(users, mean_of_user_means))
    np.testing.assert_allclose(ours, scipy_bca((means,), np.mean, figures), rtol=1e-9)


def test_jackknife_leaves_out_one_unit():
    """Means 1, 2 and 6 of 1, 2 and 1 items; micro sums 1, 4 and 6 over 4 items."""
    users = [with_count(np.array(values)) for values in ([1.0], [1.0, 3.0], [6.0])]
    np.testing.assert_allclose(jackknife_users(users, mean_of_user_means), [4.0, 3.5, 1.5])
    np.testing.assert_allclose(jackknife_users(users, lambda sums: mean(sums.sum(axis=1))), [10 / 3, 7 / 2, 5 / 3])
    np.testing.assert_allclose(jackknife_items(with_count(np.array([1.0, 2.0, 6.0])), mean), [4.0, 3.5, 1.5])


def test_bca_worked_out_by_hand():
    """Resamples 0, 1, ... 100, so that the quantile at level L is 100 L.

    Estimate 50: (50 + 51) / 202 = half of them below, z0 = 0. Estimate 84: (84 + 85) / 202 = Phi(0.980716).
    Jackknife -1, 1: a = 0. Jackknife 0, 0, 0, 4: d = 1, 1, 1, -3, a = -24 / (6 * 12 ** 1.5) = -0.096225.
    """
    figures, phi = np.arange(101.0), NormalDist().cdf
    assert bca(figures, 50.0, np.array([-1.0, 1.0])) == pytest.approx((2.5, 97.5))
    # z0 + z0 -+ z = 1.961433 -+ 1.959964
    ends = bca(figures, 84.0, np.array([-1.0, 1.0]))
    assert ends == pytest.approx((100 * phi(0.001469), 100 * phi(3.921397)), abs=1e-3)
    # -1.959964 / (1 - 0.096225 * 1.959964) = -2.415526; 1.959964 / (1 + 0.096225 * 1.959964) = 1.648972
    ends = bca(figures, 50.0, np.array([0.0, 0.0, 0.0, 4.0]))
    assert ends == pytest.approx((100 * phi(-2.415526), 100 * phi(1.648972)), abs=1e-3)
    # 0.980716 - 0.979248 / (1 - 0.096225 * 0.979248) and 0.980716 + 2.940680 / (1 + 0.096225 * 2.940680)
    ends = bca(figures, 84.0, np.array([0.0, 0.0, 0.0, 4.0]))
    assert ends == pytest.approx((100 * phi(-0.100404), 100 * phi(3.272810)), abs=1e-3)


@pytest.mark.filterwarnings("error")
def test_bca_where_nothing_is_to_be_corrected():
    """Equal resamples, an estimate outside of them, not a number; each figure of one call by itself."""
    spread = np.arange(101.0)
    figures = np.column_stack([np.full(101, 7.0), spread, spread, np.full(101, np.nan)]).reshape(101, 4, 1)
    estimate = np.array([7.0, 200.0, -1.0, np.nan])[:, None]
    low, high = bca(figures, estimate, figures[:5])
    np.testing.assert_array_equal(low, np.array([7.0, 2.5, 2.5, np.nan])[:, None])
    np.testing.assert_array_equal(high, np.array([7.0, 97.5, 97.5, np.nan])[:, None])
    assert bca(spread, 50.0, np.ones(5)) == pytest.approx((2.5, 97.5))  # no unit makes a difference
