"""Summed losses of each user, added up batch by batch; `artefacts/user_sums.py` has the files that a test leaves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from artefacts.user_sums import Losses

MOST_WAITING = 1024


def perplexity_of(loss: float) -> float:
    """Of nats per token; infinite where it is too large for a number, as when a training diverges."""
    return math.exp(loss) if loss < 709 else math.inf


class UserTotals:
    """Negative log-likelihood in nats and label tokens, summed by kind of turns and weights, and by user."""

    def __init__(self) -> None:
        self._nll: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._tokens: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._waiting: list[tuple[str, Sequence[str], Tensor, Tensor]] = []

    def add(self, kind: str, users: Sequence[str], nll: Tensor, tokens: Tensor) -> None:
        """Adds the rows, (u * rows,), of a batch with equally many of each user; without waiting for the device."""
        self._waiting.append((kind, users, nll.view(len(users), -1).sum(1), tokens.view(len(users), -1).sum(1)))
        if len(self._waiting) >= MOST_WAITING:
            self._fetch()

    def _fetch(self) -> None:
        """Fetches from the device what waits there, in two copies, and adds it up in the order it came in."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        names = [(kind, user) for kind, users, _, _ in waiting for user in users]
        nll, tokens = (torch.cat([one[part] for one in waiting]).tolist() for part in (2, 3))
        for (kind, user), own, count in zip(names, nll, tokens, strict=True):
            self._nll[kind][user] += own
            self._tokens[kind][user] += count

    @property
    def nll(self) -> dict[str, dict[str, float]]:
        """Nats by kind and user."""
        self._fetch()
        return self._nll

    @property
    def tokens(self) -> dict[str, dict[str, int]]:
        """Label tokens by kind and user."""
        self._fetch()
        return self._tokens

    def losses(self, kind: str) -> dict[str, float]:
        """Nats per label token of every user who has any."""
        return {user: nll / self.tokens[kind][user] for user, nll in self.nll[kind].items()}

    def perplexity(self, kind: str) -> float:
        """Of all users' tokens together."""
        return perplexity_of(sum(self.nll[kind].values()) / sum(self.tokens[kind].values()))

    def sums(self) -> dict[str, Losses]:
        """Nats and label tokens by kind and user."""
        return {
            kind: {user: (nll, self.tokens[kind][user]) for user, nll in users.items()}
            for kind, users in self.nll.items()
        }
