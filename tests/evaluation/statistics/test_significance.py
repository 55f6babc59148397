"""Tests between systems: p-values by enumeration, Holm by hand, who is best and who is not worse."""

from itertools import product

import numpy as np
import pytest

from evaluation.scores.figure import Score
from evaluation.scores.standings import standings_of
from evaluation.statistics.significance import Column, Standing, against_best, holm, signed_rank, win_rate


def enumerated(ranks, positive, alternative):
    """Exact p: of all ways to give the ranks signs, the share whose positive rank sum is at least as extreme."""
    half = sum(ranks) / 2
    sums = np.array(
        [sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=len(ranks))]
    )
    return {
        "two-sided": np.mean(np.abs(sums - half) >= abs(positive - half)),
        "less": np.mean(sums <= positive),
        "greater": np.mean(sums >= positive),
    }[alternative]


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize(
    ("differences", "ranks", "positive"),
    [
        ([1, -2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], 19),
        ([1, 2, 2, 3, 4, -1], [1.5, 3.5, 3.5, 5, 6, 1.5], 19.5),  # ties share the mean of their ranks
        ([0, 0, -3, 1, 2, 4], [3, 1, 2, 4], 7),  # users without a difference are left out
    ],
)
def test_p_values_agree_with_enumeration(differences, ranks, positive, alternative):
    theirs = np.linspace(40, 50, len(differences))
    p = signed_rank(theirs + differences, theirs, alternative)
    assert p == pytest.approx(enumerated(ranks, positive, alternative))


def test_six_users_on_one_side():
    """Two of 2 ** 6 ways are as extreme, 0.03125; with five users it is 0.0625, with four there is no test."""
    base = np.array([84.0, 71.0, 60.0, 90.0, 120.0, 55.0])
    lora = base - [1, 2, 3, 4, 5, 6]
    assert signed_rank(lora, base) == 2 / 64
    assert signed_rank(lora, base, "less") == 1 / 64
    assert signed_rank(lora[:5], base[:5]) == 2 / 32
    assert signed_rank(lora[:4], base[:4]) is None
    # Nine more without a difference: the six alone decide, and not a normal approximation.
    assert signed_rank([0.0] * 9 + [1.0] * 6, np.zeros(15)) == 2 / 64


@pytest.mark.filterwarnings("error")
def test_no_difference_is_no_evidence():
    """All users alike, also where both are infinite or differ by the noise of single precision."""
    assert signed_rank(np.ones(30), np.ones(30)) == 1.0
    assert signed_rank([np.inf] * 6, [np.inf] * 6) == 1.0
    assert signed_rank(np.full(6, 0.5) + 1e-7, np.full(6, 0.5)) == 1.0
    assert win_rate([0.5 + 1e-7], [0.5], lower_is_better=False) == 0.5


def test_win_rate_counts_ties_half():
    """Better, better, tie, worse: 2.5 of 4."""
    ours, theirs = [3.0, 2.0, 5.0, 1.0], [1.0, 1.0, 5.0, 2.0]
    assert win_rate(ours, theirs, lower_is_better=False) == 0.625
    assert win_rate(ours, theirs, lower_is_better=True) == 0.375


