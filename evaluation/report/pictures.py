"""What the picture of a table of systems shows: single users, all systems, or a curve."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple

import numpy as np
from matplotlib.figure import Figure as Picture

from evaluation.report.cells import Cells
from evaluation.report.curves import Experiment, curve_picture
from evaluation.report.options import Options
from evaluation.report.plots import UserPanels, draw_systems, draw_users
from evaluation.scores.figure import MICRO, Score, UserFigure
from evaluation.scores.user_scores import PERPLEXITY, PERPLEXITY_RATIO, SIMILARITY, SIMILARITY_CHANGE

PLAIN, PAIRED = (PERPLEXITY, SIMILARITY), (PERPLEXITY_RATIO, SIMILARITY_CHANGE)
MAX_NAME = 24  # characters of a system's name in a title


def picture_of(
    scores: Sequence[Score],
    systems: Sequence[str],
    experiments: Mapping[str, Experiment],
    labels: Mapping[str, str],
    options: Options,
) -> Picture | None:
    """Single users; or all systems; or perplexity over the setting of the curve.

    Systems without scores over all turns are not drawn; `experiments` are those of the systems that have any.
    """
    of_all_turns = [score for score in scores if score.user == MICRO]
    scored = [name for name in systems if any(score.system == name for score in of_all_turns)]
    if options.per_user:
        return draw_users(user_panels(scores, scored, labels, options.encoder_name), options.title)
    if options.curve:
        perplexities = {score.system: score.value for score in of_all_turns if score.metric == PERPLEXITY.name}
        return curve_picture(experiments, perplexities, options.curve, options.title)
    panels = system_panels(scores, scored, options.encoder_name) if scored else {}
    return draw_systems(panels, options.title) if panels else None


def user_panels(
    scores: Sequence[Score], systems: Sequence[str], labels: Mapping[str, str], encoder_name: str
) -> UserPanels:
    """Perplexity of each user with each system, and similarity, or its change if there is something to compare."""
    cells = Cells(scores, {}, ())
    reference, *others = systems
    compared = others or systems
    of_perplexity, of_similarity = PAIRED if others else PLAIN
    percent = f" % of {reference[:MAX_NAME]}" if others else ""
    axis = f"change from {reference[:MAX_NAME]}" if others else "cosine with the reference reply"

    def title(what: str, figure: UserFigure, after: str) -> str:
        lines = [f"{what} over all turns"]
        for name in compared:
            if (name, MICRO, figure.name) not in cells.scores:
                lines.append(f"{name[:MAX_NAME]}: no likelihoods, or of other tokens; not comparable")
                continue
            better = cells.better(name, figure, labels)
            better = f", better for {better}" if better else ""
            lines.append(f"{name[:MAX_NAME]}: {cells.cell(name, MICRO, figure)}{after}{better}")
        return "\n".join(lines)

    return UserPanels(
        labels=list(labels.values()),
        perplexity={name: np.array([_ends(cells, name, user, PERPLEXITY)[0] for user in labels]) for name in systems},
        similarity={name: np.array([_ends(cells, name, user, of_similarity) for user in labels]) for name in compared},
        perplexity_title=title("Perplexity", of_perplexity, percent),
        similarity_title=title("Similarity", of_similarity, ""),
        similarity_label=f"{axis} (higher is better; bars: 95 % interval)\nencoder {encoder_name}",
    )


def system_panels(
    scores: Sequence[Score], systems: Sequence[str], encoder_name: str
) -> dict[str, dict[str, np.ndarray]]:
    """Perplexity and similarity over all turns, against the first system where that can be.

    Paired figures, because users differ more than systems do. Nothing where no system has a figure.
    """
    reference = systems[0]
    neutral = [Score(reference, MICRO, figure.name, figure.neutral, None, None, 1) for figure in PAIRED]
    metrics = {score.metric for score in scores if score.user == MICRO}
    figures = PAIRED if any(figure.name in metrics for figure in PAIRED) else PLAIN
    cells = Cells([*scores, *neutral], {}, ())
    panels = {}
    for figure in figures:
        if figure.name in metrics:
            axis, bars = figure.axis.format(reference=reference), "; bars: 95 % interval"
            label = f"{axis} ({figure.direction}{'' if figure.names_encoder else bars})"
            label += f"\nencoder {encoder_name}" if figure.names_encoder else ""
            panels[label] = {name: figure.scale * _ends(cells, name, MICRO, figure) for name in systems}
    return panels


def _ends(cells: Cells, system: str, row: str, figure: UserFigure) -> np.ndarray:
    """Value, low and high, (3,); not a number, which is not drawn, where there is none."""
    score = cells.scores.get((system, row, figure.name))
    return np.full(3, math.nan) if score is None else np.array(astuple(score)[3:6], dtype=np.float64)
