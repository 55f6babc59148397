"""`lightning sweep`: every point of a W&B sweep file as a run on this machine, without an account.

In: the file that `wandb sweep` takes. Out: below `runs/sweep-<name of the file>/` a run directory for each point,
`sweep.md`, `sweep.csv` and, where one number varies, `sweep.png`. The metric of a point is read from its run card.
"""

import csv
import io
import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from commands.experiments.child_process import all_of, run_lightning, threads_of
from commands.experiments.sweep_file import Point, SweepFile, read_sweep
from evaluation.report.cells import align
from evaluation.report.files import write_file
from evaluation.report.plots import draw_curves

RUNS = Path("runs")


@dataclass(frozen=True)
class Outcome:
    """What became of a point.

    Attributes:
        point: Its parameters.
        run: Its run directory, if it got that far.
        value: The metric; not a number where there is none.
        seconds: Wall time of the fit, over all its starts.
        commit: Of the code that made it.
        error: Why there is no metric; None when there is.
    """

    point: Point
    run: Path | None
    value: float = math.nan
    seconds: float | None = None
    commit: str | None = None
    error: str | None = None


class Sweep:
    """Runs every point of a W&B sweep file here and tabulates its metric; the same command again goes on."""

    def __init__(self, config: Path, count: int | None = None, seed: int = 0, jobs: int = 1) -> None:
        """Takes the settings; nothing is read before `run`.

        Args:
            config: The sweep file, the same that `wandb sweep` takes; method grid or random.
            count: Most points to run; a random sweep needs it, or `run_cap` in the file.
            seed: Seed of a random sweep's draws.
            jobs: Most points that are run at once, each with its share of the cores (or OMP_NUM_THREADS).
        """
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self.config = Path(config)
        self.count = count
        self.seed = seed
        self.jobs = jobs
        self.output = RUNS / f"sweep-{self.config.stem}"

    def run(self) -> None:
        """Runs the points in their order, prints the table and writes the files.

        Raises:
            ValueError: If no point has a metric.
        """
        sweep = read_sweep(self.config)
        points = sweep.points(self.count, self.seed)
        arguments = [sweep.arguments(point) for point in points]  # all, so that a mistake shows before the first run

        async def run(number: int) -> Outcome:
            place = f"[{number + 1}/{len(points)}] {_label(points[number])}"
            print(place, flush=True)
            outcome = await self._run_point(points[number], arguments[number], number, sweep.metric)
            result = f"{sweep.metric} {outcome.value:.6g} in {outcome.run}"
            print(f"{place}: {f'failed: {outcome.error}' if outcome.error else result}", flush=True)
            return outcome

        outcomes = _of_their_own(all_of([partial(run, number) for number in range(len(points))], self.jobs))
        self._write(sweep, outcomes)
        if all(outcome.error for outcome in outcomes):
            raise ValueError(f"none of {len(outcomes)} points has a result; the first: {outcomes[0].error}")

    async def _run_point(self, point: Point, arguments: list[str], number: int, metric: str) -> Outcome:
        # Not WANDB_SWEEP_ID: W&B would look for a sweep of that name on its server.
        environment = {"LOCAL_SWEEP": self.config.stem, **threads_of(self.jobs)}
        run = await run_lightning(arguments, self.output / "logs" / f"{number + 1}.txt", environment)
        if run.error is not None:
            return Outcome(point, run.directory, error=run.error)
        assert run.directory is not None, "a fit that succeeded has told its directory"
        card = json.loads((run.directory / "fit.card.json").read_text(encoding="utf-8"))
        metrics = card["metrics"]
        error = None if metric in metrics else f"no {metric} in its card, which has {', '.join(sorted(metrics))}"
        value = metrics.get(metric, math.nan)
        return Outcome(point, run.directory, value, card["wall_seconds"], card["commit"], error)

    def _write(self, sweep: SweepFile, outcomes: list[Outcome]) -> None:
        best = _best(outcomes, sweep.maximize)
        varying = [
            name
            for name, first in outcomes[0].point.items()
            if any(outcome.point[name] != first for outcome in outcomes)
        ]
        parts = [
            f"# {self.config.stem}",
            _table(sweep, outcomes, varying, best),
            self._caption(sweep, outcomes, varying),
        ]
        markdown = "\n\n".join(parts) + "\n"
        print(markdown)
        table = _csv(sweep, outcomes, best)
        write_file(self.output / "sweep.md", markdown)
        write_file(self.output / "sweep.csv", table)
        picture = self.output / "sweep.png"
        picture.unlink(missing_ok=True)  # an older sweep's
        drawn = [outcome for outcome in outcomes if math.isfinite(outcome.value)]
        if best is None or len(varying) != 1 or len(drawn) < 2:
            return
        values = [outcome.point[varying[0]] for outcome in drawn]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            figure = draw_curves(
                {sweep.metric: (np.array(values), np.array([outcome.value for outcome in drawn]))},
                varying[0],
                f"{sweep.metric} ({'higher' if sweep.maximize else 'lower'} is better)",
                (sweep.metric, drawn.index(best)),
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


def _of_their_own(outcomes: list[Outcome]) -> list[Outcome]:
    """Points that were one and the same run have failed: what they differ in makes no other run."""
    runs = Counter(outcome.run for outcome in outcomes if outcome.error is None)
    why = "other points were the same run: what they differ in makes no other run, so it cannot be compared here"
    return [outcome if runs[outcome.run] < 2 else replace(outcome, value=math.nan, error=why) for outcome in outcomes]


def _label(point: Point) -> str:
    return " ".join(f"{name}={value}" for name, value in point.items())


def _best(outcomes: list[Outcome], maximize: bool) -> Outcome | None:
    finite = [outcome for outcome in outcomes if math.isfinite(outcome.value)]
    return (max if maximize else min)(finite, key=lambda outcome: outcome.value, default=None)


def _table(sweep: SweepFile, outcomes: list[Outcome], varying: list[str], best: Outcome | None) -> str:
    rows = [[*varying, sweep.metric, "seconds", "run"]]
    for outcome in outcomes:
        value = f"{outcome.value:.6g}"
        rows.append(
            [
                *(str(outcome.point[name]) for name in varying),
                f"failed: {outcome.error}" if outcome.error else f"**{value}**" if outcome is best else value,
                "" if outcome.seconds is None else f"{outcome.seconds:.0f}",
                "" if outcome.run is None else outcome.run.name,
            ]
        )
    return align(rows)


def _csv(sweep: SweepFile, outcomes: list[Outcome], best: Outcome | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*outcomes[0].point, sweep.metric, "best", "seconds", "run", "error"])
    for outcome in outcomes:
        value = None if outcome.error else outcome.value
        facts = [value, outcome is best, outcome.seconds, outcome.run, outcome.error]
        writer.writerow([*outcome.point.values(), *facts])
    return text.getvalue()
