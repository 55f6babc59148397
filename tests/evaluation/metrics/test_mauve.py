"""MAUVE from vectors of our own encoder; the values need the package mauve-text, what is refused does not."""

import math

import numpy as np
import pytest

from artefacts.predictions import Prediction
from evaluation.metrics.mauve import mauve
from evaluation.metrics.similarity import TextEncoder
from evaluation.scores.corpus_scores import mauve_scores
from tests.evaluation.encoders import Directions


@pytest.fixture
def encoder():
    """Three words at right angles, so that clusters are words."""
    return TextEncoder(Directions(dict(zip("abc", np.eye(3), strict=True))))


def test_mauve_by_hand(encoder):
    """Alike: 1. Nothing shared: the curve is ((1 - w) ** 5, w ** 5) and the area 5 B(6, 5) = 1 / 252.

    Half shared, P on a and b, Q on b and c: KL(Q | mixture) = -log(1 - w) / 2, so the curve is
    ((1 - w) ** 2.5, w ** 2.5) and the area 2.5 B(3.5, 2.5) = 15 pi / 512. The package adds up 25 trapezia.
    """
    pytest.importorskip("mauve")
    half = 500
    assert mauve(["a", "b"] * half, ["b", "a"] * half, encoder) == pytest.approx(1.0)
    assert mauve(["a"] * 2 * half, ["b", "c"] * half, encoder) == pytest.approx(1 / 252, abs=5e-4)
    assert mauve(["a", "b"] * half, ["b", "c"] * half, encoder) == pytest.approx(15 * math.pi / 512, abs=2e-3)


def test_the_area_is_the_package_s_own(encoder):
    """Where the curve has no ties: shares 0.5 and 0.5 against 0.3, 0.5 and 0.2."""
    compute_mauve = pytest.importorskip("mauve").compute_mauve
    real, generated = ["a"] * 500 + ["b"] * 500, ["a"] * 300 + ["b"] * 500 + ["c"] * 200
    theirs = compute_mauve(encoder.vectors(real), encoder.vectors(generated), seed=0).mauve
    assert mauve(generated, real, encoder) == pytest.approx(theirs)


def test_few_replies_are_refused_and_a_missing_package_says_how_to_get_it(encoder, monkeypatch):
    with pytest.raises(ValueError, match="at least 1000 replies a side, got 999 generated and 1000 real"):
        mauve(["a"] * 999, ["b"] * 1000, encoder)
    monkeypatch.setattr("evaluation.metrics.mauve.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[mauve\]'"):
        mauve(["a"] * 1000, ["b"] * 1000, encoder)


def predicted(replies, real):
    return [Prediction("ann", n, (), real[n], (reply, "c"), None, None) for n, reply in enumerate(replies)]


def test_first_candidates_of_every_system_with_enough_turns(encoder):
    """The second candidate, always c, does not count."""
    pytest.importorskip("mauve")
    systems = {"few": predicted(["a"] * 999, ["b"] * 999), "alike": predicted(["a", "b"] * 500, ["b", "a"] * 500)}
    (score,) = mauve_scores(systems, encoder, seed=0)
    assert (score.system, score.user, score.metric, score.n) == ("alike", "(corpus)", "MAUVE", 1000)
    assert score.value == pytest.approx(1.0)
