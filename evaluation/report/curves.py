"""Which systems of a table make a line over a setting, and which have no such setting."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Picture

from evaluation.report.plots import draw_curves
from evaluation.scores.user_scores import PERPLEXITY

Experiment = tuple[str | list[str], Mapping[str, Any]]
"""Experiment files, and settings over them by their dotted keys."""


def curve_picture(
    systems: Mapping[str, Experiment], values: Mapping[str, float], settings: Sequence[str], title: str
) -> Picture:
    """Draws perplexity over a setting: a line for all systems that differ in nothing else, the others across.

    Args:
        systems: Name → its experiment files and the settings over them; none of a system that is only predictions.
        values: Name → perplexity of those that were scored.
        settings: Dotted keys that systems override; of several, each gives lines of its own.
        title: Headline of the picture.

    Raises:
        ValueError: No system that was scored overrides such a setting, or one overrides two of them.
    """
    lines, numbers = _lines(systems, values, settings)
    drawn = {
        name: (np.array([numbers[one] for one in names]), np.array([values[one] for one in names]))
        for name, names in lines.items()
    }
    best = min(drawn, key=lambda name: drawn[name][1].min())
    levels = {name: value for name, value in values.items() if name not in numbers}
    label = " or ".join(settings if len(settings) == 1 else [key.rpartition(".")[2] for key in settings])
    across = any(level < drawn[best][1].min() for level in levels.values())  # then the best is not on a line
    marked = None if across else (best, int(drawn[best][1].argmin()))
    return draw_curves(drawn, label, f"perplexity ({PERPLEXITY.direction})", marked, title, levels)


def _lines(
    systems: Mapping[str, Experiment], scored: Iterable[str], settings: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The systems of each line, by its name, and the number of each of them."""
    lines: dict[str, list[str]] = defaultdict(list)
    numbers: dict[str, float] = {}
    for name in scored:
        experiment, overrides = systems.get(name, (None, {}))
        varied = [setting for setting in settings if setting in overrides]
        if len(varied) > 1:
            raise ValueError(f"curve: system {name!r} overrides {varied}; it can be on one line only")
        if varied:
            (setting,) = varied
            numbers[name] = float(overrides[setting])
            rest = {key: value for key, value in overrides.items() if key != setting}
            lines[json.dumps([experiment, setting, rest], sort_keys=True)].append(name)
    if not lines:
        raise ValueError(f"curve: no system that was scored overrides {' or '.join(map(repr, settings))}")
    named = {line_name(names, key): names for key, names in lines.items()}
    if len(named) < len(lines):  # the names of their systems do not tell the lines apart
        named = {", ".join(names): names for names in lines.values()}
    return named, numbers


def line_name(names: Sequence[str], otherwise: str) -> str:
    """The words with which the names of all of a line's systems begin."""
    words = [name.split() for name in names]
    common = []
    for place in zip(*words, strict=False):
        if len(set(place)) > 1:
            break
        common.append(place[0])
    return " ".join(common).rstrip(",:;") or otherwise
