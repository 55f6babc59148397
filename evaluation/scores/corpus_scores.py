"""Scores of the texts of a whole corpus, with intervals over users where a score is made from sums.

In: predictions of several systems. Out: `Score` records.

A draw takes users, then turns within them, with all candidates of a turn, and computes the score from
the sums. Distinct-n is no sum: a draw would have turns twice and so fewer different n-grams. It has no interval.

Shapes: K sums of all scores side by side, F scores.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.metrics.text_metrics import Sums, Unit, chrf, distinct, length_ratio, rouge_l, sacrebleu, self_bleu
from evaluation.results.predictions import Prediction, by_user
from evaluation.scores.user_scores import CORPUS, Score, reply_pairs
from evaluation.statistics.bootstrap import bca, jackknife_users, resample_users
from evaluation.statistics.significance import TESTED

TEXT_METRICS = ("distinct-1", "distinct-2", "length_ratio", "chrF", "sacreBLEU", "ROUGE-L", "self-BLEU")


def corpus_scores(
    predictions: Mapping[str, Sequence[Prediction]], unit: Unit, num_resamples: int, seed: int
) -> list[Score]:
    """The scores of texts of every system over all its replies, and how alike the candidates of one context are.

    Those that are tested are there for every user, too.

    Args:
        predictions: Of every system.
        unit: What n-grams and lengths count.
        num_resamples: Bootstrap resamples for the intervals.
        seed: Of the bootstrap.
    """
    scores = []
    for name, records in predictions.items():
        ordered = [p for items in by_user(records).values() for p in items]
        replies, _ = reply_pairs(ordered)
        for n in (1, 2):
            scores.append(Score(name, CORPUS, f"distinct-{n}", distinct(replies, n, unit), None, None, len(replies)))
        sums = _sums_of_turns(ordered, unit)
        ends = _intervals(sums, ordered, num_resamples, seed)
        users, starts = np.unique([p.user for p in ordered], return_index=True)  # they are sorted by user
        for place, (metric, found) in enumerate(sums.items()):
            low, high = (None, None) if ends is None else (float(ends[0][place]), float(ends[1][place]))
            scores.append(Score(name, CORPUS, metric, found.value, low, high, len(replies)))
            if (CORPUS, metric) in TESTED:
                own = found.score(np.add.reduceat(found.columns, starts))
                turns = np.diff([*starts, len(ordered)])
                scores += [
                    Score(name, str(user), metric, float(value), None, None, int(n))
                    for user, value, n in zip(users, own, turns, strict=True)
                ]
    return scores


def _sums_of_turns(records: Sequence[Prediction], unit: Unit) -> dict[str, Sums]:
    """Every score with a row a turn: what its candidates add together."""
    replies, references = reply_pairs(records)
    first = np.cumsum([0, *(len(p.candidates) for p in records[:-1])])  # of each turn's candidates
    of_replies = {
        "length_ratio": length_ratio(replies, references, unit),
        "chrF": chrf(replies, references),
        "sacreBLEU": sacrebleu(replies, references, unit),
        "ROUGE-L": rouge_l(replies, references, unit),
    }
    found = {key: Sums(np.add.reduceat(sums.columns, first), sums.score) for key, sums in of_replies.items()}
    alike = self_bleu([p.candidates for p in records], unit)
    return found if alike is None else {**found, "self-BLEU": alike}


def _intervals(
    sums: Mapping[str, Sums], records: Sequence[Prediction], num_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Both ends for every score, (F,); None with too few users."""
    borders = np.cumsum([one.columns.shape[1] for one in sums.values()])[:-1]
    columns = np.concatenate([one.columns for one in sums.values()], axis=1)  # (turns, K)
    _, starts = np.unique([p.user for p in records], return_index=True)
    users = np.split(columns, starts[1:])  # records are sorted by user

    def figures(totals: np.ndarray) -> np.ndarray:  # (draws, users, K) to (draws, F)
        pieces = np.split(totals.sum(axis=-2), borders, axis=-1)
        return np.stack([one.score(piece) for one, piece in zip(sums.values(), pieces, strict=True)], axis=-1)

    drawn = resample_users(users, figures, num_resamples, seed)
    if drawn is None:
        return None
    return bca(drawn, np.array([one.value for one in sums.values()]), jackknife_users(users, figures))
