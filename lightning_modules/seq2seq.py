"""`ProfileSeq2Seq`: the encoder-decoder that learns to reply with a profile as prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from artefacts.layout import BACKBONE
from artefacts.ranges import SHARE, require
from datamodules.batches import IGNORED, Seq2SeqBatch
from lightning_modules.backbones.generation import Decoding
from lightning_modules.backbones.likelihood import reply_states, summed_nll
from lightning_modules.backbones.t5 import Size, new_model
from lightning_modules.lora.user_rounds import seed_of

from .reply_module import ReplyModule

OptimizerFactory = Callable[[Iterable], Optimizer]
SchedulerFactory = Callable[[Optimizer, int], LRScheduler]


class ProfileSeq2Seq(ReplyModule):
    """Pre-trains a backbone on reply pairs (Otsuka et al. 2024; see README for what the paper does not state).

    Args:
        size: `base` is the paper's 222M parameters, `small` serves the quickstart, `tiny` the tests.
        init_from: directory of a backbone to continue from, instead of random weights; its size wins. A test or
            prediction without it takes the one that this run has trained.
        optimizer: gets the parameters. Adafactor with parameter-scaled steps, because plain AdamW trains T5
            badly (not stated in the paper).
        lr_scheduler: gets the optimizer and the number of steps; called after every step.
        dropout: of the new model. Below one pass over the data there is nothing to regularise (not stated).
        decoding: how replies are generated.
    """

    written_by: ClassVar = {**ReplyModule.written_by, "fit": "callbacks.BackboneExport"}
    shared_commands: ClassVar = ("fit", "validate")

    def __init__(
        self,
        size: Size = "small",
        init_from: Path | None = None,
        optimizer: OptimizerFactory | None = None,
        lr_scheduler: SchedulerFactory | None = None,
        dropout: float = 0.0,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(decoding)
        self.size = size
        self.init_from = init_from
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.dropout = dropout
        require(vars(self), dropout=SHARE)

    def configure_model(self) -> None:
        if self.model is not None:
            return
        directory = self.source()
        if directory is None:
            tokenizer = self.trainer.datamodule.prompts.tokenizer
            self.model = new_model(self.size, tokenizer.get_vocab_size(), self.dropout)
        else:
            self.model = self.open_backbone(directory).model.train()

    def source(self) -> Path | None:
        """Directory of the backbone to begin with, or to test; None means random weights."""
        return self.init_from or (None if self.in_fit else self.trained())

    def trained(self) -> Path:
        """Directory of the backbone that this run has trained; ValueError where it has not."""
        directory = Path(self.trainer.default_root_dir) / BACKBONE
        if not directory.is_dir():
            raise ValueError(
                f"nothing to {self.trainer.state.fn.value}: this run has trained no backbone ({directory}); train "
                "it with `lightning fit`, or give another one with --model.init_from=<directory>"
            )
        return directory

    def on_train_batch_start(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        # Dropout's random numbers depend on the seed and on the number of the batch in the fit (several batches may
        # make one step), so that a resumed run draws the same ones.
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # of `seed_everything`
        torch.manual_seed(seed_of(seed, f"{self.trainer.fit_loop.total_batch_idx} {self.global_rank}"))

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Tensor:
        nll = summed_nll(self.model, reply_states(self.model, batch), batch.labels)
        self.log("train/loss", nll.detach().float() / (batch.labels != IGNORED).sum().clamp(min=1), prog_bar=True)
        # Divided by what batches have on average: rows of like length share a batch, and with each batch's own
        # count the tokens of short replies would weigh more than those of long ones.
        return nll / self.trainer.datamodule.label_tokens_per_batch

    def configure_optimizers(self) -> dict[str, Any]:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.optimizer is None:
            raise ValueError("training needs model.optimizer, for example class_path: torch.optim.Adafactor")
        optimizer = self.optimizer(parameters)
        if self.lr_scheduler is None:
            return {"optimizer": optimizer}
        scheduler = self.lr_scheduler(optimizer, self.num_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def num_steps(self) -> int:
        """Optimizer steps that the learning-rate schedule has to reach over."""
        num_steps = self.trainer.estimated_stepping_batches
        if num_steps in (-1, float("inf")):
            raise ValueError("the learning-rate schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        return int(num_steps)
