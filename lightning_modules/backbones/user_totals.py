"""Summed losses of each user, added up batch by batch; `artefacts/user_sums.py` has the files that a test leaves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor

from artefacts.user_sums import Losses


class UserTotals:
    """Negative log-likelihood in nats and label tokens, summed by kind of turns and weights, and by user."""

    def __init__(self) -> None:
        self.nll: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.tokens: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, kind: str, users: Sequence[str], nll: Tensor, tokens: Tensor) -> None:
        """Adds the rows, (u * rows,), of a batch with equally many of each user."""
        for user, own, count in zip(users, nll.chunk(len(users)), tokens.chunk(len(users)), strict=True):
            self.nll[kind][user] += own.sum().item()
            self.tokens[kind][user] += int(count.sum())

    def losses(self, kind: str) -> dict[str, float]:
        """Nats per label token of every user who has any."""
        return {user: nll / self.tokens[kind][user] for user, nll in self.nll[kind].items()}

    def perplexity(self, kind: str) -> float:
        """Of all users' tokens together."""
        return math.exp(sum(self.nll[kind].values()) / sum(self.tokens[kind].values()))

    def sums(self) -> dict[str, Losses]:
        """Nats and label tokens by kind and user."""
        return {
            kind: {user: (nll, self.tokens[kind][user]) for user, nll in users.items()}
            for kind, users in self.nll.items()
        }
