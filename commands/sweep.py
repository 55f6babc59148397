"""`lightning sweep`: every point of a W&B sweep file as a run on this machine, without an account.

Written below `runs/sweep-<name of the file>/`: a run directory for each point, `sweep.md`, `sweep.csv` and, where one
number varies, `sweep.png`. The metric of a point is read from its run card.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from artefacts.layout import RUNS
from artefacts.run_card import read_run_card
from commands.experiments.jobs import Job, RowFailedError, all_of, jobs_of, threads_of
from commands.experiments.sweep_file import Point, SweepFile, read_sweep
from evaluation.report.cells import align, csv_text
from evaluation.report.files import write_file
from evaluation.report.plots import draw_curves


@dataclass(frozen=True)
class Outcome:
    """What became of a point."""

    point: Point
    run: Path | None  # directory, if it got that far
    value: float = math.nan  # of the metric
    seconds: float | None = None  # wall time of the fit, over all its starts
    commit: str | None = None
    error: str | None = None  # why there is no metric


@dataclass
class Sweep:
    """Runs every point of a W&B sweep file here and tabulates its metric; the same command again resumes.

    Args:
        config: The sweep file, the same that `wandb sweep` takes; method grid or random.
        count: Most points to run; a random sweep needs it, or `run_cap` in the file.
        seed: Seed of a random sweep's draws.
        jobs: Most points that are run at once, each with its share of the cores (or OMP_NUM_THREADS)
            and of the GPUs.
    """

    config: Path
    count: int | None = None
    seed: int = 0
    jobs: int = 1

    def __post_init__(self) -> None:
        for name, value in (("jobs", self.jobs), ("count", self.count)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.config = Path(self.config)
        self.output = RUNS / f"sweep-{self.config.stem}"

    def run(self) -> None:
        """Runs the points in their order, prints the table and writes the files; ValueError if one has no metric."""
        sweep = read_sweep(self.config)
        points = sweep.points(self.count, self.seed)
        arguments = [sweep.arguments(point) for point in points]  # all, so that a mistake shows before the first run

        # Not WANDB_SWEEP_ID: W&B would look for a sweep of that name on its server.
        environment = {"LOCAL_SWEEP": self.config.stem, **threads_of(self.jobs)}
        labels = [" ".join(f"{name}={value}" for name, value in point.items()) for point in points]
        jobs = jobs_of(labels, self.output / "logs", environment)
        works = [partial(_run_point, *work, sweep.metric) for work in zip(jobs, points, arguments, strict=True)]
        outcomes = _without_duplicates(all_of(works, self.jobs))
        self._write(sweep, outcomes)
        if errors := [outcome.error for outcome in outcomes if outcome.error]:
            raise ValueError(f"{len(errors)} of {len(outcomes)} points have no result; the first: {errors[0]}")

    def _write(self, sweep: SweepFile, outcomes: list[Outcome]) -> None:
        finite = [outcome for outcome in outcomes if math.isfinite(outcome.value)]
        best = (max if sweep.maximize else min)(finite, key=lambda outcome: outcome.value, default=None)
        first = outcomes[0].point
        varying = [name for name in first if any(outcome.point[name] != first[name] for outcome in outcomes)]
        table, caption = _table(sweep, outcomes, varying, best), self._caption(sweep, outcomes, varying)
        markdown = f"# {self.config.stem}\n\n{table}\n\n{caption}\n"
        print(markdown)
        write_file(self.output / "sweep.md", markdown)
        write_file(self.output / "sweep.csv", _csv(sweep, outcomes, best))
        picture = self.output / "sweep.png"
        picture.unlink(missing_ok=True)  # an older sweep's
        if len(varying) != 1 or len(finite) < 2:
            return
        values = [outcome.point[varying[0]] for outcome in finite]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            figure = draw_curves(
                {sweep.metric: (np.array(values), np.array([outcome.value for outcome in finite]))},
                varying[0],
                f"{sweep.metric} ({'higher' if sweep.maximize else 'lower'} is better)",
                (sweep.metric, finite.index(best)),
                self.config.stem,
            )
            write_file(picture, figure)

    def _caption(self, sweep: SweepFile, outcomes: list[Outcome], varying: list[str]) -> str:
        failed = sum(outcome.error is not None for outcome in outcomes)
        how = f"random, seed {self.seed}" if sweep.method == "random" else sweep.method
        same = [f"{name}={value}" for name, value in outcomes[0].point.items() if name not in varying]
        commits = sorted({outcome.commit for outcome in outcomes if outcome.commit})
        lines = [
            f"lightning sweep --config {self.config}: {how}, {len(outcomes)} points, {failed} failed.",
            f"{sweep.metric} at the end of a run, as in its fit.card.json; the best is bold.",
            f"The same for all: {', '.join(same) or 'nothing'}. Commit {', '.join(commits) or 'unknown'}.",
        ]
        return "\n".join(f"- {line}" for line in lines)


async def _run_point(job: Job, point: Point, arguments: list[str], metric: str) -> Outcome:
    try:
        directory = await job.run(arguments)
    except RowFailedError as error:
        job.say(f"failed: {error.reason}")
        return Outcome(point, error.directory, error=error.reason)
    card = None if directory is None else read_run_card(directory, "fit")
    assert card is not None, "a fit that succeeded has written its card"
    metrics = card["metrics"]
    error = None if metric in metrics else f"no {metric} in its card, which has {', '.join(sorted(metrics))}"
    value = metrics.get(metric, math.nan)
    job.say(f"failed: {error}" if error else f"{metric} {value:.6g} in {directory}")
    return Outcome(point, directory, value, card["wall_seconds"], card["commit"], error)


def _without_duplicates(outcomes: list[Outcome]) -> list[Outcome]:
    """Points that were the same run have failed: what they differ in makes no other run."""
    runs = Counter(outcome.run for outcome in outcomes if outcome.error is None)
    why = "other points were the same run: what they differ in makes no other run, so it cannot be compared here"
    return [outcome if runs[outcome.run] < 2 else replace(outcome, value=math.nan, error=why) for outcome in outcomes]


def _table(sweep: SweepFile, outcomes: list[Outcome], varying: list[str], best: Outcome | None) -> str:
    rows = [[*varying, sweep.metric, "seconds", "run"]]
    for outcome in outcomes:
        value = f"**{outcome.value:.6g}**" if outcome is best else f"{outcome.value:.6g}"
        result = f"failed: {outcome.error}" if outcome.error else value
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        run = "" if outcome.run is None else outcome.run.name
        rows.append([*(str(outcome.point[name]) for name in varying), result, seconds, run])
    return align(rows)


def _csv(sweep: SweepFile, outcomes: list[Outcome], best: Outcome | None) -> str:
    rows = [[*outcomes[0].point, sweep.metric, "best", "seconds", "run", "error"]]
    for outcome in outcomes:
        value = None if outcome.error else outcome.value
        facts = [value, outcome is best, outcome.seconds, outcome.run, outcome.error]
        rows.append([*outcome.point.values(), *facts])
    return csv_text(rows)
