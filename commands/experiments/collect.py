"""The predictions of every row of a table: what exists is reused, what is missing is trained and predicted.

A row that fails, or is killed, takes nothing else with it; the same table again resumes at the unfinished row.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from commands.experiments import child_process
from commands.experiments.experiment import Experiment
from commands.experiments.jobs import Job, RowFailedError, all_of, jobs_of, threads_of


def collect(
    systems: Mapping[str, Path | Experiment], logs: Path, jobs: int = 1
) -> tuple[dict[str, Path], dict[str, str]]:
    """Predictions of every system, and the reasons of those that have failed.

    Prints what is under way, because a row may take hours. Rows that start from no backbone go first, because they
    may make the backbones of the others.
    """
    made: dict[str, Path | str] = {name: system for name, system in systems.items() if isinstance(system, Path)}
    rows = dict(zip(systems, jobs_of(systems, logs, threads_of(jobs)), strict=True))
    experiments = {name: system for name, system in systems.items() if isinstance(system, Experiment)}
    first = {name: experiment for name, experiment in experiments.items() if experiment.backbone is None}
    for group in (first, {name: one for name, one in experiments.items() if name not in first}):
        if group:
            done = child_process.finished([words for experiment in group.values() for words in experiment.arguments()])
            works = [partial(_make, experiment, rows[name], done) for name, experiment in group.items()]
            made |= zip(group, all_of(works, jobs), strict=True)
    files = Counter(made.values())
    for name, path in made.items():
        if name in experiments and isinstance(path, Path) and files[path] > 1:
            made[name] = (
                f"another system has written {path} too: what they differ in makes no other run; give one of them a "
                "run of its own, `overrides: {run: <name>}`"
            )
            rows[name].say(f"failed: {made[name]}")
    paths = {name: path for name in systems if isinstance(path := made[name], Path)}
    return paths, {name: reason for name in systems if isinstance(reason := made[name], str)}


async def _make(experiment: Experiment, row: Job, done: child_process.Finished) -> Path | str:
    """The predictions of a row, or why there are none."""
    try:
        path = await experiment.predictions(row, done)
    except RowFailedError as error:
        row.say(f"failed: {error}")
        return str(error)
    row.say(path)
    return path
