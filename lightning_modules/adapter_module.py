"""`AdapterModule`: validation, test and prediction with many users' adapters in one batch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from datamodules.batches import IGNORED, Seq2SeqBatch
from lightning_modules.backbones.generation import generate
from lightning_modules.backbones.user_totals import UserTotals
from lightning_modules.lora.adapter_files import load_adapter, retrieved_settings
from lightning_modules.lora.stacked_lora import StackedLora

from .reply_module import Predictions, ReplyModule


class AdapterModule(ReplyModule):
    """Uses adapters from files; a test also tries other users' adapters. A subclass has these attributes."""

    lora: StackedLora
    num_swaps: int | None
    weights_directory: Path  # of the adapters

    @lru_cache(maxsize=64)  # noqa: B019 - the module lives as long as the process
    def _row(self, user: str) -> Tensor:
        retrieved = retrieved_settings(self.trainer.datamodule)
        state = load_adapter(self.weights_directory, user, self.backbone_fingerprint, retrieved)
        return self.lora.from_peft(state).to(self.device)

    def _rows(self, users: list[str]) -> Tensor:  # (u, p)
        return torch.stack([self._row(user) for user in users])

    def saved_rows(self, batch: Seq2SeqBatch) -> Tensor:
        """Each user's own adapter for a batch, (u, p); twice for a user who has twice as many rows."""
        data = self.trainer.datamodule
        return self._rows([data.users[index] for index in batch.user_index.tolist()[:: data.rows_per_user]])

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.swaps = UserTotals()

    def test_step(self, batch: Seq2SeqBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        kind = self.trainer.datamodule.test_kinds[dataloader_idx]
        if kind == "general":
            self._test_general(batch)
            return
        users = self.users_of(batch)
        self._add(kind, users, batch)
        if kind == "own":
            self.lora.activate(None)
            self.tested.add("base", users, *self.row_nll(batch))
            self._swap(users, batch)

    def _add(self, kind: str, users: list[str], batch: Seq2SeqBatch) -> None:
        self.lora.activate(self._rows(users))
        self.tested.add(kind, users, *self.row_nll(batch))

    def _test_general(self, batch: Seq2SeqBatch) -> None:
        """The same pairs under every user's adapter, for as many users at a time as share a batch elsewhere."""
        users, size = self.trainer.datamodule.users, self.trainer.datamodule.users_per_batch
        for start in range(0, len(users), size):
            group = users[start : start + size]
            repeated = Seq2SeqBatch(*(part.repeat(len(group), *[1] * (part.dim() - 1)) for part in batch))
            self._add("general", group, repeated)

    def _swap(self, users: list[str], batch: Seq2SeqBatch) -> None:
        """Test turns under the adapters of users further on in the list."""
        everyone = self.trainer.datamodule.users
        index = {user: number for number, user in enumerate(everyone)}
        steps = len(everyone) - 1
        tried = steps if self.num_swaps is None else self.num_swaps
        for shift in dict.fromkeys(1 + number * steps // tried for number in range(tried if steps else 0)):
            whose = [everyone[(index[user] + shift) % len(everyone)] for user in users]
            self.lora.activate(self._rows(whose))
            nll, tokens = self.row_nll(batch)
            self.tested.add("other", users, nll, tokens)
            for user, other, *own in zip(users, whose, nll.chunk(len(users)), tokens.chunk(len(users)), strict=True):
                self.swaps.add(other, [user], *own)

    def on_test_epoch_end(self) -> None:
        """Logs micro perplexities and writes each user's sums (`backbones/user_totals.py`)."""
        base, own = self.tested.nll["base"], self.tested.nll["own"]
        for kind in self.tested.nll:
            self.log(f"test/{kind}_perplexity", self.tested.perplexity(kind))
        self.log("test/users_better_than_base", float(sum(own[user] < base[user] for user in base)))
        if self.num_swaps is None:
            for user, nll in own.items():
                self.swaps.nll[user][user], self.swaps.tokens[user][user] = nll, self.tested.tokens["own"][user]
        self.write_test(self.swaps if self.num_swaps is None else None)

    def predict_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Predictions:
        """Generates for all rows at once, but scores in pieces: one long reply makes all labels of a batch long."""
        data = self.trainer.datamodule
        scored = []
        for piece in pieces(batch, data.users_per_batch * data.rows_per_user):
            self.lora.activate(self.saved_rows(piece))
            scored.append(self.row_nll(piece))
        nll, tokens = map(torch.cat, zip(*scored, strict=True))
        self.lora.activate(self.saved_rows(batch))
        return Predictions(generate(self.model, batch, self.decoding), nll, tokens)


def pieces(batch: Seq2SeqBatch, size: int) -> list[Seq2SeqBatch]:
    """A batch in pieces of `size` rows, each with labels as long as its longest; a smaller batch unchanged."""
    if len(batch.labels) <= size:
        return [batch]
    split = [Seq2SeqBatch(*fields) for fields in zip(*(field.split(size) for field in batch), strict=True)]
    widths = [max(1, int((piece.labels != IGNORED).sum(1).max())) for piece in split]
    return [piece._replace(labels=piece.labels[:, :width]) for piece, width in zip(split, widths, strict=True)]
