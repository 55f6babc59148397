"""What a table shows: figures, declared once with all that is said of them, and their values.

In: nothing. Out: `Figure`, from which headings, cells, captions, columns of `table.csv` and axes are made, and `Score`.
Each module beside this one declares the figures that it computes; `registry.py` puts them together.
"""

import math
from dataclasses import dataclass

MICRO, MACRO, CORPUS, RUN = "(micro)", "(macro)", "(corpus)", "(run)"
OVERALL = (MICRO, MACRO, CORPUS, RUN)
ENCODER, PREPARED, MAUVE_SETTING = "an encoder", "`prepared: <directory of the prepared corpus>`", "`mauve: true`"
"""What figures may need, as a message says it."""


@dataclass(frozen=True)
class Figure:
    """A number that is shown of every system.

    Attributes:
        name: In table.csv, and in the setting `scores`.
        title: Heading of its column; `{reference}` is the first system.
        rows: The overall rows that it has: of all turns, means over users, corpora or runs.
        format: How it is written.
        scale: What it is multiplied by before it is written.
        higher_is_better: None where neither is better.
        is_tested: Are systems tested against the best?
        counts: Is what was counted written with it, as in "4 of 5"?
        names_encoder: Does table.csv name the sentence encoder with it?
        description: What a caption says of it; empty where another figure's description says it.
        needs: ENCODER, PREPARED or MAUVE_SETTING; empty for nothing.
    """

    name: str
    title: str
    rows: tuple[str, ...]
    format: str = ".3f"
    scale: float = 1.0
    higher_is_better: bool | None = None
    is_tested: bool = False
    counts: bool = False
    names_encoder: bool = False
    description: str = ""
    needs: str = ""

    def cell(self, score: "Score | None", missing: str = "-") -> str:
        """A score with its interval; a dash where there is nothing to divide by."""
        if score is None:
            return missing
        if math.isnan(score.value):
            return "-"
        numbers = [x * self.scale for x in (score.value, score.low, score.high) if x is not None and not math.isnan(x)]
        value, *ends = (format(number, self.format) for number in numbers)
        text = f"{value} [{', '.join(ends)}]" if len(ends) == 2 else value
        return f"{text} of {score.n}" if self.counts else text

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.higher_is_better else "lower is better"


@dataclass(frozen=True)
class UserFigure(Figure):
    """A figure of single users too.

    Attributes:
        user_title: Heading where users are rows, with `{system}` and `{reference}`.
        macro_title: Heading of the mean over users where systems are rows; empty for no such column.
        axis: What an axis of it shows.
        neutral: Of a comparison with the reference: its value where there is no difference.
    """

    user_title: str = ""
    macro_title: str = ""
    axis: str = ""
    neutral: float | None = None

    def is_better(self, value: float) -> bool:
        """Does a comparison speak for the system that is compared?"""
        return value > self.neutral if self.higher_is_better else value < self.neutral


@dataclass(frozen=True)
class Score:
    """One line of `table.csv`: the value of a figure.

    Attributes:
        system: Name of the system.
        user: Full name of the user, or (micro), (macro), (corpus), (run).
        metric: Name of the figure; in the file similarities carry their encoder: "similarity:all-MiniLM-L6-v2".
        value: The figure.
        low: Lower end of the 95 % interval, None without interval.
        high: Upper end.
        n: What was averaged: turns of the user or of all users, users for (macro), replies for (corpus), 1 for (run).
    """

    system: str
    user: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
