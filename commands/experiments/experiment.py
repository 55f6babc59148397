"""A row of a table that is an experiment: what is missing is trained and predicted, what is there is used as it is.

In: an experiment file and flags over it. Out: the path of its predictions.

Every command is a process of its own, so a row that fails, or is killed, takes nothing else with it; the same table
again goes on with the row that was not finished.
"""

from __future__ import annotations

import json
import re
import shlex
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from commands.experiments.child_process import Finished, all_of, finished, run_lightning, threads_of

INIT_FROM = "model.init_from"
OF_THE_TRAINER = ("fit", "test", "predict")


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
        return self._paths().get(INIT_FROM)

    @property
    def name(self) -> str:
        """Of its run, without what overrides change in it."""
        return self.overrides.get("run") or "+".join(Path(file).stem for file in self.files)

    @property
    def makes(self) -> str | None:
        """The backbone that it trains, or how it is told from others; None where it trains none of its own."""
        if "fit" not in self.commands or self.backbone is not None:
            return None
        changes = {key: value for key, value in self.overrides.items() if key != "run"}
        return f"runs/{self.name}/backbone" + (f" with {changes}" if changes else "")

    def on(self, places: Mapping[str, str]) -> Experiment:
        """The same where directories that it names have moved; itself where it names none of them.

        Args:
            places: directory -> the one that takes its place. A backbone of another place is there, and not trained.
        """
        changes = {key: there for key, path in self._paths().items() if (there := moved(path, places)) != path}
        commands = self.commands
        if self.makes in places:
            changes[INIT_FROM] = places[self.makes]
            commands = [command for command in commands if command != "fit"]
        if not changes:
            return self
        return replace(self.with_overrides(changes), commands=commands)

    def with_overrides(self, overrides: Mapping[str, Any]) -> Experiment:
        """The same with further settings; a run that has a name is named after them, too, as the others are."""
        merged = {**self.overrides, **overrides}
        last = {key: key.rpartition(".")[2] for key in overrides}
        if "run" in self.overrides and "run" not in overrides:
            changes = [f"{last[key]}={value}" for key, value in overrides.items() if last[key] != "adapters"]
            merged["run"] = re.sub(r"[^\w.,+=-]+", "-", ",".join([self.name, *changes]))
        return replace(self, overrides=merged)

    def _paths(self) -> dict[str, str]:
        """Its settings that are words, by their short keys: what directories are among."""
        found: dict[str, Any] = {}
        for settings in map(_settings, self.files):
            for part in ("model", "data"):
                arguments = (settings.get(part) or {}).get("init_args") or {}
                found |= {f"{part}.{key}": value for key, value in arguments.items()}
        return {key: value for key, value in (found | self.overrides).items() if isinstance(value, str)}

    def arguments(self) -> list[list[str]]:
        """Of all its commands, in order."""
        return [[command, *self.flags(command)] for command in self.commands]

    async def predictions(
        self,
        say: Callable[[str], None],
        log: Path,
        environment: Mapping[str, str],
        done: Mapping[tuple[str, ...], Path],
    ) -> Path:
        """Runs the commands, and gives the path of the predictions.

        Args:
            say: is called with a line on each command that begins or is done.
            log: file for what a command says, its suffix replaced by the command's name.
            environment: variables for the commands.
            done: what has nothing to do, as far as no command before it is run.

        Raises:
            RowFailedError: a command has failed.
        """
        directory = None
        for arguments in self.arguments():
            if tuple(arguments) in done:
                directory = done[tuple(arguments)]
                say(f"{arguments[0]} is done")
                continue
            done = {}
            file = log.with_suffix(f".{arguments[0]}.log")
            say(f"{arguments[0]} ({file})")
            run = await run_lightning(arguments, file, environment)
            if run.error is not None:
                raise RowFailedError(f"lightning {arguments[0]}: {run.error} (all of it: {file})")
            directory = run.directory
            say(f"{arguments[0]} {run.seconds:.0f} s")
        if directory is None or not (directory / "predictions.jsonl").is_file():
            raise RowFailedError(
                f"lightning predict has written no predictions.jsonl in {directory}; does {self.experiment} have the "
                "callback callbacks.PredictionWriter?"
            )
        return directory / "predictions.jsonl"