def test_holm_by_hand():
    """0.005 * 4 = 0.02; 0.01 * 3 = 0.03; 0.03 * 2 = 0.06; 0.04 * 1 = 0.04, but not below 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04, 0.03, 0.005, None]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02, None])
    assert holm([0.4, 0.6]) == [0.8, 0.8]  # 0.6 * 1 = 0.6, but not below 0.8
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_standing_of_several_systems():
    """Ten users. b is better than c for all, p = 2 / 2 ** 10; than a for all but the one with the largest rank.

    a: the positive ranks sum to 45 of 55; two-sided p = 2 * P(sum <= 10) = 2 * 43 / 1024, where 43 counts the sets of
    different numbers whose sum is at most 10 (1 + 1 + 1 + 2 + 2 + 3 + 4 + 5 + 6 + 8 + 10).
    Holm: 2 / 1024 * 2 and 86 / 1024.
    """
    b = np.linspace(50, 90, 10)
    gain = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, -10])
    (standing,) = against_best({"ppl": Column({"a": b + gain, "b": b, "c": b + np.arange(1, 11)}, True)}).values()
    assert standing.best == "b"
    assert standing.p_values == pytest.approx({"a": 86 / 1024, "c": 4 / 1024})
    assert standing.not_worse == ("a",)
    (standing,) = against_best({"sim": Column({"a": -b - gain, "b": -b}, False)}).values()
    assert (standing.best, standing.p_values) == ("b", pytest.approx({"a": 86 / 1024}))


def test_a_winner_by_one_user_does_not_make_the_others_worse():
    """a is better for eleven of twelve users, b in the mean: the test speaks for a, so a is not the worse one.

    The twelfth user has rank 12 of 78: two-sided p = 2 * 70 / 4096 = 0.034.
    """
    b = np.full(12, 50.0)
    a = b - np.append(np.arange(1, 12), -1000)
    assert signed_rank(a, b) == 2 * 70 / 4096
    standing = against_best({"ppl": Column({"a": a, "b": b}, lower_is_better=True)})["ppl"]
    assert (standing.best, standing.p_values, standing.not_worse) == ("b", {"a": 1.0}, ("a",))
    # where the overall figure says otherwise, the best is another
    column = Column({"a": a, "b": b}, lower_is_better=True, overall={"a": 45.0, "b": 50.0})
    standing = against_best({"ppl": column})["ppl"]
    assert (standing.best, standing.not_worse) == ("a", ())


def test_what_is_not_tested_is_called_neither_worse_nor_not_worse():
    """Four users: no p; the first of equals is the best; a single system does not compare."""
    standing = against_best({"sim": Column({"a": [1.0] * 4, "b": [1.0] * 4, "c": [0.0] * 4}, False)})["sim"]
    assert (standing.best, standing.p_values, standing.not_worse) == ("a", {"b": None, "c": None}, ())
    assert against_best({"sim": Column({"a": [1.0] * 9}, False), "ppl": Column({}, True)}) == {}


def records(system, perplexities, similarity, ratio):
    """Scores of one system: per user, then both overall rows with the mean; `ratio` says that perplexities compare."""
    rows = [*enumerate(perplexities), ("(micro)", np.mean(perplexities)), ("(macro)", np.mean(perplexities))]
    for user, perplexity in rows:
        yield Score(system, str(user), "similarity", similarity, None, None, 9)
        yield Score(system, str(user), "perplexity", perplexity, None, None, 9)
        if ratio:
            yield Score(system, str(user), "perplexity_ratio", 0.5, None, None, 9)


def test_standings_of_a_table_leave_out_what_does_not_compare():
    """Another tokenizer's perplexity takes no part though lowest, its similarity does; chrF that a user lacks is left
    out; real replies are no system.
    """
    scores = [
        *records("base", [7, 8, 9, 10, 11, 12, 13, 14], 0.4, ratio=False),
        *records("LoRA", [7, 7, 7, 7, 7, 7, 7, 7], 0.3, ratio=True),
        *records("bytes", [2, 2, 2, 2, 2, 2, 2, 2], 0.5, ratio=False),
        *(Score(name, "(corpus)", "chrF", 10.0, None, None, 9) for name in ("base", "LoRA")),
        *(Score("base", str(user), "chrF", 10.0, None, None, 9) for user in range(8)),
        *records("real replies", [1, 1, 1, 1, 1, 1, 1, 1], 1.0, ratio=True),
    ]
    standings = standings_of(scores, ["base", "LoRA", "bytes"])
    assert standings.keys() == {(row, m) for row in ("(micro)", "(macro)") for m in ("perplexity", "similarity")}
    perplexity, similarity = standings["(macro)", "perplexity"], standings["(micro)", "similarity"]
    # Three tests. Of perplexity one, whose first user is a tie: p = 2 / 2 ** 7; of similarity two: p = 2 / 2 ** 8.
    # Holm: the smallest times 3, the next times 2, and none below it.
    assert (perplexity.best, perplexity.p_values) == ("LoRA", {"base": 6 / 256})
    assert (similarity.best, similarity.p_values) == ("bytes", {"base": 6 / 256, "LoRA": 6 / 256})
    assert perplexity.not_worse == similarity.not_worse == ()


def test_scores_of_texts_stand_in_the_same_family():
    """Six users: p = 2 / 2 ** 6 of similarity and of chrF, 1 of perplexity; Holm over three."""
    scores = [*records("a", [5] * 6, 0.4, ratio=False), *records("b", [5] * 6, 0.3, ratio=True)]
    for name, chrf in (("a", 10.0), ("b", 20.0)):
        scores += [Score(name, str(user), "chrF", chrf + user, None, None, 9) for user in range(6)]
        scores.append(Score(name, "(corpus)", "chrF", chrf, None, None, 9))
    standings = standings_of(scores, ["a", "b"])
    assert standings["(corpus)", "chrF"] == Standing("b", {"a": 3 * 2 / 64}, ("a",))
    assert standings["(macro)", "similarity"] == Standing("a", {"b": 3 * 2 / 64}, ("b",))
    assert standings["(micro)", "perplexity"] == Standing("a", {"b": 1.0}, ("b",))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"one figure per user of both systems, got shapes \(6,\) and \(5,\)"):
        signed_rank(np.ones(6), np.ones(5))
    with pytest.raises(ValueError, match="not a number; leave out systems that lack it"):
        win_rate([1.0, np.nan], [1.0, 1.0], lower_is_better=True)
