"""How far a system speaks like the person, in figures that can be read: each stands between what chance and what the
person themselves would get.

In: predictions of several systems over the same reply pairs, the users' training turns, a sentence encoder. Out:
`Score` records, and rows of cells.

    others' replies    floor of similarity: real replies of other users to the same type of context
    own other replies  ceiling of similarity: real replies of the same user to other contexts of that type
    real replies       what the person really said: how well it is recognised, how much of it stands in training

All figures are means over users of a user's figure; intervals are 95 % BCa bootstrap over users, then items.
"""

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np

from evaluation.metrics.calibration import achieved, ceiling, covered, floor
from evaluation.metrics.identification import UserClassifier
from evaluation.metrics.memorisation import copied
from evaluation.metrics.similarity import TextEncoder
from evaluation.metrics.text_metrics import Unit
from evaluation.report.cells import cell, marked
from evaluation.results.predictions import Prediction, by_user
from evaluation.scores.user_scores import MACRO, Score
from evaluation.statistics.bootstrap import bca, jackknife_users, resample_users
from evaluation.statistics.significance import Standings

PERSON_FIGURES = {  # metric: heading, form of its numbers
    "similarity": ("sim", ".3f"),
    "best_of_n": ("best of n", ".3f"),
    "coverage": ("coverage", ".3f"),
    "recognised": ("recognised", ".3f"),
    "in_first_5": ("in first 5", ".3f"),
    "MRR": ("MRR", ".3f"),
    "copied_5-grams": ("copied 5-grams", ".1%"),
    "copied_replies": ("whole replies", ".1%"),
}
SIMILARITIES, COVERAGE, RECOGNITION, COPIES = (tuple(PERSON_FIGURES)[a:b] for a, b in ((0, 2), (2, 3), (3, 6), (6, 8)))
COVERED_FROM = 0.5
OTHERS, OWN, REAL = "others' real replies (floor)", "own other replies (ceiling)", "real replies"

Sums = Mapping[str, np.ndarray]
"""User → (items, 2 * figures): what each item adds to the numerators, then to the denominators."""


class PersonTable:
    """Compares systems with the persons they are to speak like.

    Args:
        training: user → training turns.
        encoder: sentence encoder of the similarities.
        unit: what n-grams count.
        num_resamples: bootstrap resamples.
        seed: of all that is drawn.
    """

    def __init__(
        self, training: Mapping[str, Sequence[str]], encoder: TextEncoder, unit: Unit, num_resamples: int, seed: int
    ) -> None:
        self.training = training
        self.encoder = encoder
        self.unit: Unit = unit
        self.num_resamples = num_resamples
        self.seed = seed

    def scores(self, predictions: Mapping[str, Sequence[Prediction]]) -> list[Score]:
        """The figures of all systems and of the three to read them by, for every user and as means over users.

        Raises:
            ValueError: there is one user only, or one without training turns.
        """
        first = next(iter(predictions.values()))
        users = by_user(first)
        if missing := sorted(users.keys() - self.training.keys()):
            raise ValueError(f"{len(missing)} of {len(users)} users have no training turns, such as {missing[0]!r}")
        classifier = UserClassifier({user: self.training[user] for user in users}, seed=self.seed)
        num_draws = max(len(p.candidates) for p in first)
        similarities = SIMILARITIES if num_draws > 1 else SIMILARITIES[:1]  # the best of one is that one
        scores = []
        for name, records in predictions.items():
            alike = as_many_candidates(first, records)
            scores += self._scored(
                name, similarities if alike else SIMILARITIES[:1], _means(achieved(records, self.encoder))
            )
            if alike:
                scores += self._scored(name, COVERAGE, _means(covered(records, self.encoder, COVERED_FROM)))
            scores += self._texts(name, classifier, by_user(records), lambda p: p.candidates)
        for name, compare in ((OTHERS, floor), (OWN, ceiling)):
            scores += self._scored(name, similarities, _means(compare(first, self.encoder, num_draws, self.seed)))
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
        counts = {  # copied n-grams, copied replies; then what there are of both
            user: found[:, [0, 2, 1, 3]] for user, found in copied(replies, self.training, self.unit).items()
        }
        return self._scored(name, RECOGNITION, _means(judged)) + self._scored(name, COPIES, counts)

    def _scored(self, name: str, metrics: Sequence[str], sums: Sums) -> list[Score]:
        """Each figure of every user, and its mean over users with its interval."""
        everyone = list(sums.values())
        totals = np.stack([items.sum(axis=0) for items in everyone])  # (users, 2 * figures)
        values = _over_users(totals)
        drawn = resample_users(everyone, _over_users, self.num_resamples, self.seed)
        ends = None if drawn is None else bca(drawn, values, jackknife_users(everyone, _over_users))
        scores = []
        for place, metric in enumerate(metrics):
            for (user, items), own in zip(sums.items(), _shares(totals)[:, place], strict=True):
                scores.append(Score(name, user, metric, float(own), None, None, len(items)))
            low, high = (None, None) if ends is None else (float(ends[0][place]), float(ends[1][place]))
            scores.append(Score(name, MACRO, metric, float(values[place]), low, high, len(sums)))
        return scores


def as_many_candidates(first: Sequence[Prediction], records: Sequence[Prediction]) -> bool:
    """Has every turn as many candidates in both? More of them alone make the best of them better."""
    one, other = ({(p.user, p.pair_id): len(p.candidates) for p in system} for system in (first, records))
    return one == other


def person_rows(
    scores: Sequence[Score], systems: Sequence[str], standings: Standings, shown: Container[str]
) -> list[list[str]]:
    """The heading, a row a system, and of the three rows to read them by those that say something.

    Args:
        scores: from `PersonTable.scores`.
        systems: their names, in order.
        standings: how they stand.
        shown: figures that get a column where some system has them.
    """
    found = {(score.system, score.metric): score for score in scores if score.user == MACRO}
    there = {metric for _, metric in found}
    figures = {metric: column for metric, column in PERSON_FIGURES.items() if metric in there and metric in shown}
    rows = [["system", *(heading for heading, _ in figures.values())]]
    for name in (*systems, OTHERS, OWN, REAL):
        cells = []
        for metric, (_, form) in figures.items():
            score = found.get((name, metric))
            standing = standings.get((MACRO, metric)) if name in systems else None
            cells.append("" if score is None else marked(cell(score, form), name, standing))
        if name in systems or any(cells):
            rows.append([name, *cells])
    return rows


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


def _means(items: Mapping[str, np.ndarray]) -> Sums:
    """Plain means as sums: each item counts one, or nothing where it is not a number."""
    found = {user: values.reshape(len(values), -1) for user, values in items.items()}
    return {
        user: np.concatenate([np.nan_to_num(values), (~np.isnan(values)).astype(float)], axis=1)
        for user, values in found.items()
    }