def run_before(commands: Sequence[str], logs: Path, places: Mapping[str, str] | None = None) -> dict[str, str]:
    """Runs commands of `lightning` that all rows need, one after the other.

    Args:
        commands: each as on the command line, without `lightning`.
        logs: directory for what they say.
        places: directory -> the one that takes its place in these commands. A backbone of them is not trained, and
            what is made from one of them has a run of its own, which takes the place of the other run.

    Returns:
        Run directory -> the one that takes its place, of the runs that have moved.

    Raises:
        ValueError: one has failed, and so would the rows.
    """
    moved_runs: dict[str, str] = {}
    done: Finished | None = None
    split = [shlex.split(command) for command in commands]
    for number, (command, arguments) in enumerate(zip(commands, split, strict=True), start=1):
        print(f"[before, {number} of {len(commands)}] {command}:", end=" ", flush=True)
        of_the_trainer = arguments[0] in OF_THE_TRAINER
        experiment = experiment_of(arguments)
        elsewhere = experiment.on({**(places or {}), **moved_runs}) if of_the_trainer else experiment
        if arguments[0] == "fit" and "fit" not in elsewhere.commands:
            print(f"{elsewhere.backbone} takes its place", flush=True)
            continue
        if elsewhere is not experiment:
            arguments = [arguments[0], *elsewhere.flags(arguments[0])]
            done = {}  # it finds out itself
        if done is None and of_the_trainer:  # behind the preparation, which they look at
            done = finished([one for one in split if one[0] in OF_THE_TRAINER])
        if done and tuple(arguments) in done:
            print("is done", flush=True)
            continue
        log = logs / f"before-{number}.log"
        (run,) = all_of([partial(run_lightning, arguments, log)])
        print(f"failed: {run.error}" if run.error else f"{run.seconds:.0f} s", flush=True)
        if run.error is not None:
            raise ValueError(f"before: lightning {shlex.join(arguments)}: {run.error} (all of it: {log})")
        done = {} if of_the_trainer else None  # what comes behind it may not be done any more
        if elsewhere is not experiment:
            moved_runs[f"runs/{experiment.name}"] = str(run.directory)
    return moved_runs


def experiment_of(arguments: Sequence[str]) -> Experiment:
    """What a command of the trainer runs: its files, and its other flags, each `--key=value` or `--key value`."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    found, flags = parser.parse_known_args(arguments[1:])
    overrides: dict[str, Any] = {}
    for flag in flags:
        if flag.startswith("--"):
            key, _, value = flag.removeprefix("--").partition("=")
            overrides[key] = value
        elif overrides:
            overrides[key] = flag
    return Experiment(found.config, overrides, ["fit", "predict"])


def collect(
    systems: Mapping[str, Path | Experiment], logs: Path, jobs: int = 1
) -> tuple[dict[str, Path], dict[str, str]]:
    """Predictions of every system, making those that are experiments; and the reasons of those that have failed.

    Says on the screen what is under way, because a row may take hours. Rows that begin with no backbone go first,
    because they may make the backbones of the others.

    Args:
        systems: name → predictions, or the experiment that makes them.
        logs: directory for what the commands say.
        jobs: most rows under way at once.
    """
    made: dict[str, Path | str] = {name: one for name, one in systems.items() if isinstance(one, Path)}
    numbers = {name: number for number, name in enumerate(systems, start=1)}
    environment = threads_of(jobs)

    def say(name: str, what: object) -> None:
        print(f"[{numbers[name]} of {len(systems)}] {name}: {what}", flush=True)

    async def make(name: str, experiment: Experiment, done: Finished) -> None:
        log = logs / f"{numbers[name]}-{re.sub(r'[^A-Za-z0-9=_-]+', '-', name)}.log"
        try:
            path = await experiment.predictions(partial(say, name), log, environment, done)
            made[name] = path
            say(name, path)
        except RowFailedError as error:
            made[name] = str(error)
            say(name, f"failed: {error}")

    experiments = {name: one for name, one in systems.items() if isinstance(one, Experiment)}
    first = {name: one for name, one in experiments.items() if one.backbone is None}
    for group in (first, {name: one for name, one in experiments.items() if name not in first}):
        if group:
            done = finished([arguments for one in group.values() for arguments in one.arguments()])
            all_of([partial(make, name, one, done) for name, one in group.items()], jobs)
    files = Counter(made.values())
    for name, path in made.items():
        if name in experiments and isinstance(path, Path) and files[path] > 1:
            made[name] = (
                f"another system has written {path} too: what they differ in makes no other run; give one of them a "
                "run of its own, `overrides: {run: <name>}`"
            )
            say(name, f"failed: {made[name]}")
    paths = {name: path for name in systems if isinstance(path := made[name], Path)}
    return paths, {name: why for name in systems if isinstance(why := made[name], str)}


def moved(path: str, places: Mapping[str, str]) -> str:
    """The path, or where it is now if it is, or lies in, a directory that has moved."""
    for old, new in places.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return path


def _settings(file: str) -> dict[str, Any]:
    """What stands in an experiment file; nothing where it cannot be read, which its command says itself."""
    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _written(value: Any) -> str:
    """A value as the command line takes it: lists and mappings as JSON, which is YAML too."""
    return (
        json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) or value is None else str(value)
    )
