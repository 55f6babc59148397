"""Saves the state of a fit, so that the same command can resume it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from artefacts.files import partial_of, publish

STEPS_PER_LOOK = 16
"""Several processes agree on the time in every so many steps: to agree, each waits for its device."""


class ResumeCheckpoint(Checkpoint):
    """Writes one checkpoint every so many seconds of training.

    Not Lightning's `ModelCheckpoint`: with manual optimization that ignores its own time interval, and it overwrites
    the file in place. Nothing is saved after the last batch of an epoch, because Lightning, resumed from there, skips
    the validation and all that follows from it.

    Args:
        path: the checkpoint.
        every: seconds; 0 saves after each step.
    """

    def __init__(self, path: Path, every: float = 60.0) -> None:
        self.path = path
        self.every = every
        self.last = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and self.every and batch_idx % STEPS_PER_LOOK:
            return
        due = trainer.strategy.broadcast(time.monotonic() - self.last >= self.every)  # all processes save together
        if not due or trainer.is_last_batch or trainer.fast_dev_run:
            return
        partial = partial_of(self.path)
        trainer.save_checkpoint(partial, weights_only=False)
        if trainer.is_global_zero:
            publish(partial, self.path)
        self.last = time.monotonic()
