"""From chunks to a user, by hand."""

import numpy as np
import pytest

from lightning_modules.markov_logic.decisions import Decision

CHUNKS = np.array([[0.6, 0.3, 0.1], [0.55, 0.35, 0.1], [0.02, 0.97, 0.01]])


def test_the_majority_wins_a_vote_and_the_mean_is_its_posterior():
    assert Decision("vote").decide(CHUNKS) == (0, pytest.approx(1.17 / 3))


def test_a_product_listens_to_those_who_are_sure():
    scores = (CHUNKS[0] * CHUNKS[1] * CHUNKS[2]) ** (1 / 3)
    assert Decision("product").decide(CHUNKS) == (1, pytest.approx(scores[1] / scores.sum()))


def test_chunks_that_are_not_sure_have_no_vote():
    assert Decision("vote", min_vote=0.58).decide(CHUNKS[1:])[0] == 1
    assert Decision("vote", min_vote=0.99).decide(CHUNKS)[0] == 0  # nobody is that sure: then all vote


def test_a_tie_goes_to_the_value_that_is_more_likely_on_average():
    assert Decision("vote").decide(np.array([[0.6, 0.4], [0.1, 0.9]]))[0] == 1


def test_a_posterior_of_zero_does_not_break_a_product():
    best, posterior = Decision("product").decide(np.array([[0.0, 1.0], [0.9, 0.1]]))
    assert best == 1 and 0.9 < posterior <= 1


@pytest.mark.parametrize(("posterior", "is_left_out"), [(0.49, True), (0.5, False)])
def test_abstention(posterior, is_left_out):
    row = Decision(min_posterior=0.5).row("ann", "age", ["old"], np.array([[posterior]]), is_short=False)
    assert (row is None) == is_left_out
