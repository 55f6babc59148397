"""What a table shows: figures, declared once with all that is said of them, and their values.

Headings, cells, captions, columns of `table.csv` and axes are made from a `Figure`. Each module beside this one
declares the figures that it computes; `registry.py` puts them together.
"""

import math
from dataclasses import dataclass

MICRO, MACRO, CORPUS, RUN = "(micro)", "(macro)", "(corpus)", "(run)"
OVERALL = (MICRO, MACRO, CORPUS, RUN)
ENCODER, PREPARED, MAUVE_SETTING = "an encoder", "`prepared: <directory of the prepared corpus>`", "`mauve: true`"
"""What figures may need, as a message says it."""


@dataclass(frozen=True)
class Figure:
    """A number that is shown of every system."""

    name: str  # in table.csv, and in the setting `scores`
    title: str  # heading of its column; `{reference}` is the first system
    rows: tuple[str, ...]  # the overall rows that it has: of all turns, means over users, corpora or runs
    format: str = ".3f"
    scale: float = 1.0  # what it is multiplied by before it is written
    higher_is_better: bool | None = None  # None where neither is better
    is_tested: bool = False  # are systems tested against the best?
    counts: bool = False  # is what was counted written with it, as in "4 of 5"?
    names_encoder: bool = False  # does table.csv name the sentence encoder with it?
    description: str = ""  # what a caption says of it; empty where another figure's description says it
    needs: str = ""  # ENCODER, PREPARED or MAUVE_SETTING; empty for nothing

    def cell(self, score: "Score | None", missing: str = "-") -> str:
        """A score with its interval; a dash where there is nothing to divide by."""
        if score is None:
            return missing
        if math.isnan(score.value):
            return "-"
        text = interval_cell(score.value, score.low, score.high, self.format, self.scale)
        return f"{text} of {score.n}" if self.counts else text

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.higher_is_better else "lower is better"


@dataclass(frozen=True)
class UserFigure(Figure):
    """A figure of single users too."""

    user_title: str = ""  # heading where users are rows, with `{system}` and `{reference}`
    macro_title: str = ""  # heading of the mean over users where systems are rows; empty for no such column
    axis: str = ""  # what an axis of it shows
    neutral: float | None = None  # of a comparison with the reference: its value where there is no difference

    def is_better(self, value: float) -> bool:
        """Does a comparison speak for the system that is compared?"""
        return value > self.neutral if self.higher_is_better else value < self.neutral


@dataclass(frozen=True)
class Score:
    """One line of `table.csv`: the value of a figure, with its 95 % interval where it has one."""

    system: str
    user: str  # full name of the user, or (micro), (macro), (corpus), (run)
    metric: str  # name of the figure; in the file with its encoder: "similarity:all-MiniLM-L6-v2"
    value: float
    low: float | None
    high: float | None
    n: int  # averaged: turns of the user or of all, users for (macro), replies for (corpus), 1 for (run)


def interval_cell(value: float, low: float | None, high: float | None, form: str = ".3f", scale: float = 1.0) -> str:
    """A number with its interval, if it has one with two ends."""
    text, *ends = (format(x * scale, form) for x in (value, low, high) if x is not None and not math.isnan(x))
    return f"{text} [{', '.join(ends)}]" if len(ends) == 2 else text
