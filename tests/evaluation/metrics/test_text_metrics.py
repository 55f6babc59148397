"""Distinct-n, length ratio, chrF, BLEU, ROUGE-L and Self-BLEU, by hand."""

import random

import pytest
from torchmetrics.functional.text import rouge_score

from evaluation.metrics.text_metrics import chrf, distinct, length_ratio, ngrams, rouge_l, sacrebleu, self_bleu, split


def test_units_of_text():
    """Words keep case and punctuation; characters leave out white space."""
    assert split("Hi,  hi you", "word") == ["Hi,", "hi", "you"]
    assert split("元気 です", "character") == ["元", "気", "で", "す"]
    with pytest.raises(ValueError, match="unit must be 'word' or 'character', got 'token'"):
        split("a", "token")


def test_ngrams():
    assert ngrams("a b  a", 2, "word") == [("a", "b"), ("b", "a")]
    assert ngrams("a b", 3, "word") == []
    with pytest.raises(ValueError, match="n must be at least 1 unit, got 0"):
        ngrams("a b", 0, "word")


def test_distinct_counts_over_the_corpus():
    """Words: a b a b | b a -> 2 of 6 unigrams; ab ba ab | ba -> 2 of 4 bigrams, none across replies.

    As words each Japanese reply is one unit; by character はいはい has 2 of 4 unigrams and 2 of 3 bigrams.
    """
    replies = ["a b a b", "b a", ""]
    assert distinct(replies, 1, "word") == pytest.approx(2 / 6)
    assert distinct(replies, 2, "word") == pytest.approx(2 / 4)
    assert distinct(["a", "b"], 2, "word") == 0.0
    assert distinct(["はいはい", "はいはい"], 1, "word") == pytest.approx(1 / 2)
    assert distinct(["はいはい"], 1, "character") == pytest.approx(2 / 4)
    assert distinct(["はいはい"], 2, "character") == pytest.approx(2 / 3)


def test_length_ratio_is_sum_over_sum():
    """(1 + 3) / (2 + 6) = 0.5, where the mean of ratios would be 0.5 too; (3 + 1) / (1 + 3) = 1, where it would not."""
    assert length_ratio(["a", "a b c"], ["a b", "a b c d e f"], "word").value == pytest.approx(0.5)
    assert length_ratio(["a b c", "a"], ["a", "a b c"], "word").value == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no text"):
        length_ratio(["a"], [" "], "word")


def test_chrf():
    """Identical is 100 and disjoint 0, in Japanese as well; white space does not count."""
    assert chrf(["はい、そうです"], ["はい、そうです"]).value == pytest.approx(100.0)
    assert chrf(["ab cdef"], ["abc def"]).value == pytest.approx(100.0)
    assert chrf(["aaaa"], ["bbbb"]).value == 0.0
    # "ab" for "abc", orders 1 and 2 only: precision 1, recall mean(2/3, 1/2) = 7/12, F2 = 5PR / (4P + R).
    assert chrf(["ab"], ["abc"]).value == pytest.approx(100 * 5 * (7 / 12) / (4 + 7 / 12), abs=0.01)


def test_sacrebleu():
    """Words: precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty: (1/5) ** (1/4); the same in characters."""
    assert sacrebleu(["a b c d e"], ["a b c d f"], "word").value == pytest.approx(100 * 0.2**0.25)
    assert sacrebleu(["はいそうで"], ["はいそうだ"], "character").value == pytest.approx(100 * 0.2**0.25)
    # Counts are summed before they are divided: precisions 9/10, 7/8, 5/6, 3/4; and 13a cuts off the full stop.
    assert sacrebleu(["a b c d e", "k l m n."], ["a b c d f", "k l m n."], "word").value == pytest.approx(
        100 * (9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** 0.25
    )
    assert sacrebleu(["あいうえお"], ["かきくけこ"], "character").value < 15
    assert sacrebleu(["a b c d"], ["a b c d"], "word").value > 99


def test_rouge_l_by_hand():
    """a c d of (a b c d) and (a c e d): LCS 3, F1 6/8; with a miss beside it the mean is 3/8; Japanese counts."""
    assert rouge_l(["a b c d"], ["a c e d"], "word").value == pytest.approx(6 / 8)
    assert rouge_l(["a b c d", "x"], ["a c e d", "y"], "word").value == pytest.approx(3 / 8)
    # はいうですね and いいですね share い, で, す, ね in this order: 2 x 4 / (6 + 5).
    assert rouge_l(["はいうですね"], ["いいですね"], "character").value == pytest.approx(8 / 11)
    assert rouge_l(["", "A"], ["a", "a"], "word").value == 0.0


def test_rouge_l_agrees_with_torchmetrics():
    """With a tokenizer that deletes nothing, on random letters of an alphabet small enough for repeats."""
    rng = random.Random(0)
    for _ in range(100):
        left, right = ("".join(rng.choices("あいうx", k=rng.randint(0, 12))) for _ in range(2))
        theirs = rouge_score(left, right, rouge_keys="rougeL", tokenizer=list, normalizer=lambda text: text)
        assert rouge_l([left], [right], "character").value == pytest.approx(theirs["rougeL_fmeasure"].item(), abs=1e-6)


def test_self_bleu_by_hand():
    """Precisions of a b c | a b d: 2/3, 1/2 and no trigram of 1, smoothed to 1/2: (1/6) ** (1/3), both ways.

    Alike candidates score 100. The single candidate is left out: mean over two contexts, not three.
    """
    unlike, alike = ["a b c", "a b d"], ["x y", "x y", "x y"]
    assert self_bleu([unlike], "word").value == pytest.approx(100 * (1 / 6) ** (1 / 3))
    assert self_bleu([unlike, alike, ["z"]], "word").value == pytest.approx((100 * (1 / 6) ** (1 / 3) + 100) / 2)
    assert self_bleu([["あいう", "あいえ"]], "character").value == pytest.approx(100 * (1 / 6) ** (1 / 3))
    assert self_bleu([["", ""]], "word").value == 0.0
    assert self_bleu([["z"], ["y"]], "word") is None


@pytest.mark.parametrize("score", [length_ratio, sacrebleu, rouge_l])
def test_scores_of_pairs_refuse_bad_input(score):
    with pytest.raises(ValueError, match="got 1 replies for 2 references"):
        score(["a"], ["a", "b"], "word")
    with pytest.raises(ValueError, match="unit must be 'word' or 'character', got 'token'"):
        score(["a"], ["a"], "token")
    with pytest.raises(ValueError, match="unit must be"):
        self_bleu([["a", "b"]], "token")
