"""From the posteriors of a user's chunks to a value: majority vote or product, and when to abstain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from artefacts.ranges import SHARE, require


@dataclass(frozen=True)
class Decision:
    """How a user's chunks are put together.

    Args:
        rule: `vote`, the value that most chunks find most likely (Otsuka et al. 2024), ties going to the value that is
            more likely on average; or `product`, the normalised product of the chunks' posteriors, to the power of
            one over their number, because chunks of one person are no independent witnesses.
        min_vote: a chunk whose best value is less likely than this has no vote, unless that is true of all of them
            (not stated in the paper).
        min_posterior: an attribute that is less sure than this is left out of the profile (not stated in the paper).
    """

    rule: Literal["vote", "product"] = "vote"
    min_vote: float = 0.5
    min_posterior: float = 0.0

    def __post_init__(self) -> None:
        require(vars(self), min_vote=SHARE, min_posterior=SHARE)

    def decide(self, chunks: np.ndarray) -> tuple[int, float]:
        """The most likely value by posteriors of (chunks, values), and its own: for `vote` the mean over the chunks."""
        if self.rule == "product":
            logarithms = np.log(np.maximum(chunks, 1e-12)).mean(axis=0)
            posterior = np.exp(logarithms - logarithms.max())
            posterior /= posterior.sum()
            best = int(posterior.argmax())
        else:
            posterior = chunks.mean(axis=0)
            votes = chunks.max(axis=1) >= self.min_vote
            voting = chunks[votes] if votes.any() else chunks
            counts = np.bincount(voting.argmax(axis=1), minlength=chunks.shape[1])
            best = int(np.lexsort((posterior, counts))[-1])
        return best, float(posterior[best])

    def row(
        self,
        user: str,
        attribute: str,
        values: Sequence[str],
        chunks: np.ndarray,
        is_short: bool,
        known: tuple[int, str] | None = None,
    ) -> dict[str, Any] | None:
        """One attribute of a user as a row of `profiles.parquet`; None if it is less sure than `min_posterior`.

        `known` is the position among `values`, and the origin, of a label that replaces what is inferred.
        """
        best, posterior = self.decide(chunks) if known is None else (known[0], 1.0)
        if posterior < self.min_posterior:
            return None
        return {
            "user": user,
            "attribute": attribute,
            "value": values[best],
            "posterior": posterior,
            "num_chunks": len(chunks),
            "is_short": is_short,
            "origin": "inferred" if known is None else known[1],
        }

    def judgements(self, chunks: np.ndarray) -> list[tuple[str, int, float]]:
        """(`chunk`, `vote` or `product`, value, posterior): every chunk for itself, and both rules over all of them."""
        alone = [("chunk", int(chunk.argmax()), float(chunk.max())) for chunk in chunks]
        return alone + [(rule, *replace(self, rule=rule).decide(chunks)) for rule in ("vote", "product")]
