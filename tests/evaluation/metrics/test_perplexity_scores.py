"""Token-weighted perplexity, by hand."""

import math

import numpy as np
import pytest

from artefacts.predictions import Prediction
from evaluation.metrics.perplexity import perplexity
from evaluation.scores.user_scores import items_of_users, user_scores
from evaluation.statistics.bootstrap import Bootstrap

LN2 = math.log(2.0)
# bob: 1 token at 4 bits and 3 tokens at 0 bits -> 4 bits / 4 tokens -> 2; ann: 12 bits / 4 tokens -> 8.
PREDICTIONS = [
    Prediction("bob", 0, (), "r", ("c",), nll=4 * LN2, tokens=1),
    Prediction("bob", 1, (), "r", ("c",), nll=0.0, tokens=3),
    Prediction("ann", 0, (), "r", ("c",), nll=12 * LN2, tokens=4),
]


def test_users_micro_and_macro():
    """Micro 2 ** (16 / 8) = 4, macro (2 + 8) / 2 = 5; the mean over replies would be (16 + 1 + 8) / 3."""
    scores = user_scores(["one"], items_of_users({"one": PREDICTIONS}, None), Bootstrap(10, 0))
    found = {score.user: score.value for score in scores if score.metric == "perplexity"}
    assert found == pytest.approx({"ann": 8.0, "bob": 2.0, "(micro)": 4.0, "(macro)": 5.0})


def test_elementwise_and_overflow():
    """Arrays keep their shape; a hopeless model is infinitely perplexed, without a warning."""
    np.testing.assert_allclose(perplexity([[LN2, 4 * LN2]], [[1, 2]]), [[2.0, 4.0]])
    assert perplexity(1e6, 1) == math.inf
