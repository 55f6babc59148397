"""How far a system speaks like the person, in figures that can be read: each stands between what chance and what the
person themselves would get.

In: predictions of several systems over the same reply pairs, the users' training turns, a sentence encoder. Out: rows
of cells. Not its job: the single scores (`calibration.py`, `identification.py`, `memorisation.py`).

    others' replies    floor of similarity: real replies of other users to the same type of context
    own other replies  ceiling of similarity: real replies of the same user to other contexts of that type
    real replies       what the person really said: how well it is recognised, how much of it stands in training

All figures are means over users of a user's figure; intervals are 95 % BCa bootstrap over users, then items.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evaluation.calibration import achieved, ceiling, covered, floor
from evaluation.identification import UserClassifier
from evaluation.intervals import bca, jackknife_users, resample_users
from evaluation.memorisation import copied
from evaluation.predictions import Prediction, by_user
from evaluation.similarity import TextEncoder
from evaluation.text_metrics import Unit

HEADING = [
    "system",
    "sim",
    "best of n",
    "coverage",
    "recognised",
    "in first 5",
    "MRR",
    "copied 5-grams",
    "whole replies",
]
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

    def rows(self, predictions: Mapping[str, Sequence[Prediction]]) -> list[list[str]]:
        """The heading, a row a system, and the three rows to read them by."""
        first = next(iter(predictions.values()))
        users = by_user(first)
        classifier = UserClassifier({user: self.training[user] for user in users}, seed=self.seed)
        num_draws = max(len(p.candidates) for p in first)
        rows = [HEADING]
        for name, records in predictions.items():
            own = by_user(records)
            similar = self._cells(_means(achieved(records, self.encoder)))
            reached = self._cells(_means(covered(records, self.encoder, COVERED_FROM)))
            rows.append([name, *similar, *reached, *self._texts(classifier, own, lambda p: p.candidates)])
        for name, compare in ((OTHERS, floor), (OWN, ceiling)):
            similar = self._cells(_means(compare(first, self.encoder, num_draws, self.seed)))
            rows.append([name, *similar, *[""] * (len(HEADING) - 3)])
        return [*rows, [REAL, "", "", "", *self._texts(classifier, users, lambda p: (p.reference,))]]

    def _texts(
        self,
        classifier: UserClassifier,
        users: Mapping[str, Sequence[Prediction]],
        texts: Callable[[Prediction], Sequence[str]],
    ) -> list[str]:
        """Recognition by the first text of each item, and what all texts copy."""
        judged = classifier.judge({user: [texts(p)[0] for p in items] for user, items in users.items()})
        replies = {user: [text for p in items for text in texts(p)] for user, items in users.items()}
        counts = {  # copied n-grams, copied replies; then what there are of both
            user: found[:, [0, 2, 1, 3]] for user, found in copied(replies, self.training, self.unit).items()
        }
        return self._cells(_means(judged)) + self._cells(counts, ".1%")

    def _cells(self, sums: Sums, form: str = ".3f") -> list[str]:
        """Mean over users of each figure, with its interval."""

        def figures(totals: np.ndarray) -> np.ndarray:  # (..., users, 2 * figures)
            above, below = np.split(totals, 2, axis=-1)
            shares = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
            return np.nanmean(shares, axis=-2)

        everyone = list(sums.values())
        values = figures(np.stack([items.sum(axis=0) for items in everyone]))
        drawn = resample_users(everyone, figures, self.num_resamples, self.seed)
        if drawn is None:
            return [format(value, form) for value in values]
        low, high = bca(drawn, values, jackknife_users(everyone, figures))
        return [f"{v:{form}} [{a:{form}}, {b:{form}}]" for v, a, b in zip(values, low, high, strict=True)]


def _means(items: Mapping[str, np.ndarray]) -> Sums:
    """Plain means as sums: each item counts one, or nothing where it is not a number."""
    found = {user: values.reshape(len(values), -1) for user, values in items.items()}
    return {
        user: np.concatenate([np.nan_to_num(values), (~np.isnan(values)).astype(float)], axis=1)
        for user, values in found.items()
    }
