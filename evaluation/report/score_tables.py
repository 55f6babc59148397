"""The tables below one headline: of perplexity and similarity, of texts, of persons, of weights."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from evaluation.report.cells import Cells
from evaluation.report.options import Options
from evaluation.scores.corpus_scores import DISTINCT, TEXT_FIGURES
from evaluation.scores.figure import CORPUS, MACRO, MICRO, RUN, Figure, Score
from evaluation.scores.person_scores import OTHERS, OWN, PERSON_FIGURES, REAL
from evaluation.scores.run_scores import RUN_FIGURES
from evaluation.scores.standings import Standings
from evaluation.scores.user_scores import PERPLEXITY, PERPLEXITY_RATIO, SIMILARITY, SIMILARITY_CHANGE, USER_FIGURES
from evaluation.scores.weight_scores import WEIGHT_FIGURES

Rows = list[list[str]]
OVERALL_COLUMNS = (
    (PERPLEXITY, MICRO),
    (PERPLEXITY_RATIO, MICRO),
    (PERPLEXITY, MACRO),
    (PERPLEXITY_RATIO, MACRO),
    (SIMILARITY, MICRO),
    (SIMILARITY_CHANGE, MICRO),
    *((figure, RUN) for figure in RUN_FIGURES),
)
BETTER_AFTER = (PERPLEXITY_RATIO, MACRO)


def score_tables(
    scores: Sequence[Score],
    persons: Sequence[Score],
    weights: Sequence[Score],
    systems: Sequence[str],
    failed: Collection[str],
    labels: Mapping[str, str],
    standings: Standings,
    options: Options,
) -> list[Rows]:
    """The tables that have a column.

    Args:
        scores: Of systems, texts and runs.
        persons: From `PersonTable.scores`.
        weights: From `weight_scores`.
        systems: All of the table, in order; the first that did not fail is the reference.
        failed: Those of them that failed; the first table says so where systems are its rows.
        labels: Of the users.
        standings: How the systems stand.
        options: Which scores get a column, and whether single users do.

    Raises:
        ValueError: There is no column at all.
    """
    scored = [name for name in systems if name not in failed]
    cells, of_persons, of_weights = (Cells(records, standings, options.shown) for records in (scores, persons, weights))
    first = user_rows(cells, scored, labels) if options.per_user else overall_rows(cells, systems, labels, failed)
    others = [text_rows(cells, scored), person_rows(of_persons, scored)]
    others.append(system_rows(of_weights, WEIGHT_FIGURES, scored, scored[0]))
    tables = [rows for rows in (first, *others) if len(rows[0]) > 1]
    if not tables:
        metrics = dict.fromkeys(score.metric for score in (*scores, *persons, *weights))
        raise ValueError(f"scores: this table has none of {list(options.shown)}; it has {list(metrics)}")
    if tables[0] is not first:
        tables[0] += [[name, "failed", *[""] * (len(tables[0][0]) - 2)] for name in failed]
    return tables


def user_rows(cells: Cells, systems: Sequence[str], labels: Mapping[str, str]) -> Rows:
    """A user a row, then all turns and the mean over users, then how many users are better off than with the first."""
    columns = [
        (name, figure)
        for name in systems
        for figure in USER_FIGURES
        if cells.has(MICRO, figure) and (name != systems[0] or figure.neutral is None)
    ]
    if not columns:
        return [["user"]]
    rows = [["user", "turns", *(f.user_title.format(system=name, reference=systems[0]) for name, f in columns)]]
    metrics = [figure.name for figure in USER_FIGURES]
    num_turns = {user: str(s.n) for (_, user, metric), s in cells.scores.items() if metric in metrics} | {MACRO: ""}
    for user, label in {**labels, MICRO: "**micro**", MACRO: "**macro**"}.items():
        rows.append([label, num_turns[user], *(cells.cell(name, user, figure) for name, figure in columns)])
    if len(systems) > 1:
        rows.append(["**better**", "", *(cells.better(name, figure, labels) for name, figure in columns)])
    return rows


def overall_rows(cells: Cells, systems: Sequence[str], labels: Mapping[str, str], failed: Collection[str]) -> Rows:
    """A system a row: over all turns, and how many users have a lower perplexity than with the first system."""
    reference = next((name for name in systems if name not in failed), systems[0])
    columns: list[tuple[str, list[str]]] = []
    for figure, row in OVERALL_COLUMNS:
        if cells.has(row, figure):
            heading = figure.macro_title if row == MACRO else figure.title.format(reference=reference)
            missing = "" if row == RUN else "-"
            columns.append((heading, [cells.cell(name, row, figure, missing) for name in systems]))
        if (figure, row) == BETTER_AFTER and cells.has(MICRO, figure):
            columns.append(("better for", [cells.better(name, figure, labels) for name in systems]))
    rows = [["system", *(heading for heading, _ in columns)]]
    for position, name in enumerate(systems):
        row = [column[position] for _, column in columns]
        rows.append([name, *(["failed", *row[1:]] if name in failed else row)])
    return rows


def system_rows(
    cells: Cells, figures: Iterable[Figure], systems: Sequence[str], reference: str, missing: str = ""
) -> Rows:
    """A system a row, a figure a column where some system has it."""
    columns = [figure for figure in figures if cells.has(figure.rows[-1], figure)]
    rows = [["system", *(figure.title.format(reference=reference) for figure in columns)]]
    return rows + [
        [name, *(cells.cell(name, figure.rows[-1], figure, missing) for figure in columns)] for name in systems
    ]


def text_rows(cells: Cells, systems: Sequence[str]) -> Rows:
    """Figures of the texts of each system, and how many replies they are of."""
    rows = system_rows(cells, TEXT_FIGURES, systems, systems[0], "-")
    if len(rows[0]) > 1:
        replies = [f"{cells.scores[name, CORPUS, DISTINCT[1].name].n:,}" for name in systems]
        for row, cell in zip(rows, ("replies", *replies), strict=True):
            row.append(cell)
    return rows


def person_rows(cells: Cells, systems: Sequence[str]) -> Rows:
    """Figures of the persons for each system, and of the three rows to read them by those that say something."""
    rows = system_rows(cells, PERSON_FIGURES, [*systems, OTHERS, OWN, REAL], systems[0])
    return [row for row in rows if row[0] in ("system", *systems) or any(row[1:])]
