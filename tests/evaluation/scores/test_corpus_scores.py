"""Scores of a corpus with intervals: texts drawn several times, held against sacrebleu on the texts themselves."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from artefacts.predictions import Prediction
from evaluation.metrics.text_metrics import chrf, sacrebleu
from evaluation.scores.corpus_scores import corpus_scores
from evaluation.scores.figure import CORPUS
from evaluation.statistics.bootstrap import Bootstrap

REPLIES = ["the cat sat on the mat", "yes I do like it", "no I do", "we went to the sea again"]
REFERENCES = ["the cat lay on the mat", "yes I like it", "never", "we went to the lake again"]


def records(users=6, turns=3, candidates=1):
    """Everybody says the same, so that it makes no difference who is drawn; turns differ."""
    return [
        Prediction(f"u{user}", turn, (), REFERENCES[turn], tuple(REPLIES[turn : turn + candidates]), None, None)
        for turn in range(turns)  # not sorted by user
        for user in range(users)
    ]


def by_metric(predictions):
    found = corpus_scores({"a": predictions}, "word", Bootstrap(300, 0))
    return {score.metric: score for score in found if score.user == CORPUS}


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [2, 0, 1, 3], [0, 4, 0, 1]])
def test_sums_of_drawn_texts_give_what_sacrebleu_says_of_them(weights):
    replies, references = (np.repeat(texts, weights).tolist() for texts in (REPLIES, REFERENCES))
    for ours, theirs in ((sacrebleu(REPLIES, REFERENCES, "word"), BLEU()), (chrf(REPLIES, REFERENCES), CHRF())):
        expected = theirs.corpus_score(replies, [references]).score
        assert ours.score(np.array(weights) @ ours.columns) == pytest.approx(expected)


def test_many_sums_at_a_time_give_what_sacrebleu_says_of_each():
    """Some draws without a match, without long n-grams, or without any text at all."""
    replies = [*REPLIES, "", "sea", "lake the to", "a b c d e f"]
    references = [*REFERENCES, "no", "", "the lake to", "f e d c b a"]
    weights = np.random.default_rng(0).integers(3, size=(60, 8)) * np.random.default_rng(1).integers(2, size=(60, 8))
    weights = np.concatenate([weights, np.eye(8, dtype=int), np.zeros((1, 8), dtype=int)])
    for ours, theirs in ((sacrebleu(replies, references, "word"), BLEU()), (chrf(replies, references), CHRF())):
        found = ours.score((weights @ ours.columns).reshape(3, 23, -1))
        expected = [theirs._compute_score_from_stats(one.astype(int).tolist()).score for one in weights @ ours.columns]
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)
        assert min(expected) == 0 < max(expected)


def test_figures_are_those_of_all_candidates_and_turns_move_them():
    """Two candidates a turn: the first turn has the first two replies, each against the first reference."""
    found = by_metric(records(candidates=2))
    replies = [reply for turn in range(3) for reply in REPLIES[turn : turn + 2]]
    references = [reference for reference in REFERENCES[:3] for _ in range(2)]
    assert found["sacreBLEU"].value == pytest.approx(BLEU().corpus_score(replies * 6, [references * 6]).score)
    assert found["length_ratio"].value == pytest.approx((6 + 5 + 5 + 3 + 3 + 6) / (2 * (6 + 4 + 1)))
    assert list(found) == ["distinct-1", "distinct-2", "length_ratio", "chrF", "sacreBLEU", "ROUGE-L", "self-BLEU"]
    assert {score.n for score in found.values()} == {36}
    for metric in list(found)[2:]:
        assert found[metric].low < found[metric].value < found[metric].high
    assert (found["distinct-1"].low, found["distinct-2"].high) == (None, None)


def test_users_have_what_is_tested():
    """Two users who say different things: the figures of each are those of their texts alone."""
    predictions = [p for p in records(users=2) if (p.user == "u0") == (p.pair_id < 2)]
    found = {(s.user, s.metric): (s.value, s.n) for s in corpus_scores({"a": predictions}, "word", Bootstrap(100, 0))}
    assert {metric for user, metric in found if user == "u1"} == {"chrF", "sacreBLEU", "ROUGE-L"}
    for user, of in (("u0", slice(0, 2)), ("u1", slice(2, 3))):
        expected = CHRF().corpus_score(REPLIES[of], [REFERENCES[of]]).score
        assert found[user, "chrF"] == (pytest.approx(expected), of.stop - of.start)


def test_where_nothing_differs_an_interval_is_a_point():
    score = by_metric(records(turns=1))["chrF"]
    assert score.low == pytest.approx(score.value) == score.high


def test_few_users_have_no_intervals_and_single_candidates_no_self_bleu():
    found = by_metric(records(users=4))
    assert all(score.low is None and score.high is None for score in found.values())
    assert "self-BLEU" not in found
