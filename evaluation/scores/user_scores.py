"""Perplexity and similarity, per user and overall, each with its interval.

Figures, per user and overall (micro: all turns pooled; macro: mean over users of the per-user figure):

- perplexity = exp(sum nll / sum tokens): one division, one exponential; the mean of batch or reply means is something
  else;
- similarity = mean over turns of the turn's mean cosine over its candidates;
- ratio = perplexity / perplexity of the reference system; change = similarity - similarity of the reference system.

Perplexities compare only over the same label tokens, hence the same tokenizer. The paper reports perplexity; whether
per token over all users (micro) or averaged over users (macro) is not stated in the paper, so both are given.

Shapes: B resamples, S systems, 4 sums (nll, tokens, cosine, turns), 4 figures (`USER_FIGURES`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from artefacts.predictions import Prediction
from evaluation.metrics.similarity import TextEncoder
from evaluation.results.predictions import by_user, reply_pairs
from evaluation.scores.figure import ENCODER, MACRO, MICRO, Score, UserFigure
from evaluation.statistics.bootstrap import Bootstrap

PERPLEXITY = UserFigure(
    name="perplexity",
    title="ppl",
    rows=(MICRO, MACRO),
    format=".2f",
    higher_is_better=False,
    is_tested=True,
    description="ppl: perplexity per label token.",
    user_title="{system} ppl",
    macro_title="macro ppl",
    axis="perplexity",
)
SIMILARITY = UserFigure(
    name="similarity",
    title="sim",
    rows=(MICRO, MACRO),
    higher_is_better=True,
    is_tested=True,
    names_encoder=True,
    description="sim: mean cosine of generated and reference reply, encoder {encoder}, mean over a turn's candidates, "
    "an empty reply counts 0.",
    needs=ENCODER,
    user_title="{system} sim",
    axis="similarity",
)
PERPLEXITY_RATIO = UserFigure(
    name="perplexity_ratio",
    title="% of {reference}",
    rows=(MICRO, MACRO),
    format=".1f",
    scale=100.0,
    higher_is_better=False,
    user_title="{system}/{reference} ppl %",
    macro_title="macro %",
    axis="perplexity, % of {reference}",
    neutral=1.0,
)
SIMILARITY_CHANGE = UserFigure(
    name="similarity_change",
    title="change of sim",
    rows=(MICRO, MACRO),
    format="+.3f",
    higher_is_better=True,
    names_encoder=True,
    needs=ENCODER,
    user_title="{system}-{reference} sim",
    axis="similarity, change from {reference}",
    neutral=0.0,
)
USER_FIGURES = (PERPLEXITY, SIMILARITY, PERPLEXITY_RATIO, SIMILARITY_CHANGE)


def user_scores(systems: Sequence[str], users: Mapping[str, np.ndarray], bootstrap: Bootstrap) -> list[Score]:
    """Scores of every user, then the two overall rows; `users` are from `items_of_users`."""
    scores = []
    comparable = same_tokens(users)

    def add_row(name: str, values: np.ndarray, ends: np.ndarray, n: int) -> None:  # (S, 4), (2, S, 4)
        for s, system in enumerate(systems):
            for m, figure in enumerate(USER_FIGURES):
                if (figure.neutral is not None and s == 0) or (figure is PERPLEXITY_RATIO and not comparable[s]):
                    continue
                if figure is PERPLEXITY and np.isnan(values[s, m]):  # the system gives no likelihoods
                    continue
                scores.append(Score(system, name, figure.name, float(values[s, m]), *ends[:, s, m].tolist(), n))

    for user, items in users.items():
        values = _figures(items.sum(axis=0))  # (S, 4)
        add_row(user, values, bootstrap.of_items(items, _figures, values), len(items))
    all_items = list(users.values())
    overall = _overall(np.stack([items.sum(axis=0) for items in all_items]))  # (2, S, 4)
    ends = bootstrap.of_users(all_items, _overall, overall)
    for index, (name, n) in enumerate({MICRO: sum(map(len, all_items)), MACRO: len(users)}.items()):
        add_row(name, overall[index], ends[:, index], n)
    return scores


def items_of_users(
    predictions: Mapping[str, Sequence[Prediction]], text_encoder: TextEncoder | None
) -> dict[str, np.ndarray]:
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


def same_tokens(users: Mapping[str, np.ndarray]) -> np.ndarray:
    """Per system: do its label token counts equal those of the reference system, turn by turn?"""
    tokens = np.concatenate(list(users.values()))[:, :, 1]  # (turns, S)
    return (tokens == tokens[:, :1]).all(axis=0)


def perplexity(nll: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """exp(nll / tokens) of summed nats, elementwise; infinite where the exponential overflows."""
    with np.errstate(over="ignore"):
        return np.exp(np.asarray(nll, dtype=np.float64) / np.asarray(tokens, dtype=np.float64))


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
