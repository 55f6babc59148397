"""Is it this user? Whether a classifier that knows what every user wrote in training recognises a text.

The classifier is a linear support vector machine for each user against the others, on TF-IDF of runs of 1 to 4
characters. It needs no words, so it serves Japanese too; case, punctuation and line ends count, for they are style. One
turn says too little of its author: about `bundle` turns in a row are judged together, in training as well, so that
texts are of the same kind. Accuracy on real held-out turns is the ceiling that generated ones can be held against, and
1 / users is chance. The paper has no such score.
"""

from collections.abc import Mapping, Sequence

import numpy as np


class UserClassifier:
    """Ranks the users by how much a bundle of turns sounds like each of them."""

    def __init__(self, training: Mapping[str, Sequence[str]], bundle: int = 10, seed: int = 0) -> None:
        """Learns the users from their training turns in order, of which `bundle` are judged together.

        Raises:
            ValueError: If there are fewer than 2 users, one without turns, or `bundle` is below 1.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import LinearSVC

        if len(training) < 2:
            raise ValueError(f"a user is told from other users: expected at least 2 in training, got {len(training)}")
        if bundle < 1:
            raise ValueError(f"bundle must be at least 1 turn, got {bundle}")
        self.bundle = bundle
        texts = {user: self._bundles(user, turns) for user, turns in training.items()}
        self._model = make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(1, 4), lowercase=False, sublinear_tf=True),
            LinearSVC(class_weight="balanced", random_state=seed),  # balanced: who writes much is not the likelier one
        )
        authors = [user for user, bundles in texts.items() for _ in bundles]
        self._model.fit([text for bundles in texts.values() for text in bundles], authors)

    def judge(self, turns: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
        """Judges turns that are meant to sound like a user, in order; of n candidates take one for each context.

        Returns:
            user → `(bundles, 3)`: is the user ranked first, among the first five, and 1 / rank. Of users who are
            equally near each gets the worst rank.

        Raises:
            ValueError: If a user was not in training, or has no turns.
        """
        users = self._model.classes_
        if unknown := sorted(turns.keys() - set(users)):
            raise ValueError(f"users {unknown} are to be recognised, but there are no training turns of them")
        judged = {}
        for user, own_turns in turns.items():
            scores = self._model.decision_function(self._bundles(user, own_turns))
            if len(users) == 2:  # then scikit-learn gives only the score of the second
                scores = np.stack([-scores, scores], axis=1)
            ranks = (scores >= scores[:, users == user]).sum(axis=1)  # (bundles,)
            judged[user] = np.stack([ranks == 1, ranks <= 5, 1 / ranks], axis=1)
        return judged

    def _bundles(self, user: str, turns: Sequence[str]) -> list[str]:
        """The turns in as many equal parts as come nearest to the size of a bundle: nobody is left out."""
        if not turns:
            raise ValueError(f"user {user!r} has no turns; leave the user out")
        parts = np.array_split(np.arange(len(turns)), max(1, round(len(turns) / self.bundle)))
        return ["\n".join(turns[number] for number in part) for part in parts]
