"""A row of a table that is an experiment: what is missing is trained and predicted, what is there is used as it is.

In: an experiment file and flags over it. Out: the path of its predictions. Not its job: the decision whether a run is
still what its settings and data say; `lightning fit` and `lightning predict` make it, by the fingerprints in run cards.

Every command is a process of its own, so a row that fails, or is killed, takes nothing else with it; the same table
again goes on with the row that was not finished.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from evaluation.runs import all_of, run_lightning, threads_of

INIT_FROM = "model.init_from"


class RowFailedError(Exception):
    """A command of a row has failed; the message says which, why, and where all it has said stands."""


@dataclass(frozen=True)
class Experiment:
    """What one system of a table is.

    Args:
        experiment: experiment file, or several that are read one after the other.
        overrides: settings over them: dotted key → value, as on the command line.
        commands: what is run, in this order; a system that is not trained needs `[predict]` only. With `test` its
            weights have a table of their own.
        test: settings of `lightning test` alone, over the others; they neither train nor predict anew.
    """

    experiment: str | list[str]
    overrides: dict[str, Any] = field(default_factory=dict)
    commands: list[Literal["fit", "test", "predict"]] = field(default_factory=lambda: ["fit", "predict"])
    test: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "predict" not in self.commands:
            raise ValueError(f"commands {self.commands} of {self.experiment} make no predictions; add predict")
        if self.test and "test" not in self.commands:
            raise ValueError(f"{self.experiment} has settings of a test {self.test}, but no test in {self.commands}")

    @property
    def files(self) -> list[str]:
        """The experiment files, in the order in which they are read."""
        return [self.experiment] if isinstance(self.experiment, str) else self.experiment

    def flags(self, command: str) -> list[str]:
        """The arguments behind `lightning fit`, `test` or `predict`."""
        named = [argument for file in self.files for argument in ("--config", file)]
        settings = {**self.overrides, **(self.test if command == "test" else {})}
        return named + [f"--{key}={_written(value)}" for key, value in settings.items()]

    @property
    def backbone(self) -> str | None:
        """The backbone that it begins with, by its last file or override that names one; None where none does."""
        named = [yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {} for file in self.files]
        found = [(one.get("model") or {}).get("init_args", {}).get("init_from") for one in named]
        return next((one for one in [self.overrides.get(INIT_FROM), *reversed(found)] if one), None)

    def on(self, backbone: Path) -> Experiment:
        """The same on another backbone."""
        return replace(self, overrides={**self.overrides, INIT_FROM: str(backbone)})

    async def predictions(self, say: Callable[[str], None], log: Path, environment: Mapping[str, str]) -> Path:
        """Runs the commands, and gives the path of the predictions.

        Args:
            say: is called with a line on each command that begins or is done.
            log: file for what a command says, its suffix replaced by the command's name.
            environment: variables for the commands.

        Raises:
            RowFailedError: a command has failed.
        """
        directory = None
        for command in self.commands:
            file = log.with_suffix(f".{command}.log")
            say(f"{command} ({file})")
            run = await run_lightning([command, *self.flags(command)], file, environment)
            if run.error is not None:
                raise RowFailedError(f"lightning {command}: {run.error} (all of it: {file})")
            directory = run.directory
            say(f"{command} {run.seconds:.0f} s")
        if directory is None or not (directory / "predictions.jsonl").is_file():
            raise RowFailedError(
                f"lightning predict has written no predictions.jsonl in {directory}; does {self.experiment} have the "
                "callback callbacks.PredictionWriter?"
            )
        return directory / "predictions.jsonl"


def run_before(commands: Sequence[str], logs: Path) -> None:
    """Runs commands of `lightning` that all rows need, one after the other.

    Args:
        commands: each as on the command line, without `lightning`.
        logs: directory for what they say.

    Raises:
        ValueError: one has failed, and so would the rows.
    """
    for number, command in enumerate(commands, start=1):
        print(f"[before, {number} of {len(commands)}] {command}:", end=" ", flush=True)
        log = logs / f"before-{number}.log"
        (run,) = all_of([partial(run_lightning, shlex.split(command), log)])
        print(f"failed: {run.error}" if run.error else f"{run.seconds:.0f} s", flush=True)
        if run.error is not None:
            raise ValueError(f"before: lightning {command}: {run.error} (all of it: {log})")


def collect(
    systems: Mapping[str, Path | Experiment], logs: Path, jobs: int = 1
) -> tuple[dict[str, Path], dict[str, str]]:
    """Predictions of every system, making those that are experiments; and the reasons of those that have failed.

    Says on the screen what is under way, because a row may take hours. Of several rows at once, those that begin with
    no backbone go first, because they may make the backbones of the others.

    Args:
        systems: name → predictions, or the experiment that makes them.
        logs: directory for what the commands say.
        jobs: most rows under way at once.
    """
    made: dict[str, Path | str] = {name: one for name, one in systems.items() if isinstance(one, Path)}
    places = {name: f"[{number} of {len(systems)}] {name}:" for number, name in enumerate(systems, start=1)}
    environment = threads_of(jobs)

    async def make(name: str, experiment: Experiment) -> None:
        def say(what: str) -> None:
            print(places[name], what, flush=True)

        log = logs / f"{re.sub(r'[^A-Za-z0-9=_-]+', '-', name)}.log"
        try:
            path = await experiment.predictions(say, log, environment)
            made[name] = path
            say(str(path))
        except RowFailedError as error:
            made[name] = str(error)
            say(f"failed: {error}")

    experiments = {name: one for name, one in systems.items() if isinstance(one, Experiment)}
    first = {name: one for name, one in experiments.items() if jobs > 1 and one.backbone is None}
    for group in (first, {name: one for name, one in experiments.items() if name not in first}):
        all_of([partial(make, name, one) for name, one in group.items()], jobs)
    files = Counter(made.values())
    for name, path in made.items():
        if name in experiments and isinstance(path, Path) and files[path] > 1:
            made[name] = (
                f"another system has written {path} too: what they differ in makes no other run; give one of them a "
                "run of its own, `overrides: {run: <name>}`"
            )
            print(places[name], f"failed: {made[name]}", flush=True)
    paths = {name: path for name in systems if isinstance(path := made[name], Path)}
    return paths, {name: why for name in systems if isinstance(why := made[name], str)}


def _written(value: Any) -> str:
    """A value as the command line takes it: lists and mappings as JSON, which is YAML too."""
    return (
        json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) or value is None else str(value)
    )


def on_backbone(systems: Mapping[str, Path | Experiment], backbone: Path) -> dict[str, Path | Experiment]:
    """The systems with this backbone in the place of the first experiment's that names one, wherever it is named.

    Raises:
        ValueError: no experiment names a backbone.
    """
    named = {name: one.backbone for name, one in systems.items() if isinstance(one, Experiment)}
    replaced = next((one for one in named.values() if one), None)
    if replaced is None:
        raise ValueError(f"backbone {backbone}: no experiment of this table names a backbone (model.init_from)")
    return {n: one.on(backbone) if named.get(n) == replaced else one for n, one in systems.items()}
