"""How the systems of a table stand in every figure that is tested."""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.scores.figure import OVERALL, Score
from evaluation.scores.registry import FIGURES
from evaluation.scores.user_scores import PERPLEXITY, PERPLEXITY_RATIO
from evaluation.statistics.significance import Column, Standing, against_best

Standings = Mapping[tuple[str, str], Standing]
"""(row, figure) → how the systems stand in it."""


def standings_of(scores: Sequence[Score], systems: Sequence[str]) -> Standings:
    """How systems stand in every figure of a table that is tested, the first system the reference; Holm over the table.

    (micro) and (macro) test the same figures, those of users, which counts once; but each has the best of its own
    overall figure. A figure that some user lacks is left out. Perplexities take part that are over the label tokens of
    the first system, which is what a ratio to it says.
    """
    values = {(s.system, s.user, s.metric): s.value for s in scores}
    users = list(dict.fromkeys(s.user for s in scores if s.user not in OVERALL))
    columns = {}
    for figure in FIGURES.values():
        for row in figure.rows if figure.is_tested else ():
            names = [name for name in systems if (name, row, figure.name) in values]
            if figure is PERPLEXITY:
                names = [n for n in names if n == systems[0] or (n, row, PERPLEXITY_RATIO.name) in values]
            of_users = {name: [values.get((name, user, figure.name), np.nan) for user in users] for name in names}
            if not np.isnan(list(of_users.values())).any():
                overall = {name: values[name, row, figure.name] for name in names}
                columns[row, figure.name] = Column(of_users, not figure.higher_is_better, overall, figure.name)
    return against_best(columns)
