"""MAUVE: how near the distribution of generated replies is to that of real ones, between 0 (about 0.004) and 1.

Both sets of vectors are put into n / 10 clusters; MAUVE is the area under exp(-5 KL) of the two histograms from their
mixtures (Pillutla et al. 2021, NeurIPS). It is computed by mauve-text, which is not installed with this project. The
paper has no such score.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from evaluation.metrics.similarity import TextEncoder

MIN_TEXTS = 1000  # with fewer there are too few clusters, and the score depends on their number more than on the texts


def mauve(generated: Sequence[str], references: Sequence[str], encoder: TextEncoder, seed: int = 0) -> float:
    """MAUVE of two corpora of replies, which need not be one for one.

    It depends on the number of replies, so it compares only between corpora of the same size: take one candidate a
    context.

    Raises:
        ValueError: If a side has fewer than `MIN_TEXTS` replies, or mauve-text is not installed.
    """
    if min(len(generated), len(references)) < MIN_TEXTS:
        raise ValueError(
            f"MAUVE needs at least {MIN_TEXTS} replies a side, got {len(generated)} generated and "
            f"{len(references)} real ones"
        )
    require_mauve()
    from mauve import compute_mauve

    result = compute_mauve(encoder.vectors(references), encoder.vectors(generated), seed=seed)
    # Its own `.mauve` sorts the curve by one coordinate, and ties make it 0.75 where the two corpora are the same.
    x, y = result.divergence_curve.T
    return float(abs(np.trapezoid(y, x)))


def require_mauve() -> None:
    """Raises ValueError if mauve-text is not installed; says how to install it."""
    if find_spec("mauve") is None:
        raise ValueError("MAUVE needs the package mauve-text: pip install -e '.[mauve]'; or set mauve=false")
