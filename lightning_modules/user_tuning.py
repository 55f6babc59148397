"""`UserTuning`: one user after the other in one fit, with any PEFT method or with all weights, for the comparisons.

In: batches of one user each. Out: everyone's weights with the best validation loss, in `<run>/adapters/<user>/` as
PEFT writes them, or in `<run>/models/<user>/` after full fine-tuning (written by `callbacks.TunedExport`).

A pass of the loader is one epoch of the user whose turn it is, and is followed by a validation on that user's own
dialogues. Who is done makes place for the next, who begins with the backbone's weights, and with an optimizer, a
schedule and random numbers of their own: *the result equals tuning each user alone*.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from datamodules.batches import IGNORED, Seq2SeqBatch
from lightning_modules.backbones.generation import Decoding
from lightning_modules.backbones.t5 import load_backbone, load_model
from lightning_modules.lora.adapter_files import (
    adapter_directory,
    read_card,
    require_same_retrieval,
    retrieved_settings,
    users_to_train,
)
from lightning_modules.lora.user_rounds import (
    Progress,
    Roster,
    history_settings,
    macro_perplexity,
    require_one_process,
    require_rounds,
    seed_of,
)

from .seq2seq import OptimizerFactory, ProfileSeq2Seq, SchedulerFactory


class UserTuning(ProfileSeq2Seq):
    """Tunes the backbone to each user; shares its steps with pre-training.

    Args:
        init_from: directory of the backbone.
        method: what `peft.get_peft_config` takes, for example `{peft_type: LORA, r: 12, use_dora: true,
            task_type: SEQ_2_SEQ_LM}`; None tunes all weights.
        optimizer: gets the parameters that are trained, of each user anew.
        lr_scheduler: gets the optimizer and the number of a user's steps in `max_epochs`.
        max_epochs: most epochs of a user.
        patience: epochs without a better validation loss after which a user is done.
        tuned: directory to test and predict with; None is the run directory.
        seed: of a method's first weights, together with the user's name.
        decoding: how replies are generated.
    """

    def __init__(
        self,
        init_from: Path,
        method: dict[str, Any] | None = None,
        optimizer: OptimizerFactory | None = None,
        lr_scheduler: SchedulerFactory | None = None,
        max_epochs: int = 6,
        patience: int = 2,
        tuned: Path | None = None,
        seed: int = 0,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(init_from=init_from, optimizer=optimizer, lr_scheduler=lr_scheduler, decoding=decoding)
        self.method = method
        self.max_epochs = max_epochs
        self.patience = patience
        self.tuned = tuned
        self.seed = seed
        self.user: str | None = None  # whose weights `model` has
        self.just_finished: list[str] = []

    # ---- setting up

    @property
    def progress(self) -> Progress | None:
        """How far the user is whose turn it is; None when all are done."""
        return self.roster.slots[0]

    @property
    def directory(self) -> Path:
        """Where everyone's weights are, a directory each."""
        root = self.tuned or Path(self.trainer.default_root_dir)
        return root / ("models" if self.method is None else "adapters")

    def directory_of(self, user: str) -> Path:
        """Where one user's weights are."""
        return adapter_directory(self.directory, user)

    def settings(self) -> dict[str, Any]:
        """What decides a user's weights, besides the backbone, the user's turns, and the optimizer and its schedule."""
        data = self.trainer.datamodule
        return {
            "method": self.method,
            "max_epochs": self.max_epochs,
            "patience": self.patience,
            "seed": self.seed,
            "rows_per_user": data.rows_per_user,
            "max_context_tokens": data.max_context_tokens,
            "data_seed": data.seed,
            **history_settings(data),
            **retrieved_settings(data),
        }

    def configure_model(self) -> None:
        if self.model is not None:
            return
        require_one_process(self.trainer, "UserTuning")
        data = self.trainer.datamodule
        if len(data.users) > 1 and data.users_per_batch > 1:
            raise ValueError(
                f"UserTuning takes one user after the other, but batches have up to {data.users_per_batch}: set "
                "data.users_per_batch=1, or use UserLora for many at the same time"
            )
        backbone = load_backbone(self.init_from)
        self.require_same_prompts(backbone, self.init_from)
        self.backbone_fingerprint = backbone.fingerprint
        if self.in_fit:
            require_rounds(self.trainer, "UserTuning")
            turns = data.splits["validation"].num_turns
            if without := [user for user in data.users if not turns[user]]:
                raise ValueError(f"{without} have no validation turns to choose the best weights by; leave them out")
            waiting = users_to_train(data.users, self.directory, self.backbone_fingerprint, self.settings())
            self.roster = Roster(waiting, 1)
            self._next_round()
            if self.model is None:  # all are done, but Lightning wants parameters
                self._begin(data.users[0])
        else:
            for user in data.users:
                self._require_weights(user)
            self._load(data.users[0])

    def _next_round(self) -> None:
        """Gives the next user their turn where one is done, and tells the data module whose epoch comes next."""
        if self.roster.fill(self._first_progress):
            self._begin(self.progress.user)
        self.trainer.datamodule.next_round({one.user: one.epoch for one in self.roster.active.values()})

    def _first_progress(self, user: str) -> Progress:
        data = self.trainer.datamodule
        num_steps = self.max_epochs * math.ceil(data.num_train_batches(user) / self.trainer.accumulate_grad_batches)
        return Progress(user, num_steps, data.label_tokens_per_batch_of(user))

    def _begin(self, user: str) -> None:
        """Gives `model` the weights that this user's training begins with."""
        torch.manual_seed(seed_of(self.seed, user))  # of the method's first weights
        self.model, self.user = self._wrapped(load_backbone(self.init_from).model).to(self.device), user

    def _wrapped(self, model: Any) -> Any:
        if self.method is None:
            return model.train()
        from peft import get_peft_config, get_peft_model

        from lightning_modules.lora.stacked_lora import target_names

        config = get_peft_config(dict(self.method))
        config.base_model_name_or_path = str(self.init_from)
        if getattr(config, "target_modules", None):
            target_names(model, config.target_modules)  # raises where an entry matches nothing
        return get_peft_model(model, config).train()

    def num_steps(self) -> int:
        return self.progress.num_steps if self.progress else 1

    # ---- training

    def on_train_batch_start(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        torch.manual_seed(self.progress.step)  # as in pre-training, but by the user's own steps

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Tensor:
        self.progress.step += 1
        # Through the wrapper's own forward, because some methods, such as prefix tuning, act nowhere else.
        nll, tokens = row_nll_of_wrapper(self.model, batch)
        self.log("train/loss", nll.detach().sum() / tokens.sum(), prog_bar=True)
        return nll.sum() / self.progress.tokens_per_batch

    def on_validation_epoch_end(self) -> None:
        if self.in_fit:
            self.progress.end_epoch(float(self.nll.compute() / self.tokens.compute()))
            self.roster.best_losses[self.user] = self.progress.best_loss
        super().on_validation_epoch_end()

    def on_train_epoch_end(self) -> None:
        """Lets a user go who has had all epochs or has long not improved; the next one takes over."""
        self.log("val/best_macro_perplexity", macro_perplexity(self.roster.best_losses))
        done = self.progress.epoch >= self.max_epochs or self.progress.epochs_without_gain >= self.patience
        if done:
            self.just_finished.append(self.user)
            self.roster.slots[0] = None
        self._next_round()
        self.log("num_users_left", float(self.roster.num_left))
        if self.progress is None:
            self.trainer.should_stop = True
        elif done:
            self.trainer.strategy.setup_optimizers(self.trainer)

    def take_finished(self) -> list[str]:
        """The users who are done since the last call, for the callback that gives their weights the final name."""
        finished, self.just_finished = self.just_finished, []
        return finished

    def save(self, directory: Path) -> None:
        """Writes the weights as they are now, in Hugging Face's or PEFT's format, with a card; not atomic."""
        self.model.save_pretrained(directory)
        card = {
            "user": self.user,
            "backbone": self.backbone_fingerprint,
            "settings": self.settings(),
            "best_epoch": self.progress.best_epoch,
            "validation_loss": self.progress.best_loss,
        }
        (directory / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["roster"] = self.roster.state_dict(self.backbone_fingerprint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over whose turn it is; their weights come with the checkpoint, those of the backbone included."""
        self.roster.load_state_dict(checkpoint["roster"], self.backbone_fingerprint)
        self.user = self.progress.user

    # ---- validation, test and prediction, with weights from files

    def _require_weights(self, user: str) -> None:
        directory, card = self.directory_of(user), read_card(self.directory, user)
        if card is None:
            raise FileNotFoundError(
                f"no tuned weights of {user!r} in {directory}; make them with: lightning fit --config "
                "<the same experiment> with the same --data.users"
            )
        if card["backbone"] != self.backbone_fingerprint:
            raise ValueError(
                f"{directory} was tuned from backbone {card['backbone']}, but model.init_from is backbone "
                f"{self.backbone_fingerprint}; use the one it was tuned from"
            )
        require_same_retrieval(card, retrieved_settings(self.trainer.datamodule), directory)

    def _load(self, user: str) -> None:
        """Gives `model` this user's tuned weights."""
        if self.method is None:
            model = load_model(self.directory_of(user))
        else:
            from peft import PeftModel

            model = PeftModel.from_pretrained(load_backbone(self.init_from).model, str(self.directory_of(user)))
        self.model, self.user = model.eval().to(self.device), user

    def _load_weights_for(self, batch: Seq2SeqBatch) -> None:
        (user,) = self.users_of(batch)
        if user != self.user:
            self._load(user)

    def on_validation_batch_start(self, batch: Seq2SeqBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if not self.in_fit:
            self._load_weights_for(batch)

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.general: list[Seq2SeqBatch] = []

    def test_step(self, batch: Seq2SeqBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if self.kind_of(dataloader_idx) == "general":
            self.general.append(batch)  # for the end, so that everybody's weights are read once for all of them
            return
        self._load_weights_for(batch)
        super().test_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        for user in self.trainer.datamodule.users if self.general else ():
            self._load(user)
            for batch in self.general:
                self.tested.add("general", [user], *self.row_nll(batch))
        super().on_test_epoch_end()

    def on_predict_batch_start(self, batch: Seq2SeqBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._load_weights_for(batch)

    @torch.no_grad()
    def row_nll(self, batch: Seq2SeqBatch) -> tuple[Tensor, Tensor]:
        # In 32 bits: 16-bit logits would make perplexity several per cent off.
        with torch.autocast(self.device.type, enabled=False):
            return row_nll_of_wrapper(self.model, batch)


def row_nll_of_wrapper(model: Any, batch: Seq2SeqBatch) -> tuple[Tensor, Tensor]:
    """As `likelihood.row_nll`, through the model's own forward; differentiable."""
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)
    losses = cross_entropy(output.logits.float().transpose(1, 2), batch.labels, reduction="none")  # (b, t)
    return losses.sum(1), (batch.labels != IGNORED).sum(1)
