"""Everyone's summed losses, and the files that a test leaves of them.

    test_users.csv        a user a row: nats and label tokens of `own` (test turns), `train` (some of their training
                          turns), `general` (some of other people's pairs), each under the weights that the user
                          gets; of adapters also `base` and `other` (test turns without, and under other users')
    test_users.card.json  what that is of: weights, backbone, test split, the two samples
    swaps.csv             user, adapter, nll, tokens: every user's test turns under every user's adapter

A model that is the same for everybody has the same `general` in each row.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

USERS_FILE, CARD_FILE, SWAPS_FILE = "test_users.csv", "test_users.card.json", "swaps.csv"


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

    def write(self, path: Path) -> None:
        """Writes a CSV of the sums, one row per user."""
        users = sorted({user for nll in self.nll.values() for user in nll})
        heading = ["user", *(f"{kind}_{what}" for kind in self.nll for what in ("nll", "tokens"))]
        sums = ([sums[kind][user] for kind in self.nll for sums in (self.nll, self.tokens)] for user in users)
        _write(path, [heading, *([user, *row] for user, row in zip(users, sums, strict=True))])


def write_test(directory: Path, totals: UserTotals, swaps: UserTotals | None, card: dict[str, Any]) -> None:
    """Writes the files of a test; the card goes first and comes last, so that it is never of other sums.

    Args:
        directory: of the run.
        totals: sums by kind.
        swaps: sums by the adapter's user; None removes those of an earlier test.
        card: what the sums are of.
    """
    (directory / CARD_FILE).unlink(missing_ok=True)
    totals.write(directory / USERS_FILE)
    (directory / SWAPS_FILE).unlink(missing_ok=True)
    if swaps is not None:
        rows = [
            [user, adapter, nll, swaps.tokens[adapter][user]]
            for adapter, sums in sorted(swaps.nll.items())
            for user, nll in sorted(sums.items())
        ]
        _write(directory / SWAPS_FILE, [["user", "adapter", "nll", "tokens"], *sorted(rows)])
    (partial := directory / f"{CARD_FILE}.partial").write_text(json.dumps(card, indent=1) + "\n")
    os.replace(partial, directory / CARD_FILE)


def _write(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (partial := path.with_suffix(".partial")).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    os.replace(partial, path)
