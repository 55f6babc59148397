"""Perplexity from summed negative log-likelihoods.

In: `Prediction` records, each with a sum in nats and a token count. Out: perplexities.

1. Every reply pair brings two numbers: the summed negative log-likelihood of its reference and its label tokens.
2. Both are added up over everything that is averaged (all pairs of a user, or of all users).
3. One division, one exponential: exp(sum of nll / sum of tokens). The mean of batch or reply means is something else.

Perplexities compare only over the same label tokens, hence the same tokenizer. The paper reports perplexity; whether
per token over all users (micro) or averaged over users (macro) is not stated in the paper, so both are given.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from evaluation.predictions import Prediction, by_user


def perplexity(nll: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """The one division: exp(nll / tokens), elementwise; infinite where the exponential overflows.

    Args:
        nll: Summed negative log-likelihoods in nats.
        tokens: Label tokens that each sum runs over.
    """
    with np.errstate(over="ignore"):
        return np.exp(np.asarray(nll, dtype=np.float64) / np.asarray(tokens, dtype=np.float64))


def micro_perplexity(predictions: Sequence[Prediction]) -> float:
    """Perplexity over all tokens of all users: exp(sum nll / sum tokens). Talkative users weigh more."""
    return float(perplexity(sum(p.nll for p in predictions), sum(p.tokens for p in predictions)))


def user_perplexities(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Perplexity of every user over that user's own tokens, users sorted by name."""
    return {user: micro_perplexity(pairs) for user, pairs in by_user(predictions).items()}


def macro_perplexity(predictions: Sequence[Prediction]) -> float:
    """Arithmetic mean over users of per-user perplexity: every user weighs the same."""
    return float(np.mean(list(user_perplexities(predictions).values())))
