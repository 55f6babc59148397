"""Keeps each user's tuned weights with the best validation loss until the user is finished."""

from __future__ import annotations

from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint

from artefacts.files import publish_directory, replacing_directory
from lightning_modules.user_tuning import UserTuning


class TunedExport(Checkpoint):
    """Writes `<run>/adapters/<user>/` or `<run>/models/<user>/` from the user's epoch with the lowest validation loss.

    A `Checkpoint`, because Lightning calls those after the module's own hook, which says who is finished.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: UserTuning) -> None:
        if trainer.state.fn != "fit" or pl_module.progress.best_epoch != pl_module.progress.epoch:
            return
        with replacing_directory(_best_of(pl_module.directory_of(pl_module.user))) as partial:
            pl_module.save(partial)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: UserTuning) -> None:
        for user in pl_module.take_finished():
            directory = pl_module.directory_of(user)
            best = _best_of(directory)
            if best.is_dir():  # it is not when this run was killed after this line and resumes before it
                publish_directory(best, directory)
            print(f"tuned weights of {user} are in {directory}")


def _best_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.best")
