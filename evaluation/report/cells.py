"""From scores to what a reader sees: cells with intervals and marks, Markdown, CSV."""

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, fields
from typing import Any

from evaluation.scores.figure import Figure, Score, UserFigure
from evaluation.scores.standings import Standings
from evaluation.statistics.significance import Standing

LABEL_LENGTH = 8
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what begins one


class Cells:
    """The cells of a table; `shown` are the names of the figures that may have a column."""

    def __init__(self, scores: Iterable[Score], standings: Standings, shown: Collection[str]) -> None:
        self.scores = {(score.system, score.user, score.metric): score for score in scores}
        self.standings = standings
        self.columns = {(row, name) for _, row, name in self.scores if name in shown}

    def has(self, row: str, figure: Figure) -> bool:
        """Is the figure to be shown, and has some system it in this row?"""
        return (row, figure.name) in self.columns

    def cell(self, system: str, row: str, figure: Figure, missing: str = "-") -> str:
        """A figure of a system with its interval and its mark."""
        text = figure.cell(self.scores.get((system, row, figure.name)), missing)
        return marked(text, system, self.standings.get((row, figure.name)))

    def better(self, system: str, figure: UserFigure, users: Collection[str]) -> str:
        """For how many users a comparison with the reference speaks for a system; empty where there is none."""
        gains = [score.value for user in users if (score := self.scores.get((system, user, figure.name)))]
        if figure.neutral is None or not gains:
            return ""
        return f"{sum(map(figure.is_better, gains))} of {len(users)} users"


def user_labels(users: Sequence[str]) -> dict[str, str]:
    """Labels of at most 8 ASCII characters: the beginning of the name, or a number where that is not unique."""
    short = [user[:LABEL_LENGTH] for user in users]
    if len(set(short)) < len(short) or not all(label.isascii() for label in short):
        short = [f"user{number:03d}" for number in range(1, len(users) + 1)]
    return dict(zip(users, short, strict=True))


def marked(text: str, system: str, standing: Standing | None) -> str:
    """A cell with its mark: the best bold, = behind what is not significantly worse."""
    if standing is None:
        return text
    value, *ends = text.split(" ", 1)
    if system == standing.best:
        return " ".join([f"**{value}**", *ends])
    return f"{text} =" if system in standing.not_worse else text


def align(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source is readable as plain text; the first row is the heading.

    Names that people have given neither break a row nor become HTML.
    """
    heading, *body = [
        [" ".join(cell.splitlines()).replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(heading, *body, strict=True)]
    lines = [heading, ["-" * width for width in widths], *body]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in lines)


def csv_lines(records: Iterable[Any], kind: type) -> str:
    """Records of a dataclass as CSV: a heading, a line each, None as nothing."""
    return csv_text([[field.name for field in fields(kind)], *map(astuple, records)])


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV. A text that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in row] for row in rows
    )
    return text.getvalue()
