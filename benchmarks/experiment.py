"""Reads an experiment as the command line does, for the benchmarks that train."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> tuple[Any, Any, dict[str, Any]]:
    """The model and the data module of an experiment, made as `lightning fit` makes them, and its trainer settings."""
    from lightning import LightningDataModule, LightningModule
    from lightning.pytorch.cli import LightningArgumentParser

    from commands.training.trainer_cli import PARSER_SETTINGS

    parser = LightningArgumentParser(**PARSER_SETTINGS)
    parser.add_argument("--config", action="config")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parser.add_argument("--trainer", type=dict[str, Any])
    config = parser.parse_args(["--config", str(path), *overrides])
    objects = parser.instantiate(config)
    return objects.model, objects.data, dict(yaml.safe_load(path.read_text())["trainer"])


def call(spec: str | dict[str, Any], *arguments: Any) -> Any:
    """Calls what an experiment names, a `class_path` with `init_args` or a name alone, without the parser."""
    spec = {"class_path": spec} if isinstance(spec, str) else spec
    module, _, name = spec["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)(*arguments, **spec.get("init_args", {}))


def exit_on_termination() -> None:
    """Lets a `kill` of the benchmark pass through its `finally` clauses, which end the processes it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
