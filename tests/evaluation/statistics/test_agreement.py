"""Alpha against the example with missing data in Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".

12 units, 4 observers; published are .743 for nominal and .815 for ordinal data. The further digits are those of
krippendorff 0.9.0 from PyPI, which also agreed on 200 random tables.
"""

import pytest

from evaluation.statistics.agreement import krippendorff_alpha

PUBLISHED = [
    (1, 1, 1), (2, 2, 3, 2), (3, 3, 3, 3), (3, 3, 3, 3), (2, 2, 2, 2), (1, 2, 3, 4),
    (4, 4, 4, 4), (1, 1, 2, 1), (2, 2, 2, 2), (5, 5, 5), (1, 1), (3,),
]  # fmt: skip


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743421), ("ordinal", 0.815388)])
def test_the_published_example(level, alpha):
    assert krippendorff_alpha(PUBLISHED, level) == pytest.approx(alpha, abs=1e-6)


def test_worked_by_hand():
    """Two annotators: (1, 1), (1, 2). Coincidences 11: 2, 12 and 21: 1; totals 3 and 1, n = 4.

    D_o = 2; D_e = 2 * 3 * 1 / 3 = 2 (any d, it is the same pair of values in both): alpha = 0.
    With (2, 2) besides: totals 3 and 3, n = 6: D_e = 2 * 9 / 5 = 3.6, alpha = 1 - 2 / 3.6 = 4 / 9.
    """
    for level in ("nominal", "ordinal"):
        assert krippendorff_alpha([(1, 1), (1, 2)], level) == pytest.approx(0.0)
        assert krippendorff_alpha([(1, 1), (1, 2), (2, 2)], level) == pytest.approx(4 / 9)


def test_ordinal_counts_what_lies_between_not_the_distance():
    """1, 2, 4 and 1, 2, 5 are the same order; 1 against 4 is worse than 1 against 2."""
    rest = [(2, 2), (1, 1)]
    near, far = [(1, 2), (4, 4), *rest], [(1, 4), (4, 2), *rest]
    same_order = [(1, 2), (5, 5), *rest]
    assert krippendorff_alpha(near, "ordinal") == krippendorff_alpha(same_order, "ordinal")
    assert krippendorff_alpha(near, "ordinal") > krippendorff_alpha(far, "ordinal")


def test_limits():
    assert krippendorff_alpha([(1, 1), (2, 2), (5, 5)], "ordinal") == 1.0
    assert krippendorff_alpha([(1, 2), (2, 1)], "nominal") == pytest.approx(1 - 4 / (8 / 3))  # worse than chance
    assert krippendorff_alpha([(3, 3), (3, 3)], "ordinal") is None  # 0 / 0
    assert krippendorff_alpha([(3,), (4,)], "nominal") is None  # nobody to agree with
