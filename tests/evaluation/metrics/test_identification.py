"""User identification: people told apart by what they write, ranks by hand, and figures by hand."""

import numpy as np
import pytest

from evaluation.metrics.identification import UserClassifier

ALPHABETS = {"ann": "abc", "bob": "dfg", "cy": "猫犬鳥", "dot": "klm", "eve": "npq", "fay": "rst"}


def turns_of(user, count, seed=0):
    """Turns of three words of the letters that only this user writes."""
    random = np.random.default_rng([seed, *map(ord, user)])
    return [" ".join("".join(random.choice(list(ALPHABETS[user]), 4)) for _ in range(3)) for _ in range(count)]


TRAINING = {user: turns_of(user, 40) for user in ALPHABETS}


@pytest.fixture(scope="module")
def classifier():
    return UserClassifier(TRAINING, bundle=5)


def test_people_are_recognised_by_their_letters(classifier):
    """Every bundle of new turns is its author's, and a bundle in somebody else's letters is not."""
    judged = classifier.judge({user: turns_of(user, 20, seed=1) for user in ALPHABETS})
    assert list(judged) == list(ALPHABETS)
    for rows in judged.values():
        np.testing.assert_array_equal(rows, np.ones((4, 3)))
    (row,) = classifier.judge({"ann": turns_of("bob", 5, seed=1)})["ann"]
    assert row[0] == 0 and row[2] <= 1 / 2


def test_ranks_by_hand(classifier):
    """As the second of the two who wrote a bundle of five turns, four of cy's and one of ann's, ann has rank 2;
    the same bundle is cy's at rank 1."""
    bundle = [*turns_of("cy", 4, seed=1), *turns_of("ann", 1, seed=1)]
    judged = classifier.judge({"ann": bundle, "cy": bundle})
    np.testing.assert_array_equal(judged["ann"], [(0, 1, 1 / 2)])
    np.testing.assert_array_equal(judged["cy"], [(1, 1, 1)])


def test_equally_near_users_get_the_worst_rank(classifier, monkeypatch):
    """Scores 3, 1, 1, 0, 0, 0 of ann to fay: bob shares rank 3 with cy, fay rank 6 with two others, beyond five."""
    scores = np.array([[3.0, 1, 1, 0, 0, 0]])
    monkeypatch.setattr(classifier._model[-1], "decision_function", lambda _: scores)
    judged = classifier.judge({user: ["x"] * 5 for user in ("ann", "bob", "fay")})
    np.testing.assert_allclose(judged["ann"], [(1, 1, 1)])
    np.testing.assert_allclose(judged["bob"], [(0, 1, 1 / 3)])
    np.testing.assert_allclose(judged["fay"], [(0, 0, 1 / 6)])


def means(judged):
    """Top-1, top-5 and MRR over all bundles."""
    return np.concatenate(list(judged.values())).mean(axis=0).tolist()


def test_two_users():
    """scikit-learn's binary case: both are recognised, and mistaken for each other at rank 2."""
    classifier = UserClassifier({user: TRAINING[user] for user in ("ann", "bob")}, bundle=5)
    new = {user: turns_of(user, 10, seed=1) for user in ("ann", "bob")}
    assert means(classifier.judge(new)) == [1, 1, 1]
    swapped = classifier.judge({"ann": new["bob"], "bob": new["ann"]})
    assert means(swapped) == [0, 1, 0.5]


def test_case_is_style():
    classifier = UserClassifier({"loud": ["YES SURE"] * 20, "calm": ["yes sure"] * 20}, bundle=5)
    judged = classifier.judge({"loud": ["YES SURE"] * 5, "calm": ["yes sure"] * 5})
    assert means(judged)[0] == 1


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (5, [5]), (7, [7]), (8, [4, 4]), (12, [6, 6]), (13, [5, 4, 4])])
def test_bundles_leave_nobody_and_nothing_out(classifier, count, sizes):
    turns = [str(number) for number in range(count)]
    bundles = [text.split("\n") for text in classifier._bundles("ann", turns)]
    assert list(map(len, bundles)) == sizes
    assert [turn for bundle in bundles for turn in bundle] == turns


def test_same_seed_same_ranks():
    """With people who write alike, so that ranks are not all 1."""
    alike = {user: turns_of("ann", 10, seed=number) for number, user in enumerate(ALPHABETS)}
    noise = {user: turns_of("ann", 10, seed=99) for user in ALPHABETS}
    for turns in (alike, noise):
        first, second = (UserClassifier(alike, bundle=2, seed=3).judge(turns) for _ in range(2))
        np.testing.assert_equal(first, second)
    assert 0 < means(first)[0] < 1


def test_bad_input(classifier):
    with pytest.raises(ValueError, match="expected at least 2 in training, got 1"):
        UserClassifier({"ann": ["a"]})
    with pytest.raises(ValueError, match="bundle must be at least 1 turn, got 0"):
        UserClassifier(TRAINING, bundle=0)
    with pytest.raises(ValueError, match="user 'bob' has no turns"):
        UserClassifier({"ann": ["a"], "bob": []})
    with pytest.raises(ValueError, match=r"users \['zoe'\] are to be recognised, but there are no training turns"):
        classifier.judge({"ann": ["a"], "zoe": ["a"]})
    with pytest.raises(ValueError, match="user 'ann' has no turns"):
        classifier.judge({"ann": []})
