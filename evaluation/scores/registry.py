"""All figures of a table of systems, in the order of its columns."""

from collections.abc import Collection, Mapping

from evaluation.scores.corpus_scores import TEXT_FIGURES
from evaluation.scores.figure import Figure
from evaluation.scores.person_scores import PERSON_FIGURES
from evaluation.scores.run_scores import RUN_FIGURES
from evaluation.scores.user_scores import USER_FIGURES
from evaluation.scores.weight_scores import WEIGHT_FIGURES

FIGURES: dict[str, Figure] = {
    figure.name: figure for figure in (*USER_FIGURES, *RUN_FIGURES, *TEXT_FIGURES, *PERSON_FIGURES, *WEIGHT_FIGURES)
}
"""Name, as in table.csv, there followed by the encoder where a figure has one → figure."""


def require_scores(names: Collection[str], available: Mapping[str, bool]) -> None:
    """Raises ValueError where a figure is not known, or what it needs is missing.

    Args:
        names: What is to be shown.
        available: What figures may need (`Figure.needs`), and whether it is there.
    """
    for name in names:
        if name not in FIGURES:
            raise ValueError(f"scores: there is no {name!r}; there are {list(FIGURES)}")
        if not available.get(FIGURES[name].needs, True):
            raise ValueError(f"scores: {name!r} needs {FIGURES[name].needs}")
