"""The run card: what was run, with what, on what, for how long, and whether it came to its end."""

from __future__ import annotations

import platform
import time
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from artefacts.commit import git_commit
from artefacts.run_card import (
    WRITTEN,
    has_written,
    made_from,
    prepared_fingerprint,
    profiles_fingerprint,
    write_run_card,
)
from lightning_modules.user_module import UserModule

PACKAGES = ("lightning", "torch", "transformers", "peft", "torchmetrics", "tokenizers", "sentencepiece")


class RunCard(Callback):
    """Writes `<run>/<stage>.card.json` at the start with status `running`, at the end with `finished`.

    It starts when everything is set up: what is refused before leaves no card. A command that has written nothing is
    not finished. The fit of many users of whom some have no weights, because their training has diverged, ends as
    `failed`, with `failed_users`.

    Args:
        config: the resolved configuration.
        log_users: whether loggers get the ids in `data.users`, and paths with them, or how many there are.
    """

    def __init__(self, config: dict[str, Any], log_users: bool = False) -> None:
        self.config = config
        self.log_users = log_users
        self.seconds = 0.0
        self.made_from: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.start = time.monotonic()
        self.made_from = [] if stage == "fit" else made_from(self.config, Path(trainer.default_root_dir))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config if self.log_users else without_users(self.config))

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self._write(trainer, "running")

    on_test_start = on_predict_start = _begin

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._begin(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run or trainer.interrupted:
            return
        failed = pl_module.rounds.failed if isinstance(pl_module, UserModule) else {}
        run, command = Path(trainer.default_root_dir), trainer.state.fn.value
        if not failed and not has_written(run, command, self.config):
            raise ValueError(f"{run} is not finished: {command} has written none of {', '.join(WRITTEN[command])}")
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
            "made_from": self.made_from,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "config": self.config,
        }
        write_run_card(Path(trainer.default_root_dir), trainer.state.fn.value, card)


def without_users(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the number of chosen users for their ids, and without the paths that are named after them.

    A file of users counts as one.
    """
    users = config.get("data", {}).get("init_args", {}).get("users")
    if users is None:
        return config
    public = deepcopy(config)
    public["data"]["init_args"]["users"] = 1 if isinstance(users, str) else len(users)
    for key in ("default_root_dir", "logger"):
        public["trainer"].pop(key, None)
    for key in ("run", "ckpt_path"):
        public.pop(key, None)
    return public
