"""How far a system speaks like the person, in figures that can be read: each stands between what chance and what the
person themselves would get.

    others' replies    floor of similarity: real replies of other users to the same type of context
    own other replies  ceiling of similarity: real replies of the same user to other contexts of that type
    real replies       what the person really said: how well it is recognised, how much of it stands in training

All figures are means over users of a user's figure; intervals are 95 % BCa bootstrap over users, then items.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from artefacts.predictions import Prediction
from evaluation.metrics.calibration import achieved, ceiling, covered, floor
from evaluation.metrics.identification import UserClassifier
from evaluation.metrics.memorisation import copied
from evaluation.metrics.similarity import TextEncoder
from evaluation.metrics.text_metrics import Unit
from evaluation.results.predictions import by_user
from evaluation.scores.figure import MACRO, PREPARED, Figure, Score
from evaluation.scores.user_scores import SIMILARITY
from evaluation.statistics.bootstrap import Bootstrap

COVERED_FROM = 0.5
RECOGNISED_BY = (
    "recognised, in first 5, MRR: by a classifier of the users' training turns, of about ten turns together; real "
    "replies are its ceiling."
)
COPIED = "copied: share of 5-grams, and of whole replies, that stand in the user's training turns."

_tested = partial(Figure, rows=(MACRO,), needs=PREPARED, higher_is_better=True, is_tested=True)
_copied = partial(Figure, rows=(MACRO,), needs=PREPARED, format=".1%", description=COPIED)

BEST_OF_N = _tested("best_of_n", "best of n", description="best of n: of a turn's candidates.")
COVERAGE = _tested(
    "coverage",
    "coverage",
    description="coverage: share of the user's real replies that some candidate comes near to (cosine from "
    f"{COVERED_FROM}).",
)
RECOGNITION = tuple(
    _tested(name, title, description=RECOGNISED_BY)
    for name, title in (("recognised", "recognised"), ("in_first_5", "in first 5"), ("MRR", "MRR"))
)
COPIES = (_copied("copied_5-grams", "copied 5-grams"), _copied("copied_replies", "whole replies"))
PERSON_FIGURES = (SIMILARITY, BEST_OF_N, COVERAGE, *RECOGNITION, *COPIES)
OTHERS, OWN, REAL = "others' real replies (floor)", "own other replies (ceiling)", "real replies"


@dataclass(frozen=True)
class PersonTable:
    """Compares systems with the persons they are to speak like."""

    training: Mapping[str, Sequence[str]]  # user → training turns
    encoder: TextEncoder
    unit: Unit
    bootstrap: Bootstrap  # its seed is that of all that is drawn

    def scores(self, predictions: Mapping[str, Sequence[Prediction]]) -> list[Score]:
        """The figures of all systems and of the three to read them by, for every user and as means over users.

        Raises:
            ValueError: there is one user only, or one without training turns.
        """
        first = next(iter(predictions.values()))
        users = by_user(first)
        seed = self.bootstrap.seed
        if missing := sorted(users.keys() - self.training.keys()):
            raise ValueError(f"{len(missing)} of {len(users)} users have no training turns, such as {missing[0]!r}")
        classifier = UserClassifier({user: self.training[user] for user in users}, seed=seed)
        num_draws = max(len(p.candidates) for p in first)
        similarities = (SIMILARITY, BEST_OF_N) if num_draws > 1 else (SIMILARITY,)  # the best of one is that one
        scores = []
        for name, records in predictions.items():
            alike = as_many_candidates(first, records)
            reached = _means(achieved(records, self.encoder))
            scores += self._scored(name, similarities if alike else (SIMILARITY,), reached)
            if alike:
                scores += self._scored(name, (COVERAGE,), _means(covered(records, self.encoder, COVERED_FROM)))
            scores += self._texts(name, classifier, by_user(records), lambda p: p.candidates)
        for name, compare in ((OTHERS, floor), (OWN, ceiling)):
            scores += self._scored(name, similarities, _means(compare(first, self.encoder, num_draws, seed)))
        return scores + self._texts(REAL, classifier, users, lambda p: (p.reference,))

    def _texts(
        self,
        name: str,
        classifier: UserClassifier,
        users: Mapping[str, Sequence[Prediction]],
        texts: Callable[[Prediction], Sequence[str]],
    ) -> list[Score]:
        """Recognition by the first text of each item, and what all texts copy."""
        judged = classifier.judge({user: [texts(p)[0] for p in items] for user, items in users.items()})
        replies = {user: [text for p in items for text in texts(p)] for user, items in users.items()}
        counts = {  # copied n-grams, copied replies; then how many of both there are
            user: rows[:, [0, 2, 1, 3]] for user, rows in copied(replies, self.training, self.unit).items()
        }
        return self._scored(name, RECOGNITION, _means(judged)) + self._scored(name, COPIES, counts)

    def _scored(self, name: str, figures: Sequence[Figure], users: Mapping[str, np.ndarray]) -> list[Score]:
        """Each figure of every user, and its mean over users; of each `(items, 2 F)`: numerators, then denominators."""
        all_items = list(users.values())
        totals = np.stack([items.sum(axis=0) for items in all_items])  # (users, 2 F)
        shares, means = _shares(totals), _over_users(totals)
        ends = self.bootstrap.of_users(all_items, _over_users, means)  # (2, F)
        scores = []
        for position, figure in enumerate(figures):
            for (user, items), share in zip(users.items(), shares[:, position].tolist(), strict=True):
                scores.append(Score(name, user, figure.name, share, None, None, len(items)))
            low, high = ends[:, position].tolist()
            scores.append(Score(name, MACRO, figure.name, float(means[position]), low, high, len(users)))
        return scores


def as_many_candidates(first: Sequence[Prediction], records: Sequence[Prediction]) -> bool:
    """Has every turn as many candidates in both? More of them alone make the best of them better."""
    one, other = ({(p.user, p.pair_id): len(p.candidates) for p in system} for system in (first, records))
    return one == other


def _shares(totals: np.ndarray) -> np.ndarray:
    """Sums `(..., 2 * figures)` to figures `(..., figures)`; not a number where there is nothing to divide by."""
    above, below = np.split(totals, 2, axis=-1)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _over_users(totals: np.ndarray) -> np.ndarray:
    """Sums `(..., users, 2 * figures)` to the means over users that have a figure, `(..., figures)`."""
    shares = _shares(totals)
    has = ~np.isnan(shares)
    count = has.sum(axis=-2)
    return np.divide(np.nansum(shares, axis=-2), count, out=np.full(count.shape, np.nan), where=count > 0)


def _means(items: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Plain means as sums: each item counts one, or nothing where it is not a number."""
    columns = {user: values.reshape(len(values), -1) for user, values in items.items()}
    return {
        user: np.concatenate([np.nan_to_num(values), (~np.isnan(values)).astype(float)], axis=1)
        for user, values in columns.items()
    }
