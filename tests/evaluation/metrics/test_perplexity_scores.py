"""Perplexity, by hand."""

import math

import numpy as np

from evaluation.scores.user_scores import perplexity


def test_elementwise_and_overflow():
    """Arrays keep their shape; a hopeless model is infinitely perplexed, without a warning."""
    np.testing.assert_allclose(perplexity([[math.log(2), 4 * math.log(2)]], [[1, 2]]), [[2.0, 4.0]])
    assert perplexity(1e6, 1) == math.inf
