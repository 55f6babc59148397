"""The figures of a table: per user and overall, each with its interval.

In: predictions of several systems over the same reply pairs. Out: `Score` records. Figures, per user and overall
(micro: all turns pooled; macro: mean over users of the per-user figure):

- perplexity = exp(sum nll / sum tokens);
- similarity = mean over turns of the turn's mean cosine over its candidates;
- ratio = perplexity / perplexity of the reference system; change = similarity - similarity of the reference system.

Shapes: B resamples, S systems, 4 sums (nll, tokens, cosine, turns), 4 figures (`METRICS`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.perplexity import perplexity
from evaluation.metrics.similarity import TextEncoder
from evaluation.results.predictions import Prediction, by_user
from evaluation.statistics.bootstrap import bca, jackknife_items, jackknife_users, resample_items, resample_users

METRICS = ("perplexity", "similarity", "perplexity_ratio", "similarity_change")
COMPARISONS = METRICS[2:]
MICRO, MACRO, CORPUS, RUN = "(micro)", "(macro)", "(corpus)", "(run)"
OVERALL = (MICRO, MACRO, CORPUS, RUN)


@dataclass(frozen=True)
class Score:
    """One line of `table.csv`.

    Attributes:
        system: Name of the system.
        user: Full name of the user, or (micro), (macro), (corpus), (run).
        metric: Name of the figure; in the file similarities carry their encoder: "similarity:all-MiniLM-L6-v2".
        value: The figure.
        low: Lower end of the 95 % interval, None without interval.
        high: Upper end.
        n: What was averaged: turns of the user or of all users, users for (macro), replies for (corpus), 1 for (run).
    """

    system: str
    user: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


def user_scores(systems: list[str], users: dict[str, np.ndarray], num_resamples: int, seed: int) -> list[Score]:
    """Scores of every user, then the two overall rows.

    Args:
        systems: Names; the first is the reference the others are compared to.
        users: What every turn adds to the sums, from `items_of_users`.
        num_resamples: Bootstrap resamples for the intervals.
        seed: Seed of the bootstrap.
    """
    scores = []
    for user, items in users.items():
        figures = _figures(items.sum(axis=0))  # (S, 4)
        drawn = resample_items(items, _figures, num_resamples, seed)  # (B, S, 4)
        ends = None if drawn is None else bca(drawn, figures, jackknife_items(items, _figures))
        scores += _row(systems, user, figures, ends, len(items), users)
    everyone = list(users.values())
    overall = _overall(np.stack([items.sum(axis=0) for items in everyone]))  # (2, S, 4)
    drawn = resample_users(everyone, _overall, num_resamples, seed)  # (B, 2, S, 4)
    ends = None if drawn is None else bca(drawn, overall, jackknife_users(everyone, _overall))
    sizes = {MICRO: sum(map(len, everyone)), MACRO: len(users)}
    for index, (name, n) in enumerate(sizes.items()):
        scores += _row(systems, name, overall[index], ends and (ends[0][index], ends[1][index]), n, users)
    return scores


def _row(
    systems: list[str],
    name: str,
    figures: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray] | None,
    n: int,
    users: dict[str, np.ndarray],
) -> list[Score]:
    """One row of the table: figures and both ends of their intervals `(S, 4)`."""
    scores = []
    for s, (system, comparable) in enumerate(zip(systems, same_tokens(users), strict=True)):
        for m, metric in enumerate(METRICS):
            if (metric in COMPARISONS and s == 0) or (metric == "perplexity_ratio" and not comparable):
                continue
            if metric == "perplexity" and np.isnan(figures[s, m]):  # the system gives no likelihoods
                continue
            low, high = (float(end[s, m]) for end in ends) if ends else (None, None)
            scores.append(Score(system, name, metric, float(figures[s, m]), low, high, n))
    return scores


def items_of_users(predictions: dict[str, list[Prediction]], text_encoder: TextEncoder | None) -> dict[str, np.ndarray]:
    """What every turn adds to the sums, per user: `(turns, S, 4)`; without an encoder all cosines are 0."""
    sums = {}
    for name, records in predictions.items():
        replies, references = reply_pairs(records)
        cosines = iter(text_encoder.cosines(replies, references) if text_encoder else np.zeros(len(replies)))
        for p in records:
            nll, tokens = (np.nan, np.nan) if p.nll is None else (p.nll, p.tokens)
            sums[name, p.user, p.pair_id] = nll, tokens, np.mean([next(cosines) for _ in p.candidates]), 1.0
    reference = next(iter(predictions.values()))
    return {
        user: np.array([[sums[name, user, p.pair_id] for name in predictions] for p in pairs], dtype=np.float64)
        for user, pairs in by_user(reference).items()
    }


def reply_pairs(records: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """Every candidate with its own reference, in order."""
    return [reply for p in records for reply in p.candidates], [p.reference for p in records for _ in p.candidates]


def same_tokens(users: dict[str, np.ndarray]) -> np.ndarray:
    """Per system: do its label token counts equal those of the reference system, turn by turn?"""
    tokens = np.concatenate(list(users.values()))[:, :, 1]  # (turns, S)
    return (tokens == tokens[:, :1]).all(axis=0)


def _figures(sums: np.ndarray) -> np.ndarray:
    """Sums `(..., S, 4)` to figures `(..., S, 4)`."""
    nll, tokens, cosine, turns = np.moveaxis(sums, -1, 0)
    return _against_reference(np.stack([perplexity(nll, tokens), cosine / turns], axis=-1))


def _overall(sums: np.ndarray) -> np.ndarray:
    """Sums per user `(..., users, S, 4)` to figures `(..., 2, S, 4)`: micro, macro."""
    macro = _figures(sums)[..., :2].mean(axis=-3)
    return np.stack([_figures(sums.sum(axis=-3)), _against_reference(macro)], axis=-3)


def _against_reference(values: np.ndarray) -> np.ndarray:
    """Perplexity and similarity `(..., S, 2)`, then ratio and change against the first system."""
    ratio = values[..., 0] / values[..., :1, 0]
    change = values[..., 1] - values[..., :1, 1]
    return np.concatenate([values, ratio[..., None], change[..., None]], axis=-1)
