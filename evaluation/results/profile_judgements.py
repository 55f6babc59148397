"""What systems that infer profiles say of people who have declared theirs: a `judgements.parquet` per system."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = {"user", "is_short", "attribute", "label", "decision", "value", "posterior"}


@dataclass(frozen=True)
class Judgements:
    """What one system says about one attribute, a row a user, in the order of their names."""

    users: list[str]
    labels: list[str]  # what they declare
    right: np.ndarray  # whether the value decided on is the label, (users,) bool
    posterior: np.ndarray  # how sure the system is of it, (users,)
    chunks: np.ndarray  # share of the user's chunks with the right value, (users,)

    @property
    def majority(self) -> float:
        """Share of the most common label."""
        return Counter(self.labels).most_common(1)[0][1] / len(self.labels)

    def bins(self, number: int) -> np.ndarray:
        """Right minus posterior of each user in the bin of that posterior, (users, bins); its sums make the ECE."""
        bins = np.clip(np.ceil(self.posterior * number).astype(int) - 1, 0, number - 1)
        gaps = np.zeros((len(self.users), number))
        gaps[np.arange(len(self.users)), bins] = self.right - self.posterior
        return gaps

    def covered(self) -> np.ndarray:
        """Share of right values among the surest 1, 2, ... users, (users,)."""
        order = np.argsort(-self.posterior, kind="stable")
        return np.cumsum(self.right[order]) / np.arange(1, len(order) + 1)


def read_judgements(path: Path, decision: str, whole_chunk_only: bool = False) -> dict[str, Judgements]:
    """Attribute → what a system says of everybody who has a label, or of those with a whole chunk of posts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, lacks columns or has no such decisions.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no judgements in {path}; `lightning test` of a profile experiment writes them")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); write it anew") from None
    if missing := COLUMNS - set(table.column_names):
        raise ValueError(f"{path} lacks the columns {sorted(missing)}; it has {table.column_names}")
    return _by_attribute(path, table.to_pylist(), decision, whole_chunk_only)


def _by_attribute(
    path: Path, rows: Sequence[dict[str, Any]], decision: str, whole_chunk_only: bool
) -> dict[str, Judgements]:
    decided: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    chunks: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in rows:
        if whole_chunk_only and row["is_short"]:
            continue
        if row["decision"] == "chunk":
            chunks[row["attribute"], row["user"]].append(row["value"] == row["label"])
        elif row["decision"] == decision:
            decided[row["attribute"]][row["user"]] = row
    if not decided:
        whom = " about users with a whole chunk of posts" if whole_chunk_only else ""
        raise ValueError(f"{path} has no decisions by {decision!r}{whom}")
    judgements = {}
    for attribute, by_user in decided.items():
        users = sorted(by_user)
        if silent := [user for user in users if not chunks[attribute, user]]:
            raise ValueError(f"{path} has no chunks of {len(silent)} users, among them {silent[0]!r}")
        judgements[attribute] = Judgements(
            users=users,
            labels=[by_user[user]["label"] for user in users],
            right=np.array([by_user[user]["value"] == by_user[user]["label"] for user in users]),
            posterior=np.array([by_user[user]["posterior"] for user in users]),
            chunks=np.array([np.mean(chunks[attribute, user]) for user in users]),
        )
    return judgements


def require_same_people(name: str, ours: dict[str, Judgements], other: str, theirs: dict[str, Judgements]) -> None:
    """Raises ValueError where two systems were judged on other users or other labels."""
    for attribute in ours.keys() & theirs.keys():
        one, two = (dict(zip(j[attribute].users, j[attribute].labels, strict=True)) for j in (ours, theirs))
        if one != two:
            raise ValueError(
                f"{attribute}: {name} was judged on {len(one)} users and {other} on {len(two)}, or their labels "
                "differ; test both on the same data"
            )
