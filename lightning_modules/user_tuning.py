"""`UserTuning`: one user after the other in one fit, with any PEFT method or with all weights, for the comparisons.

Each user begins with the backbone's weights and has an optimizer, a schedule and random numbers of their own: *the
result equals tuning each user alone*.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from artefacts.layout import ADAPTERS, MODELS, user_directory
from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, require
from datamodules.batches import IGNORED, Seq2SeqBatch
from lightning_modules.backbones.files import load_backbone
from lightning_modules.backbones.generation import Decoding
from lightning_modules.backbones.t5 import load_model
from lightning_modules.lora.adapter_files import retrieved_settings, trained_weights, write_card
from lightning_modules.lora.stacked_lora import target_names
from lightning_modules.lora.user_rounds import UserProgress, seed_of

from .seq2seq import OptimizerFactory, ProfileSeq2Seq, SchedulerFactory
from .user_module import UserModule


class UserTuning(UserModule, ProfileSeq2Seq):
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
        seed: of a method's first weights, together with the user's name; None is the run's (`seed_everything`).
        decoding: how replies are generated.
    """

    written_by: ClassVar = {**ProfileSeq2Seq.written_by, "fit": "callbacks.TunedExport"}
    not_in_run_name: ClassVar = ("tuned",)

    def __init__(
        self,
        init_from: Path,
        method: dict[str, Any] | None = None,
        optimizer: OptimizerFactory | None = None,
        lr_scheduler: SchedulerFactory | None = None,
        max_epochs: int = 6,
        patience: int = 2,
        tuned: Path | None = None,
        seed: int | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(init_from=init_from, optimizer=optimizer, lr_scheduler=lr_scheduler, decoding=decoding)
        self.method = method
        self.max_epochs = max_epochs
        self.patience = patience
        self.tuned = tuned
        self.seed = seed or 0
        require(vars(self), max_epochs=AT_LEAST_1, patience=AT_LEAST_1, seed=AT_LEAST_0)
        self.user: str | None = None  # whose weights `model` has

    @property
    def progress(self) -> UserProgress | None:
        """How far the user in training is; None when all are done."""
        return next(iter(self.rounds.active.values()), None)

    @property
    def weights_directory(self) -> Path:
        root = self.tuned or Path(self.trainer.default_root_dir)
        return root / (MODELS if self.method is None else ADAPTERS)

    def directory_of(self, user: str) -> Path:
        """Where one user's weights are."""
        return user_directory(self.weights_directory, user)

    def settings(self) -> dict[str, Any]:
        return {"method": self.method, **super().settings()}

    def configure_model(self) -> None:
        if self.model is not None:
            return
        users, users_per_batch = self.trainer.datamodule.users, self.trainer.datamodule.users_per_batch
        if len(users) > 1 and users_per_batch > 1:
            raise ValueError(
                f"UserTuning takes one user after the other, but batches have up to {users_per_batch}: set "
                "data.users_per_batch=1, or use UserLora for many at the same time"
            )
        self.open_backbone(self.init_from)
        self.open_rounds(num_slots=1)
        if self.in_fit:
            turns = self.trainer.datamodule.splits["validation"].num_turns
            if missing := [user for user in users if not turns[user]]:
                raise ValueError(f"{missing} have no validation turns to choose the best weights by; leave them out")
            self.next_round()
            if self.model is None:  # all are done, but Lightning wants parameters
                self.begin(0, users[0])
        else:
            retrieved = retrieved_settings(self.trainer.datamodule)
            for user in users:
                trained_weights(self.weights_directory, user, self.backbone_fingerprint, retrieved)
            self._load(users[0])

    def begin(self, slot: int, user: str) -> None:
        with torch.device("cpu"):  # also for the first user, who begins in Lightning's context of the device
            model = self._new_model(user)
        self.model, self.user = model.train().to(self.device), user

    def _new_model(self, user: str) -> Any:
        torch.manual_seed(seed_of(self.seed, user))  # of the method's first weights
        model = load_backbone(self.init_from).model
        if self.method is not None:
            from peft import get_peft_config, get_peft_model

            config = get_peft_config(dict(self.method))
            config.base_model_name_or_path = str(self.init_from.absolute())
            if getattr(config, "target_modules", None):
                target_names(model, config.target_modules)  # raises where an entry matches nothing
            model = get_peft_model(model, config)
        return model

    def num_steps(self) -> int:
        return self.progress.num_steps if self.progress else 1

    def on_train_batch_start(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        # As in pre-training, but by the user's own batches.
        torch.manual_seed(seed_of(self.seed, f"{self.user} {self.progress.step}"))

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Tensor:
        self.progress.step += 1
        # Through the wrapper's own forward, because some methods, such as prefix tuning, act nowhere else.
        nll, tokens = row_nll_of_wrapper(self.model, batch)
        self.log("train/loss", nll.detach().sum() / tokens.sum(), prog_bar=True)
        return nll.sum() / self.progress.tokens_per_batch

    def on_validation_epoch_end(self) -> None:
        if self.in_fit:
            self.rounds.end_epoch(self.progress, float(self.nll.compute() / self.tokens.compute()))
        super().on_validation_epoch_end()

    def on_train_epoch_end(self) -> None:
        user = self.user
        super().on_train_epoch_end()
        if self.user != user:
            self.trainer.strategy.setup_optimizers(self.trainer)

    def finish(self, slot: int, progress: UserProgress) -> str:
        return progress.user

    def save(self, directory: Path) -> None:
        """Writes the weights as they are now, in Hugging Face's or PEFT's format, with a card; not atomic."""
        self.model.save_pretrained(directory)
        write_card(directory, self.user, self.weights_card(self.progress))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.user = self.progress.user

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
        if self.trainer.datamodule.test_kinds[dataloader_idx] == "general":
            self.general.append(batch)  # for the end, so that each user's weights are read once for all of them
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
