"""`UserLora`: one fit trains the LoRA adapters of all selected users.

Loss, gradient norm, moments, step count, schedule, best weights and early stopping belong to each user: *the result
equals training each user alone*.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from artefacts.layout import ADAPTERS
from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, POSITIVE, SHARE, require
from datamodules.batches import IGNORED, Seq2SeqBatch, to_device
from lightning_modules.backbones.generation import Decoding
from lightning_modules.backbones.likelihood import reply_states, user_nll
from lightning_modules.backbones.user_totals import UserTotals
from lightning_modules.lora.adapter_files import TrainedAdapter
from lightning_modules.lora.per_user_adamw import PerUserAdamW
from lightning_modules.lora.stacked_lora import StackedLora, as_names
from lightning_modules.lora.user_rounds import UserProgress, macro_perplexity, seed_of

from .adapter_module import AdapterModule
from .schedules import warmup_linear
from .user_module import UserModule


class UserLora(UserModule, AdapterModule):
    """LoRA adapters of many users on one frozen backbone (Otsuka et al. 2024: rank 12, a few hundred turns).

    The backbone is in evaluation mode: its dropout, where it has any, is off, and the result equals PEFT's training of
    each user on `model.eval()`. `UserTuning` trains with the backbone's dropout, as PEFT does by default.

    Args:
        init_from: directory of the backbone.
        rank: r; 12 in the paper.
        alpha: numerator of the scaling alpha / r (not stated in the paper).
        use_rslora: scale by alpha / sqrt(r) instead.
        target_modules: matrices that are adapted (not stated in the paper); every entry must match.
        learning_rate: peak of each user's own schedule (not stated in the paper).
        schedule: `linear` rises over `warmup_share` of a user's steps and falls to zero; `constant` only rises.
        warmup_share: share of a user's steps in which the rate rises.
        weight_decay: decoupled weight decay (not stated in the paper).
        max_grad_norm: a user's gradient is scaled down to this norm; 0 leaves it.
        max_epochs: most epochs of a user.
        patience: epochs without a better validation loss after which a user is done.
        max_users_at_once: slots; more users than that are taken in turn. A resumed run keeps those it began with.
        adapters: directory of the adapters; None is `adapters` in the run directory.
        num_swaps: in a test, how many other users' adapters are tried on each user; None: all, and every pair of them
            is written to `swaps.csv`.
        seed: of the adapters' first weights, together with the user's name; None is the run's (`seed_everything`).
        decoding: how replies are generated.
    """

    written_by: ClassVar = {**AdapterModule.written_by, "fit": "callbacks.AdapterCheckpoint"}
    not_in_run_name: ClassVar = ("max_users_at_once", "adapters")
    only_in_test: ClassVar = ("num_swaps",)
    ranges: ClassVar = {
        "rank": AT_LEAST_1,
        "alpha": POSITIVE,
        "learning_rate": POSITIVE,
        "warmup_share": SHARE,
        "weight_decay": AT_LEAST_0,
        "max_grad_norm": AT_LEAST_0,
        "max_epochs": AT_LEAST_1,
        "patience": AT_LEAST_1,
        "max_users_at_once": AT_LEAST_1,
        "num_swaps": AT_LEAST_0.or_none(),
        "seed": AT_LEAST_0,
    }

    def __init__(
        self,
        init_from: Path,
        rank: int = 12,
        alpha: float = 12,
        use_rslora: bool = False,
        target_modules: list[str] | str = ["q", "k", "v", "o", "wi", "wo"],  # noqa: B006 - never changed
        learning_rate: float = 1e-3,
        schedule: Literal["linear", "constant"] = "linear",
        warmup_share: float = 0.06,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        max_epochs: int = 3,
        patience: int = 2,
        max_users_at_once: int = 32,
        adapters: Path | None = None,
        num_swaps: int | None = 3,
        seed: int | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(decoding)
        self.automatic_optimization = False
        self.init_from = init_from
        self.rank = rank
        self.alpha = alpha
        self.use_rslora = use_rslora
        self.target_modules = as_names(target_modules)
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.warmup_share = warmup_share
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.max_epochs = max_epochs
        self.patience = patience
        self.max_users_at_once = max_users_at_once
        self.adapters = adapters
        self.num_swaps = num_swaps
        self.seed = seed or 0
        require(vars(self), **self.ranges)
        self.validated = UserTotals()

    @property
    def weights_directory(self) -> Path:
        return self.adapters or Path(self.trainer.default_root_dir) / ADAPTERS

    def settings(self) -> dict[str, Any]:
        names = ("rank", "alpha", "use_rslora", "target_modules", "learning_rate", "schedule", "warmup_share")
        names += ("weight_decay", "max_grad_norm")
        return {name: getattr(self, name) for name in names} | super().settings()

    def configure_model(self) -> None:
        if self.model is not None:
            return
        from peft import LoraConfig

        # Without the backbone's dropout, whose masks would depend on who shares the batch.
        self.model = self.open_backbone(self.init_from).model.eval()
        self.lora_config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            use_rslora=self.use_rslora,
            target_modules=self.target_modules,
            task_type="SEQ_2_SEQ_LM",
            base_model_name_or_path=str(self.init_from.absolute()),
            inference_mode=True,
        )
        self.open_rounds(self.max_users_at_once)
        self.lora = StackedLora(self.model, self.lora_config, len(self.rounds.slots))
        self.register_buffer("best_rows", torch.zeros_like(self.lora.rows.data))
        if self.in_fit:
            self.next_round()

    def begin(self, slot: int, user: str) -> None:
        row = self.lora.initial_row(seed_of(self.seed, user)).to(self.lora.rows)
        self.lora.rows.data[slot] = self.best_rows[slot] = row

    def configure_optimizers(self) -> PerUserAdamW:
        return PerUserAdamW(self.lora.rows, weight_decay=self.weight_decay)

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        places = self.rounds.slots_of(self.users_of(batch))
        progress = [self.rounds.slots[slot] for slot in places]
        slots = self._tensor(places)  # (u,)
        rows = self.lora.rows.detach()[slots].requires_grad_()  # (u, p)
        self.lora.activate(rows)
        nll = user_nll(self.model, reply_states(self.model, batch), batch.labels, len(places))  # (u,)
        # A user's token mean, by what that user's batches have on average: rows of like length share a batch, and
        # with each batch's own count the tokens of short replies would weigh more than those of long ones.
        tokens = self._tensor([user.tokens_per_batch for user in progress])
        self.manual_backward((nll / tokens).sum())
        gradient = rows.grad
        if self.max_grad_norm:
            norms = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        rates = self._tensor([self._advance(user) for user in progress])
        self.optimizers().step(slots=slots, gradient=gradient, learning_rates=rates)
        mean = nll.detach().float().sum() / (batch.labels != IGNORED).sum()
        self.log("train/loss", mean, prog_bar=True, batch_size=len(places))

    def _tensor(self, values: list[int] | list[float]) -> Tensor:
        return to_device(torch.tensor(values), self.device)

    def _rows_in_training(self, batch: Seq2SeqBatch) -> Tensor:  # (u, p)
        return self.lora.rows.data[self._tensor(self.rounds.slots_of(self.users_of(batch)))]

    def _advance(self, progress: UserProgress) -> float:
        """A user's learning rate at their own step, which is then counted."""
        factor = warmup_linear(progress.step, progress.num_steps, self.warmup_share)
        if self.schedule == "constant" and progress.step >= self.warmup_share * progress.num_steps:
            factor = 1.0
        progress.step += 1
        return self.learning_rate * factor

    def on_validation_epoch_start(self) -> None:
        self.validated = UserTotals()

    def validation_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        self.lora.activate(self._rows_in_training(batch) if self.in_fit else self.saved_rows(batch))
        nll, tokens = self.row_nll(batch)
        self.add_up(nll, tokens)
        self.validated.add("own", self.users_of(batch), nll, tokens)

    def on_validation_epoch_end(self) -> None:
        if losses := self.validated.losses("own"):
            self.log("val/macro_perplexity", macro_perplexity(losses))
            super().on_validation_epoch_end()

    def on_train_epoch_end(self) -> None:
        """Judges the epoch here, because there is no validation where no user has turns for it."""
        losses = self.validated.losses("own")
        for slot, progress in self.rounds.active.items():
            if self.rounds.end_epoch(progress, losses.get(progress.user)):
                self.best_rows[slot] = self.lora.rows.data[slot]
        self.validated = UserTotals()
        super().on_train_epoch_end()

    def finish(self, slot: int, progress: UserProgress) -> TrainedAdapter:
        self.optimizers().optimizer.forget(slot)
        card = {**self.weights_card(progress), "epochs": progress.epoch}
        best = self.best_rows[slot]
        if not best.isfinite().all():  # without validation turns nothing has shown it before
            self.rounds.fail(progress, "the adapter has numbers that are not finite")
        return TrainedAdapter(progress.user, self.lora.to_peft(best), card)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        # adapters and rounds, never the backbone
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith("model.")}
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        rows = checkpoint["state_dict"]["lora.rows"]
        if rows.shape != self.lora.rows.shape:  # some users were finished when this process began
            self.lora.rows = torch.nn.Parameter(torch.zeros_like(rows, device=self.device))
            self.best_rows = torch.zeros_like(rows, device=self.device)
