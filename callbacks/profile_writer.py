"""Combines the posteriors of a user's chunks into a profile, and writes profiles.

    predict    <run>/profiles.parquet      user, attribute, value, posterior, num_chunks, is_short, origin
    test       <run>/judgements.parquet    user, is_short, attribute, label, decision (chunk, vote, product), value,
                                           posterior

The origin of a value is `inferred`; with `known_first` it is `declared` or `distant` where a label is known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning import Callback, Trainer
from scipy.stats import binomtest

from artefacts.files import replacing
from artefacts.layout import JUDGEMENTS, PROFILES
from datamodules.batches import EvidenceBatch
from lightning_modules.markov_logic.decisions import Decision
from lightning_modules.markov_logic.network_files import Posteriors
from lightning_modules.profile_network import ProfileNetwork


class ProfileWriter(Callback):
    """Decides on every user's profile.

    Args:
        decision: how chunks are put together, and when an attribute is left out.
        known_first: a known label of a user who has enough posts takes the place of what is inferred. Otherwise
            labels serve learning and judging only, and all profiles are what the method gives.
    """

    def __init__(self, decision: Decision | None = None, known_first: bool = False) -> None:
        self.decision = decision or Decision()
        self.known_first = known_first

    def setup(self, trainer: Trainer, pl_module: ProfileNetwork, stage: str) -> None:
        self.chunks: dict[str, dict[int, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: ProfileNetwork, outputs: Posteriors, batch: EvidenceBatch, *rest: Any
    ) -> None:
        users = trainer.datamodule.user_of_chunk[batch.index.numpy()]
        for attribute, marginals in outputs.items():
            for user, posterior in zip(users.tolist(), marginals.double().numpy(), strict=True):
                self.chunks[attribute][user].append(posterior)

    on_predict_batch_end = on_test_batch_end

    def _judged(self, trainer: Trainer) -> Iterator[tuple[str, list[str], int, int, np.ndarray]]:
        """Attribute, its values, user, the user's label (-1 if unknown) and posteriors of the chunks."""
        data = trainer.datamodule
        columns = {name: column for column, name in enumerate(data.language.attributes)}
        for attribute, users in self.chunks.items():
            values = list(data.language.attributes[attribute].values)
            for user, chunks in users.items():
                yield attribute, values, user, int(data.labels[user, columns[attribute]]), np.stack(chunks)

    def on_predict_end(self, trainer: Trainer, pl_module: ProfileNetwork) -> None:
        data = trainer.datamodule
        rows = []
        for attribute, values, user, label, chunks in self._judged(trainer):
            known = (label, data.labels_from) if self.known_first and label >= 0 else None
            rows.append(self.decision.row(data.users[user], attribute, values, chunks, data.is_short[user], known))
        decided = [row for row in rows if row is not None]
        print(
            f"{len(decided):,} attributes of {len(data.users):,} users; {len(rows) - len(decided):,} more are less "
            f"sure than {self.decision.min_posterior:g} and left out; {sum(data.is_short):,} users have less than one "
            "whole chunk"
        )
        self._write(trainer, PROFILES, decided)

    def on_test_end(self, trainer: Trainer, pl_module: ProfileNetwork) -> None:
        data = trainer.datamodule
        rows = [
            {
                "user": data.users[user],
                "is_short": data.is_short[user],
                "attribute": attribute,
                "label": values[label],
                "decision": decision,
                "value": values[best],
                "posterior": posterior,
            }
            for attribute, values, user, label, chunks in self._judged(trainer)
            if label >= 0
            for decision, best, posterior in self.decision.judgements(chunks)
        ]
        self._write(trainer, JUDGEMENTS, rows)
        print(accuracy_table(rows))

    def _write(self, trainer: Trainer, name: str, rows: list[dict[str, Any]]) -> None:
        if trainer.fast_dev_run:
            return
        path = Path(trainer.default_root_dir) / name
        with replacing(path) as partial:
            pq.write_table(pa.Table.from_pylist(rows), partial)
        print(f"wrote {path}")


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    """Share of right values by attribute: always the most common one, per chunk (a user's chunks together count one),
    and per user with the 95 % Wilson interval."""
    lines = ["", "| attribute | users | majority | chunk | vote | product |", "|---|---:|---:|---:|---:|---:|"]
    for attribute in dict.fromkeys(row["attribute"] for row in rows):
        mine = [row for row in rows if row["attribute"] == attribute]
        labels = Counter(row["label"] for row in mine if row["decision"] == "vote")
        num_users = sum(labels.values())
        cells = [attribute, str(num_users), f"{labels.most_common(1)[0][1] / num_users:.3f}"]
        by_user: dict[str, list[bool]] = defaultdict(list)
        for row in mine:
            if row["decision"] == "chunk":
                by_user[row["user"]].append(row["value"] == row["label"])
        cells.append(f"{np.mean([np.mean(chunks) for chunks in by_user.values()]):.3f}")
        for rule in ("vote", "product"):
            right = sum(row["value"] == row["label"] for row in mine if row["decision"] == rule)
            interval = binomtest(right, num_users).proportion_ci(method="wilson")
            cells.append(f"{right / num_users:.3f} [{interval.low:.3f}, {interval.high:.3f}]")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
