"""The run card: what was run, with what, on what, for how long, and whether it came to its end."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from artefacts.commit import git_commit
from artefacts.run_card import prepared_fingerprint, profiles_fingerprint, write_run_card
from lightning_modules.user_module import UserModule

PACKAGES = ("lightning", "torch", "transformers", "peft", "torchmetrics", "tokenizers", "sentencepiece")


class RunCard(Callback):
    """Writes `<run>/<stage>.card.json` at the start with status `running`, at the end with `finished`.

    The fit of many users of whom some have no weights, because their training has diverged, ends as `failed`, with
    `failed_users`.

    Args:
        config: the resolved configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.seconds = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.start = time.monotonic()
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self._write(trainer, "running")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run and not trainer.interrupted:
            failed = pl_module.rounds.failed if isinstance(pl_module, UserModule) else {}
            self._write(trainer, "failed" if failed else "finished", **({"failed_users": failed} if failed else {}))

    on_fit_end = on_test_end = on_predict_end = _finish

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._finish(trainer, pl_module)

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds + time.monotonic() - self.start}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.seconds = state_dict["seconds"]  # wall time of the runs before this one

    def _write(self, trainer: Trainer, status: str, **facts: Any) -> None:
        data = trainer.datamodule
        card = {
            "status": status,
            **facts,
            "commit": git_commit(),
            "seed": self.config.get("seed_everything"),
            "wall_seconds": round(self.seconds + time.monotonic() - self.start, 1),
            "steps": trainer.global_step,
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "backbone": getattr(trainer.lightning_module, "backbone_fingerprint", None),
            "profiles": profiles_fingerprint(self.config),
            "prepared": prepared_fingerprint(data.preparation.output) if data is not None else None,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "config": self.config,
        }
        write_run_card(Path(trainer.default_root_dir), trainer.state.fn.value, card)
