"""The tables below one headline: which scores stand in which of them.

In: `Score` records of systems, of the persons they speak for, and of their weights. Out: rows of cells, the first row
the heading.
"""

from collections.abc import Collection, Mapping, Sequence

from evaluation.metrics.mauve import MAUVE
from evaluation.report.cells import OF_A_RUN, corpus_rows, main_rows, overall_rows
from evaluation.scores.corpus_scores import TEXT_METRICS
from evaluation.scores.person_scores import PERSON_FIGURES, person_rows
from evaluation.scores.user_scores import METRICS, Score
from evaluation.scores.weight_scores import WEIGHT_FIGURES, weight_rows
from evaluation.statistics.significance import Standings

SHOWN = tuple(dict.fromkeys((*METRICS, *OF_A_RUN, *TEXT_METRICS, MAUVE, *PERSON_FIGURES, *WEIGHT_FIGURES)))
"""All that can be shown, by the names that table.csv has, there with the encoder behind them where they have one."""


def require_scores(names: Collection[str], encoder: bool, prepared: bool, mauve: bool) -> None:
    """Are these scores, and is there what they need?

    Args:
        names: What is to be shown.
        encoder: Is there a sentence encoder?
        prepared: Is there a prepared corpus?
        mauve: Is MAUVE asked for?

    Raises:
        ValueError: One is not known, or cannot be had; says what it needs.
    """
    persons = [name for name in PERSON_FIGURES if name not in METRICS]
    needed = [
        (encoder, [name for name in METRICS if name.startswith("similarity")], "an encoder"),
        (prepared, persons, "`prepared: <directory of the prepared corpus>`"),
        (mauve, [MAUVE], "`mauve: true`"),
    ]
    for name in names:
        if name not in SHOWN:
            raise ValueError(f"scores: there is no {name!r}; there are {list(SHOWN)}")
        for there, those, what in needed:
            if name in those and not there:
                raise ValueError(f"scores: {name!r} needs {what}")


def score_tables(
    scores: Sequence[Score],
    persons: Sequence[Score],
    weights: Sequence[Score],
    systems: Sequence[str],
    failed: Collection[str],
    labels: Mapping[str, str],
    standings: Standings,
    per_user: bool,
    shown: Collection[str],
) -> list[list[list[str]]]:
    """The tables that have a column: of perplexity and similarity, of texts, of persons, of weights.

    Args:
        scores: Of systems, texts and runs.
        persons: From `PersonTable.scores`.
        weights: From `weight_scores`.
        systems: All of the table, in order; the first that did not fail is the reference.
        failed: Those of them that failed; the first table says so where systems are its rows.
        labels: Of the users.
        standings: How the systems stand.
        per_user: Is the first table one of single users?
        shown: Names of the scores that get a column where some system has them.

    Raises:
        ValueError: There is no column at all.
    """
    scored = [name for name in systems if name not in failed]
    first = (
        main_rows(scores, scored, labels, standings, shown)
        if per_user
        else overall_rows(scores, systems, labels, standings, failed, shown)
    )
    others = [
        corpus_rows(scores, scored, standings, shown),
        person_rows(persons, scored, standings, shown),
        weight_rows(weights, scored, shown),
    ]
    tables = [rows for rows in (first, *others) if len(rows[0]) > 1]
    if not tables:
        there = dict.fromkeys(score.metric for score in (*scores, *persons, *weights))
        raise ValueError(f"scores: this table has none of {list(shown)}; it has {list(there)}")
    if tables[0] is not first:
        tables[0] += [[name, "failed", *[""] * (len(tables[0][0]) - 2)] for name in failed]
    return tables
