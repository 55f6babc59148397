"""Saves the state of a fit, so that the same command can resume it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer

from artefacts.files import partial_of, publish

STEPS_PER_LOOK = 16
"""Steps between two looks at the clock by several processes: to agree on it, each waits for its device."""


class ResumeCheckpoint(Checkpoint):
    """Writes a checkpoint at an interval of training time, and a last one when the fit has to stop.

    It has to stop when its time is over or on SIGUSR1, which a scheduler such as SLURM sends before it ends a job; on
    SIGTERM Lightning stops it. What stops in this way is not finished: it raises `SystemExit`, and nothing is exported.

    Not Lightning's `ModelCheckpoint`: with manual optimization that ignores its own time interval, and it overwrites
    the file in place. Not its `Timer`: that ends a fit as if it were finished, and a resumed one at once. Nothing is
    saved after the last batch of an epoch, because Lightning, resumed from there, skips the validation and all that
    follows from it.

    Args:
        path: the checkpoint.
        every: seconds; 0 saves after each step.
        timer: of the time that this process may train; it is no callback of the trainer.
    """

    def __init__(self, path: Path, every: float = 60.0, timer: Timer | None = None) -> None:
        self.path = path
        self.every = every
        self.timer = timer or Timer()
        self.last = time.monotonic()
        self.is_told_to_stop = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def stop(*_: Any) -> None:
            self.is_told_to_stop = True

        signal.signal(signal.SIGUSR1, stop)
        self.timer.on_train_start(trainer, pl_module)

    def _reason_to_stop(self) -> str | None:
        remaining = self.timer.time_remaining()
        if remaining is not None and remaining <= 0:
            return "trainer.max_time"
        return "SIGUSR1" if self.is_told_to_stop else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and self.every and batch_idx % STEPS_PER_LOOK:
            return
        reason = self._reason_to_stop()
        due = reason or trainer.received_sigterm or time.monotonic() - self.last >= self.every
        reason, due = trainer.strategy.broadcast((reason, due))  # all processes save together
        if not due or trainer.fast_dev_run:
            return
        if not trainer.is_last_batch:
            self._save(trainer)
        elif trainer.num_training_batches > 1:  # the next epoch has a batch to stop after
            return
        if reason:
            where = self.path if self.path.is_file() else "its beginning, because there was no batch to save after"
            raise SystemExit(
                f"stopped by {reason} after {trainer.global_step} steps; the same command resumes from {where}"
            )

    def _save(self, trainer: Trainer) -> None:
        partial = partial_of(self.path)
        trainer.save_checkpoint(partial, weights_only=False)
        if trainer.is_global_zero:
            publish(partial, self.path)
        self.last = time.monotonic()
