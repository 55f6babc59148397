"""Which systems of a table make a line over a setting, and which have no such setting.

In: systems and their figures. Out: the lines for `plots.draw_curves`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.report.plots import draw_curves

Experiment = tuple[str | list[str], Mapping[str, Any]]
"""Experiment files, and settings over them by their dotted keys."""


def curve_figure(
    systems: Mapping[str, Experiment], found: Mapping[str, float], settings: Sequence[str], title: str
) -> Figure:
    """Draws perplexity over a setting: a line for all systems that differ in nothing else, the others across.

    Args:
        systems: name -> its experiment files and the settings over them; none of a system that is only predictions.
        found: name -> perplexity of those that were scored.
        settings: dotted keys that systems override; of several, each gives lines of its own.
        title: headline of the picture.

    Raises:
        ValueError: no system that was scored overrides such a setting, or one overrides two of them.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    values: dict[str, float] = {}
    for name in found:
        experiment, overrides = systems.get(name, (None, {}))
        if not (own := [setting for setting in settings if setting in overrides]):
            continue
        if len(own) > 1:
            raise ValueError(f"curve: system {name!r} overrides {own}; it can be on one line only")
        values[name] = float(overrides[own[0]])
        rest = {key: value for key, value in overrides.items() if key != own[0]}
        lines[json.dumps([experiment, own[0], rest], sort_keys=True)].append(name)
    if not lines:
        raise ValueError(f"curve: no system that was scored overrides {' or '.join(map(repr, settings))}")
    named = {line_name(names, key): names for key, names in lines.items()}
    if len(named) < len(lines):  # the names of their systems do not tell the lines apart
        named = {", ".join(names): names for names in lines.values()}
    drawn = {
        name: (np.array([values[one] for one in names]), np.array([found[one] for one in names]))
        for name, names in named.items()
    }
    best = min(drawn, key=lambda name: drawn[name][1].min())
    levels = {name: value for name, value in found.items() if name not in values}
    short = " or ".join(settings if len(settings) == 1 else [key.rpartition(".")[2] for key in settings])
    across = any(level < drawn[best][1].min() for level in levels.values())  # then the best is not on a line
    place = None if across else (best, int(drawn[best][1].argmin()))
    return draw_curves(drawn, short, "perplexity (lower is better)", place, title, levels)


def line_name(names: Sequence[str], otherwise: str) -> str:
    """The words with which the names of all of a line's systems begin."""
    words = [name.split() for name in names]
    common = []
    for place in zip(*words, strict=False):
        if len(set(place)) > 1:
            break
        common.append(place[0])
    return " ".join(common).rstrip(",:;") or otherwise
