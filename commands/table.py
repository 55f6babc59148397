"""`lightning table`: several systems on the same test turns, in one table.

In: for each system a `predictions.jsonl`, or the experiment that makes it. Out: `table.md`, `table.tex`, `table.csv`,
`table.png`. No text of a reply or context is written anywhere.
"""

from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from commands.experiments.before import run_before
from commands.experiments.collect import collect
from commands.experiments.experiment import Experiment
from commands.experiments.other_backbone import places_of, require_backbones
from evaluation.metrics.mauve import mauve_scores, require_mauve
from evaluation.metrics.similarity import DEFAULT_ENCODER, TextEncoder
from evaluation.metrics.text_metrics import Unit
from evaluation.report.captions import caption_of
from evaluation.report.cells import csv_of, panels, system_panels, user_labels
from evaluation.report.curves import curve_figure
from evaluation.report.files import log_to_wandb, write_tables
from evaluation.report.plots import draw_systems, draw_users
from evaluation.report.score_tables import SHOWN, require_scores, score_tables
from evaluation.results.predictions import (
    Prediction,
    check_same_pairs,
    check_same_split,
    older_than_weights,
    on_other_backbones,
    read_card,
    read_predictions,
)
from evaluation.results.run_facts import run_facts
from evaluation.results.training_turns import check_corpus, training_turns
from evaluation.scores.corpus_scores import corpus_scores
from evaluation.scores.person_scores import PersonTable
from evaluation.scores.user_scores import MICRO, Score, items_of_users, user_scores
from evaluation.scores.weight_scores import WEIGHT_FIGURES, TestSums, caption_of_weights, read_test, weight_scores
from evaluation.statistics.significance import standings_of


