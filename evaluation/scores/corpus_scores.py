"""Scores of the texts of a whole corpus, with intervals over users where a score is made from sums.

A draw takes users, then turns within them, with all candidates of a turn, and computes the score from
the sums. Distinct-n is no sum: a draw would have turns twice and so fewer different n-grams. It has no interval.

Shapes: K sums of all scores side by side, F scores.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from artefacts.predictions import Prediction
from evaluation.metrics.mauve import MIN_TEXTS, mauve
from evaluation.metrics.similarity import TextEncoder
from evaluation.metrics.text_metrics import Sums, Unit, chrf, distinct, length_ratio, rouge_l, sacrebleu, self_bleu
from evaluation.results.predictions import by_user, reply_pairs
from evaluation.scores.figure import CORPUS, MAUVE_SETTING, Figure, Score
from evaluation.statistics.bootstrap import Bootstrap

COUNTED = (
    "distinct-n and length ratio count {unit}s over all candidates. distinct-n falls with more replies, is no sum over "
    "turns, and has no interval; nor have counts of users, nor what is said of a run."
)
DISTINCT = {n: Figure(f"distinct-{n}", f"distinct-{n}", (CORPUS,), description=COUNTED) for n in (1, 2)}
LENGTH_RATIO = Figure("length_ratio", "length ratio", (CORPUS,), description=COUNTED)
CHRF = Figure("chrF", "chrF", (CORPUS,), ".1f", higher_is_better=True, is_tested=True)
SACREBLEU = Figure("sacreBLEU", "sacreBLEU", (CORPUS,), ".1f", higher_is_better=True, is_tested=True)
ROUGE_L = Figure("ROUGE-L", "ROUGE-L", (CORPUS,), higher_is_better=True, is_tested=True)
SELF_BLEU = Figure("self-BLEU", "self-BLEU", (CORPUS,), ".1f")
MAUVE = Figure(
    "MAUVE",
    "MAUVE",
    (CORPUS,),
    description="MAUVE: first candidates against real replies, {turns} a side, features of {encoder}; from "
    f"{MIN_TEXTS} on, comparable only between tables of as many replies, no interval.",
    needs=MAUVE_SETTING,
)
TEXT_FIGURES = (*DISTINCT.values(), LENGTH_RATIO, CHRF, SACREBLEU, ROUGE_L, SELF_BLEU, MAUVE)


def corpus_scores(predictions: Mapping[str, Sequence[Prediction]], unit: Unit, bootstrap: Bootstrap) -> list[Score]:
    """The scores of texts of every system over all its replies, and how alike the candidates of one context are.

    Those that are tested are there for every user, too.
    """
    scores = []
    for name, records in predictions.items():
        ordered = [p for items in by_user(records).values() for p in items]
        replies, _ = reply_pairs(ordered)
        for n, figure in DISTINCT.items():
            scores.append(Score(name, CORPUS, figure.name, distinct(replies, n, unit), None, None, len(replies)))
        sums = _sums_of_turns(ordered, unit)
        users, starts = np.unique([p.user for p in ordered], return_index=True)  # they are sorted by user
        ends = _ends(sums.values(), starts, bootstrap)  # (2, F)
        num_turns = np.diff([*starts, len(ordered)]).tolist()
        for (figure, of_figure), (low, high) in zip(sums.items(), ends.T.tolist(), strict=True):
            scores.append(Score(name, CORPUS, figure.name, of_figure.value, low, high, len(replies)))
            if figure.is_tested:
                values = of_figure.score(np.add.reduceat(of_figure.columns, starts)).tolist()
                scores += [
                    Score(name, str(user), figure.name, value, None, None, n)
                    for user, value, n in zip(users, values, num_turns, strict=True)
                ]
    return scores


def mauve_scores(predictions: Mapping[str, Sequence[Prediction]], encoder: TextEncoder, seed: int) -> list[Score]:
    """MAUVE of every system: the first candidate of each turn against the real replies; none with too few turns."""
    scores = []
    for name, records in predictions.items():
        if len(records) < MIN_TEXTS:
            continue
        value = mauve([p.candidates[0] for p in records], [p.reference for p in records], encoder, seed)
        scores.append(Score(name, CORPUS, MAUVE.name, value, None, None, len(records)))
    return scores


def _sums_of_turns(records: Sequence[Prediction], unit: Unit) -> dict[Figure, Sums]:
    """Every score with a row a turn: what its candidates add together."""
    replies, references = reply_pairs(records)
    first = np.cumsum([0, *(len(p.candidates) for p in records[:-1])])  # of each turn's candidates
    of_replies = {
        LENGTH_RATIO: length_ratio(replies, references, unit),
        CHRF: chrf(replies, references),
        SACREBLEU: sacrebleu(replies, references, unit),
        ROUGE_L: rouge_l(replies, references, unit),
    }
    of_turns = {figure: Sums(np.add.reduceat(s.columns, first), s.score) for figure, s in of_replies.items()}
    alike = self_bleu([p.candidates for p in records], unit)
    return of_turns if alike is None else {**of_turns, SELF_BLEU: alike}


def _ends(sums: Iterable[Sums], starts: np.ndarray, bootstrap: Bootstrap) -> np.ndarray:
    """Both ends of every score, (2, F); the rows of each user begin at `starts`."""
    sums = list(sums)
    borders = np.cumsum([one.columns.shape[1] for one in sums])[:-1]
    columns = np.concatenate([one.columns for one in sums], axis=1)  # (turns, K)

    def values(totals: np.ndarray) -> np.ndarray:  # (draws, users, K) to (draws, F)
        pieces = np.split(totals.sum(axis=-2), borders, axis=-1)
        return np.stack([one.score(piece) for one, piece in zip(sums, pieces, strict=True)], axis=-1)

    return bootstrap.of_users(np.split(columns, starts[1:]), values, np.array([one.value for one in sums]))
