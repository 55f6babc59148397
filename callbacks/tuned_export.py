"""Keeps each user's tuned weights with the best validation loss, and gives them their name when the user is done."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint

from artefacts.files import publish_directory
from lightning_modules.user_tuning import UserTuning


class TunedExport(Checkpoint):
    """Writes `<run>/adapters/<user>/` or `<run>/models/<user>/` from the user's epoch with the lowest validation loss.

    A `Checkpoint`, because Lightning calls those after the module's own hook, which says who is done.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: UserTuning) -> None:
        if trainer.state.fn != "fit" or pl_module.progress.best_epoch != pl_module.progress.epoch:
            return
        directory = pl_module.directory_of(pl_module.user)
        fresh = _beside(directory, ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        pl_module.save(fresh)
        publish_directory(fresh, _beside(directory, ".best"))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: UserTuning) -> None:
        for user in pl_module.take_finished():
            directory = pl_module.directory_of(user)
            best = _beside(directory, ".best")
            if best.is_dir():  # it is not when this run was killed behind this line and goes on from before it
                publish_directory(best, directory)
            print(f"tuned weights of {user} are in {directory}")


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(directory.name + suffix)
