"""Perplexity from summed negative log-likelihoods.

In: sums in nats, and how many label tokens they run over. Out: perplexities.

1. Every reply pair brings two numbers: the summed negative log-likelihood of its reference and its label tokens.
2. Both are added up over everything that is averaged (all pairs of a user, or of all users).
3. One division, one exponential: exp(sum of nll / sum of tokens). The mean of batch or reply means is something else.

Perplexities compare only over the same label tokens, hence the same tokenizer. The paper reports perplexity; whether
per token over all users (micro) or averaged over users (macro) is not stated in the paper, so both are given.
"""

import numpy as np
from numpy.typing import ArrayLike


def perplexity(nll: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """The one division: exp(nll / tokens), elementwise; infinite where the exponential overflows.

    Args:
        nll: Summed negative log-likelihoods in nats.
        tokens: Label tokens that each sum runs over.
    """
    with np.errstate(over="ignore"):
        return np.exp(np.asarray(nll, dtype=np.float64) / np.asarray(tokens, dtype=np.float64))