class Table:
    """Scores several systems on the same test turns; makes the runs of those that are experiments where they miss."""

    def __init__(
        self,
        systems: dict[str, Path | Experiment],
        output: Path,
        before: list[str] | None = None,
        backbone: Path | dict[str, Path] | None = None,
        overrides: dict[str, Any] | None = None,
        prepared: Path | None = None,
        scores: list[str] | None = None,
        encoder: str | None = DEFAULT_ENCODER,
        num_resamples: int = 10_000,
        seed: int = 0,
        title: str = "Perplexity and similarity per user",
        unit: Unit = "word",
        per_user: bool = True,
        curve: str | list[str] | None = None,
        paper: dict[str, float] | None = None,
        mauve: bool = False,
        wandb_project: str | None = None,
        cache: Path | None = Path("runs/.cache/embeddings"),
        jobs: int = 1,
    ) -> None:
        """Takes the settings; nothing is read before `run`.

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
                the memory of as many trainings, and all use the same GPU.
        """
        if not systems:
            raise ValueError("systems: expected at least one `name: path/to/predictions.jsonl`, got none")
        if num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        if encoder is None and (per_user or prepared or mauve):
            raise ValueError(
                "without an encoder there is no similarity to show; set per_user=false, prepared=null and mauve=false"
            )
        if curve and per_user:
            raise ValueError("a curve takes the place of the picture of users; set per_user=false")
        require_scores(scores or (), encoder is not None, prepared is not None, mauve)
        if unknown := sorted((paper or {}).keys() - systems.keys()):
            raise ValueError(f"paper: there is no system {unknown[0]!r}; there are {list(systems)}")
        self.systems = {n: one if isinstance(one, Experiment) else Path(one) for n, one in systems.items()}
        self.before = before or []
        self.places = places_of(self.systems, backbone) if backbone else {}
        for name, one in self.systems.items():
            if isinstance(one, Experiment):
                self.systems[name] = one.on(self.places).with_overrides(overrides or {})
        self.output = Path(output)
        self.prepared = prepared
        self.shown = SHOWN if scores is None else tuple(scores)
        self.encoder = encoder
        self.num_resamples = num_resamples
        self.seed = seed
        self.title = title
        self.unit: Unit = unit
        self.per_user = per_user
        self.curve = curve
        self.paper = paper or {}
        self.mauve = mauve
        self.wandb_project = wandb_project
        self.cache = cache
        self.jobs = jobs

    def run(self) -> None:
        """Makes what is missing, reads, scores, prints the table and writes its files.

        Raises:
            ValueError: A system has failed; the table of the others is written before.
        """
        # What is not there, or not installed, shows before anything is trained.
        require_backbones(self.places.values())
        text_encoder = None if self.encoder is None else TextEncoder(self.encoder, self.cache)
        if self.mauve:
            require_mauve()
        moved_runs = run_before(self.before, self.output / "logs", self.places)
        for name, one in self.systems.items():
            self.systems[name] = one.on(moved_runs) if isinstance(one, Experiment) else one
        paths, failed = collect(self.systems, self.output / "logs", self.jobs)
        predictions, cards = self._read(paths, failed)
        if not predictions:
            raise ValueError("every system has failed: " + "; ".join(f"{n}: {why}" for n, why in failed.items()))
        names, runs = list(predictions), {name: paths[name].parent for name in predictions}
        users = items_of_users(predictions, text_encoder)
        scores = user_scores(names, users, self.num_resamples, self.seed)
        scores += corpus_scores(predictions, self.unit, self.num_resamples, self.seed)
        if self.mauve:
            scores += mauve_scores(predictions, text_encoder, self.seed)
        if text_encoder is None:
            scores = [score for score in scores if not score.metric.startswith("similarity")]
        notes = caption_of(self, predictions, cards, users, text_encoder, failed)
        persons, left_out = self._score_persons(predictions, text_encoder)
        notes += left_out
        scores += [one for one in persons if one.metric != "similarity" or one.system not in names]
        standings = standings_of(scores, names)
        labels = user_labels(list(users))
        if not self.per_user:
            scores += run_facts(runs, self.paper)
        tests, stale = self._read_tests(runs, cards)
        weights = weight_scores(tests, names[0], self.num_resamples, self.seed) if tests else []
        if tests and not set(WEIGHT_FIGURES).isdisjoint(self.shown):
            notes.append(caption_of_weights(tests))
        notes += stale
        tables = score_tables(
            scores,
            persons,
            weights,
            list(self.systems),
            failed,
            labels,
            standings,
            self.per_user,
            self.shown,
        )
        scores += weights
        missing = [name for name in self.shown if not any(score.metric == name for score in scores)]
        if missing and self.shown != SHOWN:
            notes.append(f"Not in this table, though asked for: {', '.join(missing)}.")
        self._write(tables, scores, labels, notes, "none" if text_encoder is None else text_encoder.name)
        if failed:
            raise ValueError(f"{len(failed)} of {len(self.systems)} systems failed, the others are in the table")

    def _read(
        self, paths: dict[str, Path], failed: dict[str, str]
    ) -> tuple[dict[str, list[Prediction]], dict[str, dict[str, Any]]]:
        """Predictions and cards of all systems that can be compared with the first of them.

        What is wrong with a file stops the table; what is wrong with a run is added to those that failed.
        """
        predictions: dict[str, list[Prediction]] = {}
        cards: dict[str, dict[str, Any]] = {}
        for name, path in paths.items():
            try:
                found, card = read_predictions(path), read_card(path)
                if older_than_weights(path):
                    raise ValueError(f"{path} is older than the weights beside it; run `lightning predict` again")
                if self.prepared:
                    check_corpus(name, card, self.prepared)
                if predictions:
                    reference = next(iter(predictions))
                    check_same_split(reference, cards[reference], name, card)
                    check_same_pairs(reference, predictions[reference], name, found)
            except (ValueError, FileNotFoundError) as error:
                if not isinstance(self.systems[name], Experiment):
                    raise
                failed[name] = str(error)
                continue
            predictions[name], cards[name] = found, card
        for name, reason in on_other_backbones(cards).items():
            if not isinstance(self.systems[name], Experiment):
                raise ValueError(reason)
            failed[name] = reason
            del predictions[name], cards[name]
        return predictions, cards

    def _score_persons(
        self, predictions: dict[str, list[Prediction]], encoder: TextEncoder | None
    ) -> tuple[list[Score], list[str]]:
        """How far the systems speak like the persons, and why that is left out where it cannot be said."""
        if self.prepared is None:
            return [], []
        training = training_turns(self.prepared)
        try:
            persons = PersonTable(training, encoder, self.unit, self.num_resamples, self.seed)
            return persons.scores(predictions), []
        except ValueError as error:
            return [], [f"The table with the persons is left out: {error}."]

    def _read_tests(
        self, runs: dict[str, Path], cards: dict[str, dict[str, Any]]
    ) -> tuple[dict[str, TestSums], list[str]]:
        """What `lightning test` left beside the predictions, and why some of it is not used."""
        tests, stale = {}, []
        for name, run in runs.items():
            try:
                if (found := read_test(run, cards[name])) is not None:
                    tests[name] = found
            except ValueError as error:
                stale.append(f"{name}: its test is left out: {error}")
        return tests, stale

    def _write(
        self, tables: list[list[list[str]]], scores: list[Score], labels: dict[str, str], notes: list[str], encoder: str
    ) -> None:
        figure = self._figure(scores, labels, encoder)
        if not self.per_user:
            scores = [score for score in scores if score.user not in labels]
        write_tables(self.output, self.title, tables, notes, csv_of(scores, encoder), figure)
        if self.wandb_project:
            rows = map(astuple, scores)
            log_to_wandb(self.wandb_project, self.title, [one.name for one in fields(Score)], rows, self.output)

    def _figure(self, scores: list[Score], labels: dict[str, str], encoder: str) -> Figure | None:
        """Single users; or all systems; or perplexity over the setting of the curve."""
        found = {score.system: score.value for score in scores if (score.user, score.metric) == (MICRO, "perplexity")}
        scored = [name for name in self.systems if any((s.system, s.user) == (name, MICRO) for s in scores)]
        if self.per_user:
            return draw_users(panels(scores, scored, labels, encoder), self.title)
        if self.curve:
            settings = [self.curve] if isinstance(self.curve, str) else self.curve
            experiments = {
                name: (one.experiment, one.overrides)
                for name, one in self.systems.items()
                if isinstance(one, Experiment)
            }
            return curve_figure(experiments, found, settings, self.title)
        shown = system_panels(scores, scored, encoder) if scored else {}
        return draw_systems(shown, self.title) if shown else None
