"""The table of inferred profiles: rows of cells and picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Picture

from evaluation.report.plots import REFERENCE_COLOR, ascii_label, color_of, frame, headline
from evaluation.results.profile_judgements import Judgements
from evaluation.scores.figure import interval_cell
from evaluation.scores.profile_scores import COVERAGES, ProfileScore


def profile_rows(scores: Sequence[ProfileScore], reference: str) -> list[list[str]]:
    """The heading; of each attribute the most common value, then a row a system. Changes are from the reference."""
    heading = ["attribute", "system", "chunk", "user", f"change from {reference}", "ECE"]
    rows = [[*heading, *(f"at {share:.0%}" for share in COVERAGES)]]
    attribute = None
    for score in scores:
        if score.attribute != attribute:
            attribute = score.attribute
            name = f"{attribute} ({score.num_users} users)"
            rows.append([name, "majority", "", f"{score.majority:.3f}", "", "", "", "", ""])
        change = interval_cell(score.change, score.change_low, score.change_high, "+.3f")
        user = interval_cell(score.user, score.user_low, score.user_high)
        ece = interval_cell(score.ece, score.ece_low, score.ece_high)
        covered = [f"{value:.3f}" for value in (score.at_25, score.at_50, score.at_75)]
        is_reference = score.system == reference
        rows.append(["", score.system, f"{score.chunk:.3f}", user, "" if is_reference else change, ece, *covered])
    return rows


def draw_coverage(judged: dict[str, dict[str, Judgements]], title: str) -> Picture:
    """Accuracy against coverage as the threshold of the posterior falls; a panel an attribute, a line a system."""
    figure = Picture(figsize=(3.6 * len(judged) + 0.8, 3.9), layout="constrained")
    panels = figure.subplots(1, len(judged), squeeze=False)[0]
    for panel, (attribute, systems) in zip(panels, judged.items(), strict=True):
        for index, (name, judgements) in enumerate(systems.items()):
            share = np.arange(1, len(judgements.users) + 1) / len(judgements.users)
            shown = share >= 0.05  # below, a line is one or two people
            style = {"color": color_of(index), "linewidth": 1.6}
            panel.plot(100 * share[shown], judgements.covered()[shown], label=ascii_label(name), **style)
        panel.axhline(judgements.majority, color=REFERENCE_COLOR, linestyle="--", linewidth=1, label="majority")
        panel.set(title=ascii_label(attribute), xlabel="users who get a value, %", ylim=(0, 1.02), xlim=(0, 100))
        frame(panel, "top", "right")
    panels[0].set_ylabel("share of right values")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    headline(figure, title)
    return figure
