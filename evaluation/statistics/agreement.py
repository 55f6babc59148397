"""Krippendorff's alpha: how far annotators agree beyond what chance would give; 1 for perfect agreement and 0 for none.

    alpha = 1 - D_o / D_e,    D_o = sum_ck o_ck d_ck,    D_e = sum_ck n_c n_k d_ck / (n - 1)

o_ck: how often values c and k meet in one item, each item's pairs weighted by 1 / (its values - 1); n_c: its row sums;
n: their sum; d_ck: squared difference of c and k (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np


def krippendorff_alpha(items: Sequence[Sequence[int]], level: Literal["nominal", "ordinal"]) -> float | None:
    """Alpha of values that several annotators gave.

    Args:
        items: The values of each item; an item with fewer than two says nothing of agreement.
        level: "nominal": values are equal or not. "ordinal": the difference of two values is how many of all values
            given lie between them, which assumes no equal steps from 1 to 5.

    Returns:
        Alpha; None if all values given are the same, because then agreement and chance cannot be told apart.
    """
    values = sorted({value for item in items for value in item})
    counts = np.array([[list(item).count(value) for value in values] for item in items if len(item) > 1], dtype=float)
    if not counts.size:
        return None
    pairs = counts[:, :, None] * counts[:, None, :]  # (items, values, values)
    pairs -= counts[:, :, None] * np.eye(len(values))  # a value does not meet itself
    coincidences = (pairs / (counts.sum(axis=1) - 1)[:, None, None]).sum(axis=0)  # (values, values)
    totals = coincidences.sum(axis=0)
    if level == "nominal":
        difference = 1.0 - np.eye(len(values))
    else:
        middle = np.cumsum(totals) - totals / 2  # of a value's ranks among all that were given
        difference = (middle[:, None] - middle) ** 2
    expected = (np.outer(totals, totals) * difference).sum() / (totals.sum() - 1)
    return 1.0 - float((coincidences * difference).sum() / expected) if expected else None
