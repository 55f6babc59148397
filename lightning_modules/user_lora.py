"""`UserLora`: one fit trains the LoRA adapters of all selected users, each as if it were alone.

In: batches of several users from `datamodules.UserSets`. Out: finished adapters (written by
`callbacks.AdapterCheckpoint`), per-user perplexity, predictions with everyone's own adapter.
Not its job: PEFT methods other than LoRA (`user_tuning.py`).

The backbone is frozen. Users are trained in slots; a pass of the loader is one epoch of every user in a slot
("round"). After a round each user is validated on their own dialogues; who is done leaves the slot to the next
one waiting, so memory is bounded for any number of users. Loss, gradient norm, moments, step count, schedule,
best weights and early stopping belong to each user: *the result equals training each user alone*.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.batches import IGNORED, Seq2SeqBatch

from .adapter_files import load_adapter, read_card
from .backbone import load_backbone
from .generation import Decoding
from .likelihood import reply_states, summed_nll
from .per_user_adamw import PerUserAdamW
from .schedules import warmup_linear
from .seq2seq import Predictions, ReplyModule
from .stacked_lora import StackedLora

ALL_MATRICES = ("q", "k", "v", "o", "wi", "wo")


@dataclass
class Progress:
    """How far one user's training is."""

    user: str
    num_steps: int  # of the whole training
    tokens_per_batch: float  # label tokens, on average
    epoch: int = 0
    step: int = 0
    best_loss: float = math.inf  # validation, nats per token
    best_epoch: int = 0
    epochs_without_gain: int = 0


@dataclass(frozen=True)
class Finished:
    """A trained adapter, ready to be written."""

    user: str
    weights: dict[str, Tensor]
    card: dict[str, Any]


