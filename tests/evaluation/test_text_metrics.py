"""Distinct-n, length ratio and chrF, by hand."""

import pytest

from evaluation.text_metrics import chrf, corpus_figures, distinct, length_ratio, split


def test_units_of_text():
    """Words keep case and punctuation; characters leave out white space."""
    assert split("Hi,  hi you", "word") == ["Hi,", "hi", "you"]
    assert split("元気 です", "character") == ["元", "気", "で", "す"]
    with pytest.raises(ValueError, match="unit must be 'word' or 'character', got 'token'"):
        split("a", "token")


def test_distinct_counts_over_the_corpus():
    """Words: a b a b | b a -> 2 of 6 unigrams; ab ba ab | ba -> 2 of 4 bigrams, none across replies."""
    replies = ["a b a b", "b a", ""]
    assert distinct(replies, 1, "word") == pytest.approx(2 / 6)
    assert distinct(replies, 2, "word") == pytest.approx(2 / 4)
    assert distinct(["a", "b"], 2, "word") == 0.0


def test_distinct_works_for_japanese_by_character():
    """As words each reply is one unit; by character はいはい has 2 of 4 unigrams and 2 of 3 bigrams."""
    assert distinct(["はいはい", "はいはい"], 1, "word") == pytest.approx(1 / 2)
    assert distinct(["はいはい"], 1, "character") == pytest.approx(2 / 4)
    assert distinct(["はいはい"], 2, "character") == pytest.approx(2 / 3)


def test_length_ratio_is_sum_over_sum():
    """(1 + 3) / (2 + 6) = 0.5, where the mean of ratios would be 0.5 too; (3 + 1) / (1 + 3) = 1, where it would not."""
    assert length_ratio(["a", "a b c"], ["a b", "a b c d e f"], "word") == pytest.approx(0.5)
    assert length_ratio(["a b c", "a"], ["a", "a b c"], "word") == pytest.approx(1.0)
    with pytest.raises(ValueError, match="got 1 replies for 2 references"):
        length_ratio(["a"], ["a", "b"], "word")
    with pytest.raises(ValueError, match="no text"):
        length_ratio(["a"], [" "], "word")


def test_chrf():
    """Identical is 100 and disjoint 0, in Japanese as well; white space does not count."""
    pytest.importorskip("sacrebleu")
    assert chrf(["はい、そうです"], ["はい、そうです"]) == pytest.approx(100.0)
    assert chrf(["ab cdef"], ["abc def"]) == pytest.approx(100.0)
    assert chrf(["aaaa"], ["bbbb"]) == 0.0
    # "ab" for "abc", orders 1 and 2 only: precision 1, recall mean(2/3, 1/2) = 7/12, F2 = 5PR / (4P + R).
    assert chrf(["ab"], ["abc"]) == pytest.approx(100 * 5 * (7 / 12) / (4 + 7 / 12), abs=0.01)


def test_all_figures_have_names():
    """The names of the corpus table."""
    pytest.importorskip("sacrebleu")
    assert list(corpus_figures(["a"], ["a"], "word")) == ["distinct-1", "distinct-2", "length_ratio", "chrF"]
