"""A row of a table that is an experiment: its commands, and where its backbone and its predictions are."""

import json
import re
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from artefacts.layout import BACKBONE, PREDICTIONS, RUNS
from commands.experiments.child_process import Finished
from commands.experiments.jobs import Job, RowFailedError

INIT_FROM = "model.init_from"
OF_THE_TRAINER = ("fit", "test", "predict")


@dataclass(frozen=True)
class Experiment:
    """What one system of a table is.

    Args:
        experiment: experiment file, or several that are read one after the other.
        overrides: settings over them: dotted key → value, as on the command line.
        commands: what is run, in this order; a system that is not trained needs `[predict]` only. With `test` its
            weights have a table of their own.
        test: settings of `lightning test` alone, over the others; they cause no new training or prediction.
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
        """The arguments after `lightning fit`, `test` or `predict`."""
        named = [argument for file in self.files for argument in ("--config", file)]
        settings = {**self.overrides, **(self.test if command == "test" else {})}
        return named + [f"--{key}={_written(value)}" for key, value in settings.items()]

    @property
    def backbone(self) -> str | None:
        """The backbone that it starts from, by its last file or override that names one; None if none does."""
        return self._paths().get(INIT_FROM)

    @property
    def name(self) -> str:
        """Name of its run, without what overrides change in it."""
        return self.overrides.get("run") or "+".join(Path(file).stem for file in self.files)

    @property
    def makes(self) -> str | None:
        """The backbone that it trains, with what distinguishes it from others; None if it trains none of its own."""
        if "fit" not in self.commands or self.backbone is not None:
            return None
        changes = {key: value for key, value in self.overrides.items() if key != "run"}
        return f"{RUNS}/{self.name}/{BACKBONE}" + (f" with {changes}" if changes else "")

    def on(self, places: Mapping[str, str]) -> Self:
        """The same after directories that it names have moved; itself if it names none of them.

        A backbone that has moved exists, and is not trained.
        """
        changes = {key: new for key, path in self._paths().items() if (new := moved(path, places)) != path}
        commands = self.commands
        if self.makes in places:
            changes[INIT_FROM] = places[self.makes]
            commands = [command for command in commands if command != "fit"]
        if not changes:
            return self
        return replace(self.with_overrides(changes), commands=commands)

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """The same with further settings; a run that has a name of its own gets them appended, as other runs do."""
        merged = {**self.overrides, **overrides}
        last = {key: key.rpartition(".")[2] for key in overrides}
        if "run" in self.overrides and "run" not in overrides:
            changes = [f"{last[key]}={value}" for key, value in overrides.items() if last[key] != "adapters"]
            merged["run"] = re.sub(r"[^\w.,+=-]+", "-", ",".join([self.name, *changes]))
        return replace(self, overrides=merged)

    def _paths(self) -> dict[str, str]:
        """Its settings that are strings, directories among them, by their short keys."""
        settings_of_parts: dict[str, Any] = {}
        for settings in map(_settings, self.files):
            for part in ("model", "data"):
                arguments = (settings.get(part) or {}).get("init_args") or {}
                settings_of_parts |= {f"{part}.{key}": value for key, value in arguments.items()}
        return {key: value for key, value in (settings_of_parts | self.overrides).items() if isinstance(value, str)}

    def arguments(self) -> list[list[str]]:
        """Of all its commands, in order."""
        return [[command, *self.flags(command)] for command in self.commands]

    async def predictions(self, job: Job, done: Finished) -> Path:
        """Runs the commands, and gives the path of the predictions; RowFailedError if there are none.

        Those that are `done` have nothing to do, unless one before them is run.
        """
        directory = None
        for arguments in self.arguments():
            if tuple(arguments) in done:
                directory = done[tuple(arguments)]
                job.say(f"{arguments[0]} is done")
            else:
                directory, done = await job.run(arguments), {}
        if directory is None or not (directory / PREDICTIONS).is_file():
            raise RowFailedError(
                f"lightning predict has written no {PREDICTIONS} in {directory}; does {self.experiment} have the "
                "callback callbacks.PredictionWriter?",
                directory,
            )
        return directory / PREDICTIONS


def experiment_of(arguments: Sequence[str]) -> Experiment:
    """The experiment of a command of the trainer: its files, and its other flags, `--key=value` or `--key value`."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    parsed, flags = parser.parse_known_args(arguments[1:])
    overrides: dict[str, Any] = {}
    for flag in flags:
        if flag.startswith("--"):
            key, _, value = flag.removeprefix("--").partition("=")
            overrides[key] = value
        elif overrides:
            overrides[key] = flag
    return Experiment(parsed.config, overrides, ["fit", "predict"])


def moved(path: str, places: Mapping[str, str]) -> str:
    """The path; its new one if it is, or lies in, a directory that has moved."""
    for old, new in places.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return path


def _settings(file: str) -> dict[str, Any]:
    """The content of an experiment file; nothing if it cannot be read, which its command reports."""
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _written(value: Any) -> str:
    """A value as the command line takes it: a string as it is, all else as JSON, which is YAML too."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
