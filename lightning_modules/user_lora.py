"""`UserLora`: one fit trains the LoRA adapters of all selected users, each as if it were alone.

In: batches of several users from `datamodules.UserSets`. Out: finished adapters (written by
`callbacks.AdapterCheckpoint`) and per-user perplexity.

The backbone is frozen. Users are trained in slots; a pass of the loader is one epoch of every user in a slot
("round"). After a round each user is validated on their own dialogues; who is done leaves the slot to the next
one waiting, so memory is bounded for any number of users. Loss, gradient norm, moments, step count, schedule,
best weights and early stopping belong to each user: *the result equals training each user alone*.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.batches import IGNORED, Seq2SeqBatch
from lightning_modules.backbones.generation import Decoding
from lightning_modules.backbones.likelihood import reply_states, summed_nll
from lightning_modules.backbones.t5 import load_backbone
from lightning_modules.backbones.user_totals import UserTotals
from lightning_modules.lora.adapter_files import retrieved_settings, users_to_train
from lightning_modules.lora.per_user_adamw import PerUserAdamW
from lightning_modules.lora.stacked_lora import StackedLora
from lightning_modules.lora.user_rounds import (
    Progress,
    Roster,
    history_settings,
    macro_perplexity,
    require_one_process,
    require_rounds,
    seed_of,
)

from .adapters_in_use import AdaptersInUse
from .schedules import warmup_linear

ALL_MATRICES = ("q", "k", "v", "o", "wi", "wo")


@dataclass(frozen=True)
class Finished:
    """A trained adapter, ready to be written."""

    user: str
    weights: dict[str, Tensor]
    card: dict[str, Any]


class UserLora(AdaptersInUse):
    """LoRA adapters of many users on one frozen backbone (Otsuka et al. 2024: rank 12, a few hundred turns).

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
        max_users_at_once: slots; more users than that are taken in turn.
        adapters: directory of the adapters; None is `adapters` in the run directory.
        num_swaps: in a test, how many other users' adapters are tried on each user; None: all, and every pair of them
            is written to `swaps.csv`.
        seed: of the adapters' first weights, together with the user's name.
        decoding: how replies are generated.
    """

    def __init__(
        self,
        init_from: Path,
        rank: int = 12,
        alpha: float = 12,
        use_rslora: bool = False,
        target_modules: list[str] | str = list(ALL_MATRICES),  # noqa: B006 - never changed, and shown in --help
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
        seed: int = 0,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(decoding)
        self.automatic_optimization = False
        self.init_from = init_from
        self.rank = rank
        self.alpha = alpha
        self.use_rslora = use_rslora
        self.target_modules = target_modules
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
        self.seed = seed
        self.just_finished: list[Finished] = []
        self.validated = UserTotals()

    # ---- setting up

    @property
    def adapters_directory(self) -> Path:
        return self.adapters or Path(self.trainer.default_root_dir) / "adapters"

    def settings(self) -> dict[str, Any]:
        """What decides an adapter's weights, besides the backbone and the user's turns."""
        names = ("rank", "alpha", "use_rslora", "target_modules", "learning_rate", "schedule", "warmup_share")
        names += ("weight_decay", "max_grad_norm", "max_epochs", "patience", "seed")
        data = self.trainer.datamodule
        return {
            **{name: getattr(self, name) for name in names},
            "rows_per_user": data.rows_per_user,
            "max_context_tokens": data.max_context_tokens,
            "data_seed": data.seed,
            **history_settings(data),
            **retrieved_settings(data),
        }

    def configure_model(self) -> None:
        if self.model is not None:
            return
        from peft import LoraConfig

        require_one_process(self.trainer, "UserLora")
        backbone = load_backbone(self.init_from)
        self.require_same_prompts(backbone, self.init_from)
        self.model, self.backbone_fingerprint = backbone.model, backbone.fingerprint
        self.lora_config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            use_rslora=self.use_rslora,
            target_modules=self.target_modules,
            task_type="SEQ_2_SEQ_LM",
            base_model_name_or_path=str(self.init_from),
            inference_mode=True,
        )
        waiting = []
        if self.in_fit:
            require_rounds(self.trainer, "UserLora")
            users = self.trainer.datamodule.users
            waiting = users_to_train(users, self.adapters_directory, self.backbone_fingerprint, self.settings())
        self.roster = Roster(waiting, min(self.max_users_at_once, len(waiting)))
        self.lora = StackedLora(self.model, self.lora_config, len(self.roster.slots))
        self.register_buffer("best_rows", torch.zeros_like(self.lora.rows.data))
        if self.in_fit:
            self._next_round()

    def _next_round(self) -> None:
        """Gives free slots to those who wait, and tells the data module who takes part."""
        for slot in self.roster.fill(self._begin):
            seed = seed_of(self.seed, self.roster.slots[slot].user)
            self.lora.rows.data[slot] = self.best_rows[slot] = self.lora.initial_row(seed).to(self.lora.rows)
        self.trainer.datamodule.next_round({progress.user: progress.epoch for progress in self.roster.active.values()})

    def _begin(self, user: str) -> Progress:
        data = self.trainer.datamodule
        return Progress(user, self.max_epochs * data.num_train_batches(user), data.label_tokens_per_batch_of(user))

    def configure_optimizers(self) -> PerUserAdamW:
        return PerUserAdamW(self.lora.rows, weight_decay=self.weight_decay)

    # ---- training

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        slots = self._slots_of(batch)
        progress = [self.roster.slots[slot] for slot in slots.tolist()]
        rows = self.lora.rows.detach()[slots].requires_grad_()  # (u, p)
        self.lora.activate(rows)
        states = reply_states(self.model, batch)
        per_user = zip(states.chunk(len(slots)), batch.labels.chunk(len(slots)), strict=True)
        nll = torch.stack([summed_nll(self.model, own, labels) for own, labels in per_user])  # (u,)
        # A user's token mean, by what that user's batches have on average: rows of like length share a batch, and
        # with each batch's own count the tokens of short replies would weigh more than those of long ones.
        tokens = torch.tensor([user.tokens_per_batch for user in progress], device=self.device)
        self.manual_backward((nll / tokens).sum())
        gradient = rows.grad
        if self.max_grad_norm:
            norms = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        rates = torch.tensor([self._advance(user) for user in progress], device=self.device)
        self.optimizers().step(slots=slots, gradient=gradient, learning_rates=rates)
        mean = nll.detach().float().sum() / (batch.labels != IGNORED).sum()
        self.log("train/loss", mean, prog_bar=True, batch_size=len(slots))

    def _slots_of(self, batch: Seq2SeqBatch) -> Tensor:  # (u,)
        return torch.tensor(self.roster.slots_of(self.users_of(batch)), device=self.device)

    def _advance(self, progress: Progress) -> float:
        """A user's learning rate at their own step, which is then counted."""
        factor = warmup_linear(progress.step, progress.num_steps, self.warmup_share)
        if self.schedule == "constant" and progress.step >= self.warmup_share * progress.num_steps:
            factor = 1.0
        progress.step += 1
        return self.learning_rate * factor

    # ---- validation, and what follows from it

    def on_validation_epoch_start(self) -> None:
        self.validated = UserTotals()

    def validation_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        self.lora.activate(self.lora.rows.data[self._slots_of(batch)] if self.in_fit else self.files_of(batch))
        nll, tokens = self.row_nll(batch)
        self.nll.update(nll.sum())
        self.tokens.update(tokens.sum())
        self.validated.add("own", self.users_of(batch), nll, tokens)

    def on_validation_epoch_end(self) -> None:
        if losses := self.validated.losses("own"):
            self.log("val/macro_perplexity", macro_perplexity(losses))
            super().on_validation_epoch_end()

    def on_train_epoch_end(self) -> None:
        """Ends the round; not after validation, which does not take place where nobody has any turns for it."""
        losses = self.validated.losses("own")
        for slot, progress in self.roster.active.items():
            self._judge(slot, progress, losses.get(progress.user))
        self.validated = UserTotals()
        if self.roster.best_losses:
            self.log("val/best_macro_perplexity", macro_perplexity(self.roster.best_losses))
        self._next_round()
        self.log("num_users_left", float(self.roster.num_left))
        if not self.roster.active:
            self.trainer.should_stop = True

    def _judge(self, slot: int, progress: Progress, loss: float | None) -> None:
        """Keeps the better weights; lets a user go who has had all epochs or has long not improved."""
        if progress.end_epoch(loss):
            self.best_rows[slot] = self.lora.rows.data[slot]
            if loss is not None:
                self.roster.best_losses[progress.user] = loss
        if progress.epoch < self.max_epochs and progress.epochs_without_gain < self.patience:
            return
        card = {
            "backbone": self.backbone_fingerprint,
            "settings": self.settings(),
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "validation_loss": progress.best_loss,
        }
        self.just_finished.append(Finished(progress.user, self.lora.to_peft(self.best_rows[slot]), card))
        self.roster.slots[slot] = None
        self.optimizers().optimizer.forget(slot)

    def take_finished(self) -> list[Finished]:
        """The users who are done since the last call, for the callback that writes them."""
        finished, self.just_finished = self.just_finished, []
        return finished

    # ---- checkpoints: adapters and roster, never the backbone

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith("model.")}
        checkpoint["roster"] = self.roster.state_dict(self.backbone_fingerprint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.roster.load_state_dict(checkpoint["roster"], self.backbone_fingerprint)
        rows = checkpoint["state_dict"]["lora.rows"]
        if rows.shape != self.lora.rows.shape:  # some users were finished when this process began
            self.lora.rows = torch.nn.Parameter(torch.zeros_like(rows, device=self.device))
            self.best_rows = torch.zeros_like(rows, device=self.device)
