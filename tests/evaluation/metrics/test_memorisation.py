"""Shares of replies that are in the training turns word for word, by hand."""

import numpy as np
import pytest

from evaluation.metrics.memorisation import copied

TRAINING = {"ann": ["a b c d", "yes  sure", ""], "bob": ["x y z"]}


def test_counts_by_hand():
    """Bigrams of ann's training: ab bc cd, yes sure.

    "a b d": ab yes, bd no: 1 of 2. "yes sure": 1 of 1, and a whole turn whatever its white space. "d yes": 0 of 1, for
    n-grams do not cross turns. "x y" is bob's, not ann's: 0 of 1. "" copies nothing, "Yes sure" differs in case.
    """
    replies = {"ann": ["a b d", "yes sure", "d yes", "x y", "", "Yes sure"], "bob": ["x y"]}
    counts = copied(replies, TRAINING, "word", n=2)
    np.testing.assert_array_equal(
        counts["ann"], [(1, 2, 0, 1), (1, 1, 1, 1), (0, 1, 0, 1), (0, 1, 0, 1), (0, 0, 0, 1), (0, 1, 0, 1)]
    )
    np.testing.assert_array_equal(counts["bob"], [(1, 1, 0, 1)])
    assert copied({"ann": []}, TRAINING, "word")["ann"].shape == (0, 4)


def test_japanese_by_character():
    """5-grams without the blank: きょうはい and ょうはいい are in training, うはいい天 and はいい天気 are not."""
    counts = copied({"u": ["きょうは いい天気"]}, {"u": ["きょうはいいね"]}, "character")
    np.testing.assert_array_equal(counts["u"], [(2, 4, 0, 1)])


def test_bad_input():
    with pytest.raises(ValueError, match=r"no training turns of users \['cy', 'dot'\]"):
        copied({"ann": ["a"], "dot": ["a"], "cy": ["a"]}, {**TRAINING, "dot": []}, "word")
    with pytest.raises(ValueError, match="n must be at least 1 unit, got 0"):
        copied({"ann": ["a"]}, TRAINING, "word", n=0)
    with pytest.raises(ValueError, match="unit must be"):
        copied({"ann": ["a"]}, TRAINING, "token")