class UserLora(ReplyModule):
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
        num_swaps: in a test, how many other users' adapters are tried on each user.
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
        num_swaps: int = 3,
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
        self.slots: list[Progress | None] = []
        self.waiting: list[str] = []
        self.just_finished: list[Finished] = []
        self.best_losses: dict[str, float] = {}
        self.user_nll: dict[str, float] = defaultdict(float)
        self.user_tokens: dict[str, int] = defaultdict(int)

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
        }

    def configure_model(self) -> None:
        if self.model is not None:
            return
        from peft import LoraConfig

        if self.trainer.world_size > 1:
            raise ValueError(
                f"UserLora runs in one process, got {self.trainer.world_size}; split the users by data.users instead"
            )
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
        fitting = self.trainer.state.fn == "fit"
        if fitting:
            self._require_rounds()
            self.waiting = self._users_without_adapter()
        num_slots = min(self.max_users_at_once, len(self.waiting)) if fitting else 1
        self.lora = StackedLora(self.model, self.lora_config, num_slots)
        self.register_buffer("best_rows", torch.zeros_like(self.lora.rows.data))
        self.slots = [None] * num_slots
        if fitting:
            self._fill_slots()

    def _require_rounds(self) -> None:
        """Raises ValueError where the trainer would end before everybody is done, or not make rounds of its epochs."""
        expected = {
            "max_epochs": -1,
            "max_steps": -1,
            "reload_dataloaders_every_n_epochs": 1,
            "check_val_every_n_epoch": 1,
            "num_sanity_val_steps": 0,
        }
        wrong = [name for name, value in expected.items() if getattr(self.trainer, name) != value]
        if wrong and not self.trainer.fast_dev_run:
            settings = ", ".join(f"trainer.{name}={expected[name]}" for name in wrong)
            raise ValueError(f"UserLora ends when every user is done: set {settings}; model.max_epochs is each user's")

    def _users_without_adapter(self) -> list[str]:
        data = self.trainer.datamodule
        waiting = []
        for user in data.users:
            card = read_card(self.adapters_directory, user)
            if card is None:
                waiting.append(user)
            elif card["settings"] != self.settings() or card["backbone"] != self.backbone_fingerprint:
                raise ValueError(
                    f"{self.adapters_directory} has an adapter of {user!r} that was trained with other settings or on "
                    "another backbone; give another --run, or delete that directory to train it anew"
                )
        if len(waiting) < len(data.users):
            print(f"{len(data.users) - len(waiting)} of {len(data.users)} users have their adapter already")
        return waiting

    def _fill_slots(self) -> None:
        """Gives free slots to those who wait, and tells the data module who takes part in the next round."""
        data = self.trainer.datamodule
        for slot, progress in enumerate(self.slots):
            if progress is None and self.waiting:
                user = self.waiting.pop(0)
                self.lora.rows.data[slot] = self.lora.initial_row(_seed_of(self.seed, user)).to(self.lora.rows)
                self.best_rows[slot] = self.lora.rows.data[slot]
                num_steps = self.max_epochs * data.num_train_batches(user)
                self.slots[slot] = Progress(user, num_steps, data.label_tokens_per_batch(user))
        data.next_round({progress.user: progress.epoch for progress in self.slots if progress is not None})

    def configure_optimizers(self) -> PerUserAdamW:
        return PerUserAdamW(self.lora.rows, weight_decay=self.weight_decay)

    # ---- training

    def users_of(self, batch: Seq2SeqBatch) -> list[str]:
        """The users of a batch, in its order; each has the same number of rows."""
        names = self.trainer.datamodule.users
        return [names[index] for index in batch.user_index.unique_consecutive().tolist()]

    def slots_of(self, batch: Seq2SeqBatch) -> Tensor:  # (u,)
        by_user = {progress.user: slot for slot, progress in enumerate(self.slots) if progress is not None}
        return torch.tensor([by_user[user] for user in self.users_of(batch)], device=self.device)

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        slots = self.slots_of(batch)
        rows = self.lora.rows.detach()[slots].requires_grad_()  # (u, p)
        self.lora.activate(rows)
        states = reply_states(self.model, batch)
        per_user = zip(states.chunk(len(slots)), batch.labels.chunk(len(slots)), strict=True)
        nll = torch.stack([summed_nll(self.model, own, labels) for own, labels in per_user])  # (u,)
        # A user's token mean, by what that user's batches have on average: rows of like length share a batch, and
        # with each batch's own count the tokens of short replies would weigh more than those of long ones.
        tokens = torch.tensor([self.slots[slot].tokens_per_batch for slot in slots.tolist()], device=self.device)
        self.manual_backward((nll / tokens).sum())
        gradient = rows.grad
        if self.max_grad_norm:
            norms = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        self.optimizers().step(slots=slots, gradient=gradient, learning_rates=self._advance(slots.tolist()))
        mean = nll.detach().float().sum() / (batch.labels != IGNORED).sum()
        self.log("train/loss", mean, prog_bar=True, batch_size=len(slots))

    def _advance(self, slots: list[int]) -> Tensor:
        """The learning rate of each of these users at their own step, which is then counted; (u,)."""
        rates = []
        for slot in slots:
            progress = self.slots[slot]
            factor = warmup_linear(progress.step, progress.num_steps, self.warmup_share)
            if self.schedule == "constant" and progress.step >= self.warmup_share * progress.num_steps:
                factor = 1.0
            rates.append(self.learning_rate * factor)
            progress.step += 1
        return torch.tensor(rates, device=self.device)

    # ---- validation, and what follows from it

    def on_validation_epoch_start(self) -> None:
        self.user_nll.clear()
        self.user_tokens.clear()

    def validation_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        self.lora.activate(self.lora.rows.data[self.slots_of(batch)] if self._in_fit else self._files_of(batch))
        nll, tokens = self.row_nll(batch)
        self.nll.update(nll.sum())
        self.tokens.update(tokens.sum())
        users = self.users_of(batch)
        for user, own, count in zip(users, nll.chunk(len(users)), tokens.chunk(len(users)), strict=True):
            self.user_nll[user] += own.sum().item()
            self.user_tokens[user] += int(count.sum())

    @property
    def _in_fit(self) -> bool:
        return self.trainer.state.fn == "fit"

    def on_validation_epoch_end(self) -> None:
        losses = [self.user_nll[user] / self.user_tokens[user] for user in self.user_nll]
        if losses:
            self.log("val/macro_perplexity", sum(map(math.exp, losses)) / len(losses))
            super().on_validation_epoch_end()

    def on_train_epoch_end(self) -> None:
        """Ends the round; not after validation, which does not take place where nobody has any turns for it."""
        for slot, progress in enumerate(self.slots):
            if progress is not None:
                self._judge(slot, progress)
        self.user_nll.clear()
        self.user_tokens.clear()
        if self.best_losses:  # of all users so far, those who are done included
            perplexities = [math.exp(loss) for loss in self.best_losses.values()]
            self.log("val/best_macro_perplexity", sum(perplexities) / len(perplexities))
        self._fill_slots()
        self.log("num_users_left", float(len(self.waiting) + sum(slot is not None for slot in self.slots)))
        if not any(self.slots):
            self.trainer.should_stop = True

    def _judge(self, slot: int, progress: Progress) -> None:
        """Keeps the better weights; lets a user go who has had all epochs or has long not improved."""
        # Somebody without validation turns is trained for all epochs, and the last weights count.
        tokens = self.user_tokens[progress.user]
        loss = self.user_nll[progress.user] / tokens if tokens else -float(progress.epoch)
        progress.epoch += 1
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch, progress.epochs_without_gain = loss, progress.epoch, 0
            self.best_rows[slot] = self.lora.rows.data[slot]
            if tokens:
                self.best_losses[progress.user] = loss
        else:
            progress.epochs_without_gain += 1
        if not math.isfinite(loss):
            raise ValueError(
                f"the validation loss of user {progress.user!r} is {loss} after epoch {progress.epoch}; lower "
                "model.learning_rate, or leave this user out"
            )
        if progress.epoch >= self.max_epochs or progress.epochs_without_gain >= self.patience:
            self.just_finished.append(
                Finished(
                    progress.user,
                    self.lora.to_peft(self.best_rows[slot]),
                    {
                        "backbone": self.backbone_fingerprint,
                        "settings": self.settings(),
                        "epochs": progress.epoch,
                        "best_epoch": progress.best_epoch,
                        "validation_loss": progress.best_loss if tokens else None,
                    },
                )
            )
            self.slots[slot] = None
            self.optimizers().optimizer.forget(slot)

    def take_finished(self) -> list[Finished]:
        """The users who are done since the last call, for the callback that writes them."""
        finished, self.just_finished = self.just_finished, []
        return finished

    # ---- checkpoints: adapters and roster, never the backbone

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith("model.")}
        checkpoint["roster"] = {
            "slots": [asdict(progress) if progress is not None else None for progress in self.slots],
            "waiting": self.waiting,
            "best_losses": self.best_losses,
            "backbone": self.backbone_fingerprint,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        roster = checkpoint["roster"]
        if roster["backbone"] != self.backbone_fingerprint:
            raise ValueError(
                f"the checkpoint was made on backbone {roster['backbone']}, init_from is {self.backbone_fingerprint}; "
                "delete the checkpoint or give back the backbone"
            )
        self.slots = [Progress(**progress) if progress is not None else None for progress in roster["slots"]]
        self.waiting = list(roster["waiting"])
        self.best_losses = dict(roster["best_losses"])
        rows = checkpoint["state_dict"]["lora.rows"]
        if rows.shape != self.lora.rows.shape:  # some users were finished when this process began
            self.lora.rows = torch.nn.Parameter(torch.zeros_like(rows, device=self.device))
            self.best_rows = torch.zeros_like(rows, device=self.device)

    # ---- test and prediction, with adapters from files

    @lru_cache(maxsize=64)  # noqa: B019 - the module lives as long as the process
    def _row(self, user: str) -> Tensor:
        state = load_adapter(self.adapters_directory, user, self.backbone_fingerprint)
        return self.lora.from_peft(state).to(self.device)

    def _files_of(self, batch: Seq2SeqBatch, shift: int = 0) -> Tensor:
        """Adapters for a batch, (u, p): everyone's own, or that of the user `shift` places further on."""
        users = self.trainer.datamodule.users
        place = {user: number for number, user in enumerate(users)}
        return torch.stack([self._row(users[(place[user] + shift) % len(users)]) for user in self.users_of(batch)])

    def on_test_epoch_start(self) -> None:
        self.test_nll: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(int))

    def test_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        users = self.users_of(batch)
        num_users = len(self.trainer.datamodule.users)
        shifts = [1 + number * (num_users - 1) // self.num_swaps for number in range(self.num_swaps)]
        variants = {"base": None, "own": self._files_of(batch)}
        if num_users > 1:
            variants |= {f"other{shift}": self._files_of(batch, shift) for shift in dict.fromkeys(shifts)}
        for name, rows in variants.items():
            self.lora.activate(rows)
            nll, tokens = self.row_nll(batch)
            for user, own, count in zip(users, nll.chunk(len(users)), tokens.chunk(len(users)), strict=True):
                self.test_nll[user][name.rstrip("0123456789")] += own.sum().item()
                self.test_nll[user][f"{name.rstrip('0123456789')}_tokens"] += int(count.sum())

    def on_test_epoch_end(self) -> None:
        """Logs micro perplexities and writes the sums of every user to `test_users.csv`."""
        kinds = [kind for kind in ("base", "own", "other") if any(kind in sums for sums in self.test_nll.values())]
        for kind in kinds:
            nll = sum(sums[kind] for sums in self.test_nll.values())
            tokens = sum(sums[f"{kind}_tokens"] for sums in self.test_nll.values())
            self.log(f"test/{kind}_perplexity", math.exp(nll / tokens))
        better = sum(sums["own"] < sums["base"] for sums in self.test_nll.values())
        self.log("test/users_better_than_base", float(better))
        if self.trainer.fast_dev_run:
            return
        path = Path(self.trainer.default_root_dir) / "test_users.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with (partial := path.with_suffix(".partial")).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user", *(f"{kind}_{what}" for kind in kinds for what in ("nll", "tokens"))])
            for user, sums in sorted(self.test_nll.items()):
                writer.writerow([user, *(sums[key] for kind in kinds for key in (kind, f"{kind}_tokens"))])
        os.replace(partial, path)

    def predict_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Predictions:
        self.lora.activate(self._files_of(batch))
        return super().predict_step(batch, batch_idx)


def _seed_of(seed: int, user: str) -> int:
    """A seed for one user, whoever else is trained."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\x1f{user}".encode(), digest_size=7).digest(), "big")
