"""Floor, ceiling, mean- and best-of-n and coverage by hand, on a compass.

Cosines: northeast with east 0.6, with north 0.8; east with north 0. Turns of the partner are at most 4 characters long
(the median) but for one, so there are three types of context: short question, short statement, long question.
"""

import numpy as np
import pytest

from artefacts.predictions import Prediction
from evaluation.metrics.calibration import achieved, ceiling, covered, floor
from evaluation.metrics.similarity import TextEncoder
from tests.evaluation.encoders import COMPASS, Directions

ITEMS = {
    ("ann", 0): ("why?", "east", ["east", "north"]),
    ("ann", 1): ("who?", "northeast", ["east", "east"]),
    ("ann", 2): ("oh", "north", ["north", ""]),
    ("bob", 0): ("who?", "north", ["east"]),
    ("bob", 1): ("ah", "east", ["north"]),
    ("bob", 2): ("how?", "northeast", ["northeast"]),
    ("bob", 3): ("who is it?", "east", [""]),
}
ALL = 10
MIXED = (1.6 / 3, 1.0)  # of east with north, northeast and east, in any order


@pytest.fixture
def encoder():
    return TextEncoder(Directions(COMPASS))


def predictions(items):
    """The items in the reverse of their order, with an earlier turn of both people before the partner's last."""
    return [
        Prediction(user, pair_id, (("partner", "so?"), ("speaker", "hm?"), ("partner", turn)), said, tuple(n), 1.0, 1)
        for (user, pair_id), (turn, said, n) in reversed(items.items())
    ]


def test_mean_and_best_of_the_candidates(encoder):
    """ann: (1 + 0) / 2 and 1; 0.6 twice; (1 + 0) / 2 and 1, where the empty reply scores 0."""
    found = achieved(predictions(ITEMS), encoder)
    assert list(found) == ["ann", "bob"]
    np.testing.assert_allclose(found["ann"], [(0.5, 1), (0.6, 0.6), (0.5, 1)], atol=1e-9)
    np.testing.assert_allclose(found["bob"], [(0, 0), (0, 0), (1, 1), (0, 0)], atol=1e-9)


def test_floor_by_hand(encoder):
    """ann/0: east with bob's answers to short questions, north 0 and northeast 0.6; nobody else was asked at length,
    so bob/3 is compared with all that ann said."""
    found = floor(predictions(ITEMS), encoder, ALL, seed=0)
    np.testing.assert_allclose(found["ann"], [(0.3, 0.6), (0.9, 1), (0, 0)], atol=1e-9)
    np.testing.assert_allclose(found["bob"], [(0.4, 0.8), (0, 0), (0.8, 1), MIXED], atol=1e-9)


def test_ceiling_by_hand(encoder):
    """ann/0: east with ann's other answer to a short question, northeast; ann/2 is her only answer to a statement, so
    it is compared with all else that she said; no reply is compared with itself."""
    found = ceiling(predictions(ITEMS), encoder, ALL, seed=0)
    np.testing.assert_allclose(found["ann"], [(0.6, 0.6), (0.6, 0.6), (0.4, 0.8)], atol=1e-9)
    np.testing.assert_allclose(found["bob"], [(0.8, 0.8), MIXED, (0.8, 0.8), MIXED], atol=1e-9)


def test_draws_are_seeded_and_without_replacement(encoder):
    """One draw for ann/0 is north or northeast, and every seed keeps its own; two draws are both."""
    records = predictions(ITEMS)
    drawn = [floor(records, encoder, 1, seed)["ann"][0] for seed in range(20)]
    assert all(mean == best for mean, best in drawn)
    assert {round(mean, 9) for mean, _ in drawn} == {0.0, 0.6}
    for seed in range(20):
        np.testing.assert_array_equal(floor(records, encoder, 1, seed)["ann"][0], drawn[seed])
        np.testing.assert_allclose(floor(records, encoder, 2, seed)["ann"][0], (0.3, 0.6), atol=1e-9)


def test_japanese_question_marks_count(encoder):
    """Only the answer to a question of the same length stands against an answer to a question."""
    items = {
        ("a", 0): ("なに？", "east", ["east"]),
        ("b", 0): ("だれ？", "northeast", ["east"]),
        ("b", 1): ("はい。", "north", ["east"]),
    }
    np.testing.assert_allclose(floor(predictions(items), encoder, ALL, seed=0)["a"], [(0.6, 0.6)], atol=1e-9)


def test_coverage_by_hand(encoder):
    """ann's candidates are east and north: northeast is 0.8 from one of them, so it is reached at 0.7, not at 0.9."""
    records = predictions(ITEMS)
    np.testing.assert_array_equal(covered(records, encoder, 0.7)["ann"], [1, 1, 1])
    np.testing.assert_array_equal(covered(records, encoder, 0.9)["ann"], [1, 0, 1])
    np.testing.assert_array_equal(covered(records, encoder, 1.0)["bob"], [1, 1, 1, 1])
    np.testing.assert_array_equal(covered(records, encoder, 0.8)["ann"], [1, 1, 1])


def test_one_item_has_no_ceiling_and_one_user_no_floor(encoder):
    lonely = {("ann", 0): ITEMS["ann", 0], ("bob", 0): ITEMS["bob", 0], ("bob", 1): ITEMS["bob", 1]}
    found = ceiling(predictions(lonely), encoder, ALL, seed=0)
    assert np.isnan(found["ann"]).all() and found["ann"].shape == (1, 2)
    np.testing.assert_allclose(found["bob"], [(0, 0), (0, 0)], atol=1e-9)
    alone = {key: item for key, item in ITEMS.items() if key[0] == "ann"}
    with pytest.raises(ValueError, match=r"the floor needs replies of other users.* \['ann'\] alone"):
        floor(predictions(alone), encoder, ALL, seed=0)


def test_bad_settings_are_refused(encoder):
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        ceiling(predictions(ITEMS), encoder, 0, seed=0)
    for threshold in (-1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="threshold is a cosine above -1"):
            covered(predictions(ITEMS), encoder, threshold)
