"""The same table on another backbone: what takes the place of what."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from artefacts.layout import MANIFEST
from commands.experiments.experiment import INIT_FROM, OF_THE_TRAINER, Experiment, experiment_of


def places_of(systems: Mapping[str, Path | Experiment], backbone: Path | Mapping[str, Path]) -> dict[str, str]:
    """Which backbone of a table is replaced by which: directory -> directory.

    A single `backbone` takes the place of the first one that is named. Raises ValueError where no experiment names
    such a backbone, or some would stay on another one.
    """
    experiments = {name: one for name, one in systems.items() if isinstance(one, Experiment)}
    named = {name: old for name, one in experiments.items() if (old := one.makes or one.backbone)}
    if not named:
        raise ValueError(f"backbone {backbone}: no experiment of this table names a backbone ({INIT_FROM})")
    replaced = dict(backbone) if isinstance(backbone, Mapping) else {next(iter(named.values())): backbone}
    if unknown := sorted(replaced.keys() - set(named.values())):
        raise ValueError(f"no experiment of this table is on {unknown[0]}; they are on {sorted(set(named.values()))}")
    if left := {name: old for name, old in named.items() if old not in replaced}:
        raise ValueError(
            f"systems {sorted(left)} would stay on {sorted(set(left.values()))}: say what takes the place of every "
            "backbone, as in --backbone='{<directory>: <directory>, ...}'"
        )
    return {old: str(new) for old, new in replaced.items()}


def on_backbones(commands: Sequence[str]) -> dict[str, Experiment]:
    """Those of the commands of `lightning` that begin with a backbone, and what they run."""
    split = {command: shlex.split(command) for command in commands}
    found = {command: experiment_of(words) for command, words in split.items() if words[0] in OF_THE_TRAINER}
    return {command: one for command, one in found.items() if one.backbone is not None}


def require_backbones(directories: Iterable[str]) -> None:
    """Raises ValueError where one is no backbone, so that it shows before anything is trained."""
    for one in directories:
        if not (Path(one) / MANIFEST).is_file():
            raise ValueError(f"no backbone in {one}: expected what `lightning fit` of a pre-training has written")
