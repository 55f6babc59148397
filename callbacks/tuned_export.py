"""Keeps the tuned weights with the best validation loss, and gives them their name when the fit is done."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from lightning_modules.directories import replace_directory
from lightning_modules.user_tuning import UserTuning


class TunedExport(Callback):
    """Writes `<run>/adapters/<user>/` or `<run>/model/` from the epoch with the lowest `val/loss`."""

    def __init__(self) -> None:
        self.best_loss = math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_loss = state_dict["best_loss"]

    def on_validation_end(self, trainer: Trainer, pl_module: UserTuning) -> None:
        loss = float(trainer.callback_metrics.get("val/loss", math.inf))
        if trainer.state.fn != "fit" or trainer.sanity_checking or loss >= self.best_loss:
            return
        self.best_loss = loss
        fresh = _beside(pl_module.directory, ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        pl_module.save(fresh, validation_loss=loss, step=trainer.global_step)
        replace_directory(fresh, _beside(pl_module.directory, ".best"))

    def on_fit_end(self, trainer: Trainer, pl_module: UserTuning) -> None:
        best = _beside(pl_module.directory, ".best")
        if best.is_dir():
            replace_directory(best, pl_module.directory)
        elif not pl_module.directory.is_dir():  # there it is when only the end of this run was killed
            raise ValueError("no validation loss was ever measured, so there are no best weights to keep")
        print(f"tuned weights of {pl_module.user} are in {pl_module.directory}")


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(directory.name + suffix)
