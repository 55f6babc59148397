"""Commands of `lightning` that all rows of a table need, run one after the other."""

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from artefacts.layout import RUNS
from commands.experiments import child_process
from commands.experiments.experiment import OF_THE_TRAINER, experiment_of
from commands.experiments.jobs import all_of


def run_before(commands: Sequence[str], logs: Path, places: Mapping[str, str] | None = None) -> dict[str, str]:
    """Runs the commands that have something to do, and gives run directory -> new one, of the runs that have moved.

    `places` has directory -> the one that takes its place in these commands. A backbone of them is not trained, and
    what is made from one of them has a run of its own, which takes the place of the other run. Raises ValueError if a
    command fails, because the rows would fail too.
    """
    moved_runs: dict[str, str] = {}
    split = [shlex.split(command) for command in commands]
    done: child_process.Finished | None = None
    for number, (command, arguments) in enumerate(zip(commands, split, strict=True), start=1):
        print(f"[before, {number} of {len(commands)}] {command}:", end=" ", flush=True)
        of_the_trainer = arguments[0] in OF_THE_TRAINER
        experiment = experiment_of(arguments)
        elsewhere = experiment.on({**(places or {}), **moved_runs}) if of_the_trainer else experiment
        if arguments[0] == "fit" and "fit" not in elsewhere.commands:
            print(f"{elsewhere.backbone} takes its place", flush=True)
            continue
        if elsewhere is not experiment:
            arguments, done = [arguments[0], *elsewhere.flags(arguments[0])], {}  # the command finds out itself
        if done is None and of_the_trainer:  # after the preparation, which they look at
            done = child_process.finished([words for words in split if words[0] in OF_THE_TRAINER])
        if done and tuple(arguments) in done:
            print("is done", flush=True)
            continue
        directory = _run(arguments, logs / f"before-{number}.log")
        done = {} if of_the_trainer else None  # what comes after it may have something to do now
        if elsewhere is not experiment:
            moved_runs[f"{RUNS}/{experiment.name}"] = str(directory)
    return moved_runs


def _run(arguments: Sequence[str], log: Path) -> Path | None:
    (run,) = all_of([partial(child_process.run_lightning, arguments, log)])
    print(f"failed: {run.error}" if run.error else f"{run.seconds:.0f} s", flush=True)
    if run.error is not None:
        raise ValueError(f"before: lightning {shlex.join(arguments)}: {run.error} (all of it: {log})")
    return run.directory
