"""`lightning table`: several systems on the same test turns, in one table. No text of a reply or context is in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.experiments.before import run_before
from commands.experiments.collect import collect
from commands.experiments.experiment import Experiment
from commands.experiments.other_backbone import places_of, require_backbones
from evaluation.metrics.mauve import require_mauve
from evaluation.metrics.similarity import DEFAULT_ENCODER, TextEncoder
from evaluation.metrics.text_metrics import Unit
from evaluation.report.options import Options
from evaluation.report.system_report import write_report
from evaluation.results.systems import read_systems
from evaluation.scores.figure import ENCODER, MAUVE_SETTING, PREPARED
from evaluation.scores.registry import require_scores
from evaluation.statistics.bootstrap import Bootstrap


@dataclass
class Table:
    """Scores several systems on the same test turns; makes the runs of those that are experiments where they miss.

    Args:
        systems: Name of a system and its predictions.jsonl, or the experiment that makes it; the first is the
            reference the others are compared to.
        output: Directory for table.md, .tex, .csv and .png, and for the logs of what was run; made if missing,
            older tables are replaced.
        before: Commands of `lightning` that are run first, such as `fit --config experiments/pretrain_small.yaml`.
        backbone: Takes the place of the experiments' backbone: the same table at another scale. Where they have
            several, each one that they name and what takes its place. It is there already, and not trained.
        overrides: Settings of all systems that are experiments, over their own, such as another seed.
        prepared: The prepared corpus. With it a second table says how far each system speaks like the person.
        scores: Names of the scores that get a column, as in table.csv but without an encoder's name; None for all.
            What is not shown is in table.csv and among the tests all the same, so that a mark does not depend on
            what stands beside it.
        encoder: Sentence encoder for similarity, a name or a directory (not stated in the paper); None leaves
            similarity out, and needs `per_user` false.
        num_resamples: Bootstrap resamples for the 95 % intervals.
        seed: Seed of the bootstrap, and of what is drawn.
        title: Headline of the table and of the picture.
        unit: What n-grams and lengths count; "character" for Japanese.
        per_user: Whether single users are shown. Without them a system is a row: for many systems, and for a
            corpus whose terms ask for aggregates only.
        curve: A setting that systems override, or several: the picture is perplexity over it, with a line for all
            systems that differ in nothing else, and the others across. Needs `per_user` false.
        paper: Name of a system and the similarity that the paper reports for it, in a column of its own.
        mauve: Also MAUVE, at corpus level; needs the extra `mauve` and about a thousand turns.
        wandb_project: Also logs the table to this project of Weights & Biases, offline unless WANDB_MODE says
            otherwise.
        cache: Directory in which sentence embeddings are kept for the next table; it can be deleted at any time,
            and None keeps none.
        jobs: Most systems that are made at once, each with its share of the cores (or OMP_NUM_THREADS); they need
            the memory of as many trainings, and GPUs are shared out too.
    """

    systems: dict[str, Path | Experiment]
    output: Path
    before: list[str] | None = None
    backbone: Path | dict[str, Path] | None = None
    overrides: dict[str, Any] | None = None
    prepared: Path | None = None
    scores: list[str] | None = None
    encoder: str | None = DEFAULT_ENCODER
    num_resamples: int = 10_000
    seed: int = 0
    title: str = "Perplexity and similarity per user"
    unit: Unit = "word"
    per_user: bool = True
    curve: str | list[str] | None = None
    paper: dict[str, float] | None = None
    mauve: bool = False
    wandb_project: str | None = None
    cache: Path | None = Path("runs/.cache/embeddings")
    jobs: int = 1

    def __post_init__(self) -> None:
        self._check()
        self.systems = {n: one if isinstance(one, Experiment) else Path(one) for n, one in self.systems.items()}
        self.output = Path(self.output)
        self.places = places_of(self.systems, self.backbone) if self.backbone else {}
        for name, experiment in self._experiments().items():
            self.systems[name] = experiment.on(self.places).with_overrides(self.overrides or {})

    def _check(self) -> None:
        if not self.systems:
            raise ValueError("systems: expected at least one `name: path/to/predictions.jsonl`, got none")
        for name, value in (("num_resamples", self.num_resamples), ("jobs", self.jobs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.encoder is None and (self.per_user or self.prepared or self.mauve):
            raise ValueError(
                "without an encoder there is no similarity to show; set per_user=false, prepared=null and mauve=false"
            )
        if self.curve and self.per_user:
            raise ValueError("a curve takes the place of the picture of users; set per_user=false")
        available = {ENCODER: self.encoder is not None, PREPARED: self.prepared is not None, MAUVE_SETTING: self.mauve}
        require_scores(self.scores or (), available)
        if unknown := sorted((self.paper or {}).keys() - self.systems.keys()):
            raise ValueError(f"paper: there is no system {unknown[0]!r}; there are {list(self.systems)}")

    def _experiments(self) -> dict[str, Experiment]:
        return {name: one for name, one in self.systems.items() if isinstance(one, Experiment)}

    def run(self) -> None:
        """Makes what is missing, reads, scores, prints the table and writes its files.

        Raises:
            ValueError: A system has failed; the table of the others is written before.
        """
        # What is not there, or not installed, shows before anything is trained.
        require_backbones(self.places.values())
        options = self._options()
        moved_runs = run_before(self.before or [], self.output / "logs", self.places)
        for name, experiment in self._experiments().items():
            self.systems[name] = experiment.on(moved_runs)
        experiments = self._experiments()
        paths, failed = collect(self.systems, self.output / "logs", self.jobs)
        systems = read_systems(paths, experiments, failed, self.prepared)
        settings = {name: (one.experiment, one.overrides) for name, one in experiments.items()}
        write_report(self.output, systems, list(self.systems), settings, options)
        if systems.failed:
            raise ValueError(
                f"{len(systems.failed)} of {len(self.systems)} systems failed, the others are in the table"
            )

    def _options(self) -> Options:
        if self.mauve:
            require_mauve()
        return Options(
            title=self.title,
            encoder=None if self.encoder is None else TextEncoder(self.encoder, self.cache),
            bootstrap=Bootstrap(self.num_resamples, self.seed),
            unit=self.unit,
            prepared=self.prepared,
            scores=None if self.scores is None else tuple(self.scores),
            per_user=self.per_user,
            curve=(self.curve,) if isinstance(self.curve, str) else tuple(self.curve or ()),
            paper=self.paper or {},
            mauve=self.mauve,
            wandb_project=self.wandb_project,
        )
