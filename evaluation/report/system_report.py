"""The report of a table of systems, from predictions to files. No text of a reply or context is written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evaluation.report.captions import caption_of, caption_of_weights, is_shown
from evaluation.report.cells import user_labels
from evaluation.report.curves import Experiment
from evaluation.report.files import write_tables
from evaluation.report.options import Options
from evaluation.report.pictures import picture_of
from evaluation.report.score_tables import score_tables
from evaluation.results.systems import Systems
from evaluation.results.test_sums import read_tests
from evaluation.results.training_turns import training_turns
from evaluation.scores.corpus_scores import corpus_scores, mauve_scores
from evaluation.scores.figure import Score
from evaluation.scores.person_scores import PersonTable
from evaluation.scores.registry import FIGURES
from evaluation.scores.run_scores import run_scores
from evaluation.scores.standings import standings_of
from evaluation.scores.user_scores import SIMILARITY, items_of_users, user_scores
from evaluation.scores.weight_scores import WEIGHT_FIGURES, weight_scores


def write_report(
    output: Path, systems: Systems, names: Sequence[str], experiments: Mapping[str, Experiment], options: Options
) -> None:
    """Scores the systems, prints the tables and writes them.

    Args:
        output: Directory of the files.
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
    scores += [score for score in persons if score.metric != SIMILARITY.name or score.system not in scored]
    standings = standings_of(scores, scored)
    if not options.per_user:
        scores += run_scores(systems.runs, options.paper)
    tests, stale = read_tests(systems.runs, systems.cards)
    weights = weight_scores(tests, scored[0], options.bootstrap)
    about_weights = [caption_of_weights(tests)] if tests and is_shown(WEIGHT_FIGURES, options) else []
    tables = score_tables(scores, persons, weights, names, systems.failed, labels, standings, options)
    scores += weights
    notes += [*note, *about_weights, *stale, *_missing(scores, options)]
    picture = picture_of(scores, names, experiments, labels, options)
    written = [_with_encoder(score, options) for score in scores if options.per_user or score.user not in labels]
    write_tables(output, options.title, tables, notes, written, Score, picture, options.wandb_project)


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
    missing = [name for name in options.shown if name not in metrics]
    if not missing or options.shown == tuple(FIGURES):
        return []
    return [f"Not in this table, though asked for: {', '.join(missing)}."]


def _with_encoder(score: Score, options: Options) -> Score:
    if FIGURES[score.metric].names_encoder:
        return replace(score, metric=f"{score.metric}:{options.encoder_name}")
    return score
