"""Writes the trained backbone in Hugging Face's format when training is done."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from artefacts.files import publish_directory
from artefacts.layout import BACKBONE
from lightning_modules.backbones.files import manifest_of, save_backbone
from lightning_modules.seq2seq import ProfileSeq2Seq


class BackboneExport(Callback):
    """At the end of a fit, writes `<run>/backbone/` for `init_from`, `AutoModelForSeq2SeqLM` and `AutoTokenizer`.

    Args:
        best: the weights with the lowest `val/loss` of all validations, not the last ones. Pre-training does not get
            over its data and needs none of this; on a few hundred turns of a user the last weights are too late ones.
    """

    def __init__(self, best: bool = False) -> None:
        self.best = best
        self.best_loss = math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_loss = state_dict["best_loss"]

    def on_validation_end(self, trainer: Trainer, pl_module: ProfileSeq2Seq) -> None:
        if not self.best or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics.get("val/loss", math.inf))
        if not loss < self.best_loss:  # true of NaN
            return
        self.best_loss = loss
        if trainer.is_global_zero:
            shutil.rmtree(_best_of(trainer), ignore_errors=True)
            _save(trainer, pl_module, _best_of(trainer), validation_loss=loss)

    def on_fit_end(self, trainer: Trainer, pl_module: ProfileSeq2Seq) -> None:
        if trainer.interrupted or not trainer.is_global_zero:
            return
        directory = Path(trainer.default_root_dir) / BACKBONE
        if not self.best:
            _save(trainer, pl_module, directory)
        elif _best_of(trainer).is_dir():
            publish_directory(_best_of(trainer), directory)
        elif not directory.is_dir():  # it exists when only the end of this run was killed
            raise ValueError("no validation loss was ever measured, so there are no best weights to keep")
        print(f"backbone {manifest_of(directory)['fingerprint']} is in {directory}")


def _best_of(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / f"{BACKBONE}.best"


def _save(trainer: Trainer, module: ProfileSeq2Seq, directory: Path, **provenance: Any) -> None:
    data = trainer.datamodule
    save_backbone(
        module.model,
        data.tokenizer_directory,
        data.prompts.template,
        directory,
        steps=trainer.global_step,
        **provenance,
    )
