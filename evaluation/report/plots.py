"""The picture of a table: what every single user gained, or all systems side by side; and the curves of a sweep.

The functions give a matplotlib figure (no pyplot, no global state, any thread), which `save_png` writes. Of users,
left: perplexity of the reference system and of the others, joined by a line. Right: similarity, with intervals. Users
are sorted by their gain in perplexity, best on top. Labels are made ASCII, because matplotlib ships no Japanese font.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

REFERENCE_COLOR = "#6b7280"
COLORS = ("#0f62a8", "#d2691e", "#1b8a5a", "#8e44ad", "#b8860b")  # told apart by most colour-blind readers
LOG_ABOVE = 8.0  # largest / smallest perplexity from which a linear axis squeezes most users into one corner
MAX_NAMED_USERS = 80
MAX_TICKS = 10  # values of a curve that each get a tick


@dataclass(frozen=True)
class UserPanels:
    """What the picture of users shows."""

    labels: Sequence[str]  # one per user
    perplexity: dict[str, np.ndarray]  # system → (users,); the first system is the reference
    similarity: dict[str, np.ndarray]  # system → (users, 3): value or change, low, high; these may be NaN
    perplexity_title: str
    similarity_title: str
    similarity_label: str


def ascii_label(text: str) -> str:
    """Replaces what the shipped font cannot draw by "?"."""
    return text.encode("ascii", "replace").decode("ascii")


def headline(figure: Picture, title: str) -> None:
    """Writes the title above all panels."""
    figure.suptitle(ascii_label(title), fontsize=13, fontweight="bold")


def color_of(index: int) -> str:
    """The colour of a system, by its place among them."""
    return COLORS[index % len(COLORS)]


def frame(axis: Axes, *hidden: str) -> None:
    """Draws a grid below everything and hides some sides of the box."""
    axis.grid(color="#e5e7eb", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[list(hidden)].set_visible(False)


def draw_users(panels: UserPanels, title: str) -> Picture:
    """Draws both panels, one row per user."""
    order = _by_gain(panels.perplexity)
    num_users = len(order)
    height = 2.2 + 0.26 * min(num_users, MAX_NAMED_USERS)
    figure = Picture(figsize=(11.5, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.05, 1.0))
    _draw_perplexity(left, panels, order)
    _draw_similarity(right, panels, order)
    left.set_ylim(-0.7, num_users - 0.3)
    if num_users <= MAX_NAMED_USERS:
        left.set_yticks(range(num_users), [ascii_label(panels.labels[user]) for user in order])
    else:
        left.set_yticks([])
        left.set_ylabel(f"{num_users} users")
    for axis in (left, right):
        frame(axis, "top", "right", "left")
        axis.tick_params(axis="y", length=0)
    headline(figure, title)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def draw_systems(panels: Mapping[str, Mapping[str, np.ndarray]], title: str) -> Picture:
    """Draws a panel for each figure, one row per system, the first on top.

    Args:
        panels: What a panel shows, and which way is better → system → `(3,)`: value, low, high; low and high may be
            NaN. All panels have the same systems; a value that is NaN is not drawn.
        title: Headline of the figure.
    """
    names = list(next(iter(panels.values())))
    rows = np.arange(len(names))[::-1]
    figure = Picture(figsize=(3.0 + 4.0 * len(panels), 1.6 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (label, values) in zip(axes, panels.items(), strict=True):
        table = np.stack([values[name] for name in names])  # (systems, 3)
        axis.axvline(table[0, 0], color=REFERENCE_COLOR, linestyle=":", linewidth=1.2)
        axis.hlines(rows, table[:, 1], table[:, 2], color=COLORS[0], alpha=0.35, linewidth=3)
        axis.plot(table[1:, 0], rows[1:], "o", color=COLORS[0], markersize=6)
        axis.plot(table[0, 0], rows[0], "o", color=REFERENCE_COLOR, markersize=6)
        axis.set_yticks(rows, [ascii_label(name) for name in names])
        axis.set_ylim(-0.7, len(names) - 0.3)
        axis.set_xlabel(ascii_label(label))
        frame(axis, "top", "right", "left")
        axis.tick_params(axis="y", length=0)
    headline(figure, title)
    return figure


def draw_curves(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x_label: str,
    y_label: str,
    best: tuple[str, int] | None,
    title: str,
    levels: Mapping[str, float] | None = None,
) -> Picture:
    """Draws one figure of every run over the one number that varies; what runs have in common makes a line.

    Args:
        lines: Name of a line → x and y of its runs, each `(runs,)`, in any order. A single line is not named.
        x_label: What the number is.
        y_label: What the figure is, and which way is better.
        best: Name of the line and index of the run in it that is marked; None marks none.
        title: Headline of the figure.
        levels: Name → figure of what has no such number, drawn across.
    """
    figure = Picture(figsize=(7.0, 4.5), layout="constrained")
    axis = figure.subplots()
    alone = len(lines) == 1 and not levels
    _draw_lines(axis, lines, levels or {}, alone)
    if best is not None:
        x, y = (values[best[1]] for values in lines[best[0]])
        color = COLORS[1] if alone else color_of(list(lines).index(best[0]))
        axis.plot(x, y, "o", color=color, markersize=9 if alone else 11, label=f"best: {y:.6g} at {x:g}")
    _number_axis(axis, np.unique(np.concatenate([x for x, _ in lines.values()])))
    axis.set_xlabel(ascii_label(x_label))
    axis.set_ylabel(ascii_label(y_label))
    frame(axis, "top", "right")
    if alone:
        axis.legend(frameon=False)
    else:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    headline(figure, title)
    return figure


def _draw_lines(
    axis: Axes, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], levels: Mapping[str, float], alone: bool
) -> None:
    for index, (name, (x, y)) in enumerate(lines.items()):
        order = np.argsort(x, kind="stable")
        label = None if alone else ascii_label(name)
        style = ("o-", "s--", "^:")[index // len(COLORS) % 3]  # tells lines apart when colours run out
        axis.plot(x[order], y[order], style, color=color_of(index), markersize=6, label=label)
    for index, (name, level) in enumerate(levels.items()):
        style = ("--", ":", "-.")[index % 3]
        axis.axhline(level, color=REFERENCE_COLOR, linestyle=style, linewidth=1.2, label=ascii_label(name))


def _number_axis(axis: Axes, x: np.ndarray) -> None:
    """Ticks at the values where they are few, in logarithms where they are far apart."""
    if x.min() > 0 and x.max() > LOG_ABOVE * x.min():
        _log_scale(axis)
    if len(x) <= MAX_TICKS:
        axis.set_xticks(x)
        axis.minorticks_off()


def _log_scale(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def save_png(figure: Picture, path: Path, dpi: int = 150) -> None:
    """Writes the figure as PNG."""
    FigureCanvasAgg(figure).print_figure(path, format="png", dpi=dpi)


def _by_gain(perplexity: dict[str, np.ndarray]) -> np.ndarray:
    """Users from bottom to top: smallest relative gain of the second system first; one system: worst first."""
    systems = list(perplexity.values())
    return np.argsort(-systems[0] if len(systems) == 1 else systems[0] / systems[1], kind="stable")


def _offsets(num_systems: int) -> np.ndarray:
    return np.linspace(0.2, -0.2, num_systems) if num_systems > 1 else np.zeros(num_systems)


def _draw_perplexity(axis: Axes, panels: UserPanels, order: np.ndarray) -> None:
    rows = np.arange(len(order))
    (reference, base), *others = panels.perplexity.items()
    for index, ((name, values), offset) in enumerate(zip(others, _offsets(len(others)), strict=True)):
        color = color_of(index)
        axis.hlines(rows + offset, base[order], values[order], color=color, alpha=0.35, linewidth=2.5)
        axis.plot(values[order], rows + offset, "o", color=color, markersize=6, label=ascii_label(name))
    axis.plot(
        base[order], rows, "o", color="white", markeredgecolor=REFERENCE_COLOR, markeredgewidth=1.5, markersize=6,
        label=ascii_label(reference),
    )  # fmt: skip
    values = np.concatenate(list(panels.perplexity.values()))
    if np.nanmax(values) > LOG_ABOVE * np.nanmin(values):
        _log_scale(axis)
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    log_scale = "log scale, " if axis.get_xscale() == "log" else ""
    axis.set_xlabel(f"perplexity ({log_scale}lower is better)")
    axis.set_title(ascii_label(panels.perplexity_title), fontsize=9.5, loc="left")


def _draw_similarity(axis: Axes, panels: UserPanels, order: np.ndarray) -> None:
    rows = np.arange(len(order))
    is_change = len(panels.perplexity) > 1
    offsets = _offsets(len(panels.similarity))
    for index, (table, offset) in enumerate(zip(panels.similarity.values(), offsets, strict=True)):
        color = color_of(index) if is_change else REFERENCE_COLOR
        value, low, high = table[order].T
        axis.hlines(rows + offset, low, high, color=color, alpha=0.35, linewidth=2.5)
        axis.plot(value, rows + offset, "o", color=color, markersize=6)
    if is_change:
        axis.axvline(0.0, color=REFERENCE_COLOR, linewidth=1.2)
    axis.xaxis.set_major_locator(MaxNLocator(7))
    axis.set_xlabel(ascii_label(panels.similarity_label))
    axis.set_title(ascii_label(panels.similarity_title), fontsize=9.5, loc="left")
