"""Runs that are killed at a chosen batch, for tests of resuming through Lightning."""

from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, LightningModule, Trainer

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
WARNINGS = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*IterableDataset. has .__len__. defined"),
    pytest.mark.filterwarnings("ignore:.*not resumable"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
]


class Killed(Exception):
    """Stands for the end of a process."""


class KillAt(Callback):
    """Saves a checkpoint in one hook, when a module has `seen` so many batches, and ends the run there."""

    def __init__(self, hook: str, num_batches: int, path: Path) -> None:
        self.num_batches = num_batches
        self.path = path
        setattr(self, hook, self._stop)

    def _stop(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if len(module.seen) >= self.num_batches and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)
            raise Killed
