"""The callback that writes what a command is for: always there, also where a further `--config` replaces the list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from commands.training.run_name import class_at


def as_list(value: Any) -> list[Any]:
    """What may be given as a list, as one, or not at all."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def missing_writer(model: str, command: str, callbacks: Sequence[str], files: Sequence[Path]) -> dict[str, Any] | None:
    """The callback that a model needs for a command, as an entry of `trainer.callbacks`; None if it is among these.

    A class of models names it in `written_by`. Its arguments are those of the last file with it.
    """
    needed = getattr(class_at(model), "written_by", {}).get(command)
    if needed is None or any(_is_a(one, needed) for one in callbacks):
        return None
    entries = [entry for file in reversed(files) for entry in _entries_of(file)]
    return next((entry for entry in entries if _is_a(entry["class_path"], needed)), {"class_path": needed})


def _is_a(path: str, base: str) -> bool:
    found = class_at(path)
    return found is not None and issubclass(found, class_at(base))


def _entries_of(file: Path) -> list[dict[str, Any]]:
    """The callbacks of an experiment file as it is written."""
    trainer = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("trainer")
    callbacks = as_list(trainer.get("callbacks")) if isinstance(trainer, dict) else []
    return [{"class_path": one} if isinstance(one, str) else one for one in callbacks]
