"""The report of a table of systems: scores, tables, caption and picture, from predictions to files.

In: `Systems` and `Options`. Out: `table.md`, `.tex`, `.csv` and `.png`. No text of a reply or context is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from matplotlib.figure import Figure as Picture

from evaluation.report.captions import caption_of, caption_of_weights, is_shown
from evaluation.report.cells import csv_lines, user_labels
from evaluation.report.curves import Experiment
from evaluation.report.files import log_to_wandb, write_tables
from evaluation.report.options import Options
from evaluation.report.pictures import picture_of
from evaluation.report.score_tables import Rows, score_tables
from evaluation.results.systems import Systems
from evaluation.results.test_sums import read_tests
from evaluation.results.training_turns import training_turns
from evaluation.scores.corpus_scores import corpus_scores, mauve_scores
from evaluation.scores.figure import Score
from evaluation.scores.person_scores import PersonTable
from evaluation.scores.registry import FIGURES
from evaluation.scores.run_scores import run_scores
from evaluation.scores.standings import standings_of
from evaluation.scores.user_scores import items_of_users, user_scores
from evaluation.scores.weight_scores import WEIGHT_FIGURES, weight_scores


@dataclass(frozen=True)
class SystemReport:
    """What is written of several systems.

    Attributes:
        tables: Rows of cells.
        scores: Lines of table.csv, their similarities with the name of the encoder.
        notes: The caption.
        picture: None where there is nothing to draw.
    """

    tables: list[Rows]
    scores: list[Score]
    notes: list[str]
    picture: Picture | None

    def write(self, output: Path, title: str, wandb_project: str | None) -> None:
        """Prints the tables, writes them, and logs the scores to a project of Weights & Biases if one is named."""
        write_tables(output, title, self.tables, self.notes, csv_lines(self.scores, Score), self.picture)
        if wandb_project:
            columns = [field.name for field in fields(Score)]
            log_to_wandb(wandb_project, title, columns, map(astuple, self.scores), output)


def report_of(
    systems: Systems, names: Sequence[str], experiments: Mapping[str, Experiment], options: Options
) -> SystemReport:
    """Scores the systems and puts the report together.

    Args:
        systems: Those that are scored, and those that failed.
        names: All of the table, in order.
        experiments: Of the systems that have any, for a curve.
        options: What the table is asked for.

    Raises:
        ValueError: The prepared corpus is damaged, or there is nothing of what is to be shown.
    """
    scored = list(systems.predictions)
    users = items_of_users(systems.predictions, options.encoder)
    labels = user_labels(list(users))
    notes = caption_of(systems, users, options)
    persons, note = _person_scores(systems, options)
    scores = user_scores(scored, users, options.bootstrap)
    scores += corpus_scores(systems.predictions, options.unit, options.bootstrap)
    if options.mauve:
        scores += mauve_scores(systems.predictions, options.encoder, options.bootstrap.seed)
    if options.encoder is None:
        scores = [score for score in scores if not FIGURES[score.metric].names_encoder]
    scores += [score for score in persons if score.metric != "similarity" or score.system not in scored]
    standings = standings_of(scores, scored)
    if not options.per_user:
        scores += run_scores(systems.runs, options.paper)
    tests, stale = read_tests(systems.runs, systems.cards)
    weights = weight_scores(tests, scored[0], options.bootstrap)
    about_weights = [caption_of_weights(tests)] if tests and is_shown(WEIGHT_FIGURES, options) else []
    tables = score_tables(
        scores, persons, weights, names, systems.failed, labels, standings, options.per_user, options.shown
    )
    scores += weights
    notes += [*note, *about_weights, *stale, *_missing(scores, options)]
    picture = picture_of(scores, names, experiments, labels, options)
    written = [score for score in scores if options.per_user or score.user not in labels]
    return SystemReport(tables, [_with_encoder(score, options) for score in written], notes, picture)


def _person_scores(systems: Systems, options: Options) -> tuple[list[Score], list[str]]:
    """How far the systems speak like the persons, and why that is left out where it cannot be said."""
    if options.prepared is None:
        return [], []
    training = training_turns(options.prepared)
    try:
        table = PersonTable(training, options.encoder, options.unit, options.bootstrap)
        return table.scores(systems.predictions), []
    except ValueError as error:
        return [], [f"The table with the persons is left out: {error}."]


def _missing(scores: Sequence[Score], options: Options) -> list[str]:
    """Says which scores that were asked for by name no system has."""
    metrics = {score.metric for score in scores}
    missing = [name for name in options.scores or () if name not in metrics]
    return [f"Not in this table, though asked for: {', '.join(missing)}."] if missing else []


def _with_encoder(score: Score, options: Options) -> Score:
    if FIGURES[score.metric].names_encoder:
        return replace(score, metric=f"{score.metric}:{options.encoder_name}")
    return score
