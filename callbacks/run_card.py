"""The run card: what was run, with what, on what, for how long, and whether it came to its end."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from artefacts.commit import git_commit

PACKAGES = ("lightning", "torch", "transformers", "peft", "torchmetrics", "tokenizers", "sentencepiece")


class RunCard(Callback):
    """Writes `<run>/<stage>.card.json` at the start with status `running`, at the end with `finished`.

    Args:
        config: the resolved configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.seconds = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.path = Path(trainer.default_root_dir) / f"{trainer.state.fn.value}.card.json"
        self.start = time.monotonic()
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self.write(trainer, "running")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._finish(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    def _finish(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run and not trainer.interrupted:
            self.write(trainer, "finished")

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds + time.monotonic() - self.start}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.seconds = state_dict["seconds"]  # wall time of the runs before this one

    def write(self, trainer: Trainer, status: str) -> None:
        """Writes the card under a temporary name and renames it."""
        data = trainer.datamodule
        card = {
            "status": status,
            "commit": git_commit(),
            "seed": self.config.get("seed_everything"),
            "wall_seconds": round(self.seconds + time.monotonic() - self.start, 1),
            "steps": trainer.global_step,
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "backbone": getattr(trainer.lightning_module, "backbone_fingerprint", None),
            "profiles": fingerprint_of_profiles(self.config),
            "prepared": fingerprint_of(data.preparation.output / "manifest.json") if data is not None else None,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "config": self.config,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(card, indent=1, default=str) + "\n")
        os.replace(partial, self.path)


def fingerprint_of(path: Path) -> str | None:
    """SHA-256 of a file in 16 hexadecimal digits; a manifest holds those of all it describes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def fingerprint_of_profiles(config: dict[str, Any]) -> str | None:
    """Fingerprint of the profiles that a configuration names for its prompts; None where its prompts have none."""
    data = (config.get("data") or {}).get("init_args") or {}
    if not data.get("profiles") or (data.get("prompt") or {}).get("style", "none") == "none":
        return None
    return fingerprint_of(Path(data["profiles"]))
