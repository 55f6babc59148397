"""Perplexity and similarity of users and overall, by hand; their table is in `tests/commands/test_table.py`."""

import math

import numpy as np
import pytest

from artefacts.predictions import Prediction
from evaluation.metrics.similarity import TextEncoder
from evaluation.scores.user_scores import items_of_users, perplexity, user_scores
from evaluation.statistics.bootstrap import Bootstrap
from tests.evaluation.encoders import INSTRUMENTS, Directions


def test_perplexity_is_elementwise_and_may_overflow():
    """Arrays keep their shape; a hopeless model is infinitely perplexed, without a warning."""
    np.testing.assert_allclose(perplexity([[math.log(2), 4 * math.log(2)]], [[1, 2]]), [[2.0, 4.0]])
    assert perplexity(1e6, 1) == math.inf


def test_perplexity_and_similarity_with_unequal_turns_and_tokens():
    """Ann: 1 nat over 1 token, 2 nats over 3; cosines 1 and 0. Bob: 6 nats over 2 tokens; cosine 0.6.

    All turns: exp(9 / 6) and 1.6 / 3. Users: exp(3 / 4) and exp(3), 0.5 and 0.6; their means.
    """
    lines = [("ann", 1.0, 1, "guitar"), ("ann", 2.0, 3, "violin"), ("bob", 6.0, 2, "drums")]
    predictions = [
        Prediction(user, place, [("partner", "so")], "guitar", [reply], nll, tokens)
        for place, (user, nll, tokens, reply) in enumerate(lines)
    ]
    users = items_of_users({"one": predictions}, TextEncoder(Directions(INSTRUMENTS)))
    found = {(score.user, score.metric): score.value for score in user_scores(["one"], users, Bootstrap(10, 0))}
    assert found == {
        ("ann", "perplexity"): pytest.approx(math.exp(0.75)),
        ("ann", "similarity"): pytest.approx(0.5),
        ("bob", "perplexity"): pytest.approx(math.exp(3)),
        ("bob", "similarity"): pytest.approx(0.6),
        ("(micro)", "perplexity"): pytest.approx(math.exp(1.5)),
        ("(micro)", "similarity"): pytest.approx(1.6 / 3),
        ("(macro)", "perplexity"): pytest.approx((math.exp(0.75) + math.exp(3)) / 2),
        ("(macro)", "similarity"): pytest.approx(0.55),
    }
