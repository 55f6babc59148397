"""Summed losses of each user, as a test leaves them in its run.

    test_users.csv        a user a row: nats and label tokens of `own` (test turns), `train` (some of their training
                          turns), `general` (some of other people's pairs), each under the weights that the user
                          gets; of adapters also `base` and `other` (test turns without, and under other users')
    test_users.card.json  what that is of: weights, backbone, test split, the two samples
    swaps.csv             user, adapter, nll, tokens: each user's test turns under each user's adapter

A model that is the same for all users has the same `general` in each row.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artefacts.described import described
from artefacts.files import replacing, write_json
from artefacts.layout import SWAPS, TEST_USERS, card_of

Losses = Mapping[str, tuple[float, int]]
"""User → nats and label tokens."""


def write_user_sums(
    directory: Path, kinds: Mapping[str, Losses], swaps: Mapping[str, Losses] | None, card: dict[str, Any]
) -> None:
    """Writes the files of a test; the card, with their SHA-256, is removed first and written last: never of other sums.

    `kinds` are own, train, ...; `swaps` has the adapter's user → losses, and None removes those of an earlier test.
    """
    path, swaps_path = directory / TEST_USERS, directory / SWAPS
    card_of(path).unlink(missing_ok=True)
    write_kinds(path, kinds)
    swaps_path.unlink(missing_ok=True)
    if swaps is not None:
        rows = [[user, adapter, *sums] for adapter, losses in swaps.items() for user, sums in losses.items()]
        _write(swaps_path, [["user", "adapter", "nll", "tokens"], *sorted(rows)])
    written = [path] if swaps is None else [path, swaps_path]
    write_json(card_of(path), {**card, **described(*written)})


def write_kinds(path: Path, kinds: Mapping[str, Losses]) -> None:
    """Writes a CSV of the sums, one row per user; a user who lacks a kind has zeros."""
    heading = ["user", *(f"{kind}_{what}" for kind in kinds for what in ("nll", "tokens"))]
    users = sorted({user for losses in kinds.values() for user in losses})
    rows = ([user, *(x for losses in kinds.values() for x in losses.get(user, (0.0, 0)))] for user in users)
    _write(path, [heading, *rows])


def read_kinds(path: Path, wanted: Sequence[str]) -> dict[str, dict[str, tuple[float, int]]]:
    """The losses of these kinds; a kind, or a user of it, without label tokens is missing.

    Raises ValueError where a line is damaged, or there is nothing of `own`.
    """
    kinds: dict[str, dict[str, tuple[float, int]]] = {}
    for number, row in _lines(path):
        for kind in wanted:
            if f"{kind}_nll" in row:
                sums = _pair(path, number, row, f"{kind}_nll", f"{kind}_tokens")
                if sums[1]:
                    kinds.setdefault(kind, {})[row["user"]] = sums
    if "own" not in kinds:
        raise ValueError(f"{path}: expected the columns own_nll and own_tokens and at least one user")
    return kinds


def read_swaps(path: Path) -> dict[str, dict[str, tuple[float, int]]]:
    """User → losses by the adapter's user; ValueError where a line is damaged or the matrix is not complete."""
    swaps: dict[str, dict[str, tuple[float, int]]] = {}
    for number, row in _lines(path):
        own = swaps.setdefault(row["user"], {})
        if row.get("adapter") in (None, *own):
            raise ValueError(f"{path}, line {number}: the adapter {row.get('adapter')!r} is missing or comes twice")
        own[row["adapter"]] = _pair(path, number, row, "nll", "tokens")
    for user, row in swaps.items():
        if row.keys() < swaps.keys() or user not in row:
            raise ValueError(f"{path}: user {user!r} lacks the adapters of {sorted(swaps.keys() - row.keys())}")
    return swaps


def _write(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(enumerate(csv.DictReader(file), start=2))
    for number, row in rows:
        if not row.get("user"):
            raise ValueError(f"{path}, line {number}: there is no user")
    return rows


def _pair(path: Path, number: int, row: Mapping[str, str], nll: str, tokens: str) -> tuple[float, int]:
    try:
        sums = float(row[nll]), int(row[tokens])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}, line {number}: expected numbers in {nll} and {tokens}") from None
    if not (math.isfinite(sums[0]) and sums[0] >= 0 and sums[1] >= 0):
        raise ValueError(f"{path}, line {number}: {nll} and {tokens} must be finite and not negative, got {sums}")
    return sums
