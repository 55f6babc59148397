"""`lightning profile_table`: inferred profiles against what people declare, several systems side by side.

In: a `judgements.parquet` per system (user, is_short, attribute, label, decision, value, posterior), all about the
same people. Out: `table.md`, `table.csv`, `table.png`.

Figures, of each attribute and system; the paper gives none of them for profiles:

    chunk       share of right values over a user's chunks, mean over users
    user        share of users whose value is right
    ECE         expected calibration error of the values decided on, in bins of equal width (Guo et al. 2017, eq. 3)
    at 50 %     share of right values among the half of the users that the system is surest of (ties by name)

Intervals are 95 % percentile bootstrap over users; a change is paired.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from evaluation.report.cells import align, csv_lines
from evaluation.report.files import replace_file
from evaluation.report.plots import COLORS, REFERENCE_COLOR, ascii_label, save_png
from evaluation.statistics.bootstrap import percentiles, resample_items

COLUMNS = {"user", "is_short", "attribute", "label", "decision", "value", "posterior"}
COVERAGES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Judgements:
    """What one system says about one attribute, a row a user, in the order of their names.

    Args:
        users: names.
        labels: what they declare.
        right: whether the value decided on is the label, (users,) bool.
        posterior: how sure the system is of it, (users,).
        chunks: share of the user's chunks with the right value, (users,).
    """

    users: list[str]
    labels: list[str]
    right: np.ndarray
    posterior: np.ndarray
    chunks: np.ndarray

    @property
    def majority(self) -> float:
        """Share of the most common label."""
        return Counter(self.labels).most_common(1)[0][1] / len(self.labels)

    def bins(self, number: int) -> np.ndarray:
        """Right minus posterior of each user in the bin of that posterior, (users, bins); its sums make the ECE."""
        place = np.clip(np.ceil(self.posterior * number).astype(int) - 1, 0, number - 1)
        gaps = np.zeros((len(self.users), number))
        gaps[np.arange(len(self.users)), place] = self.right - self.posterior
        return gaps

    def covered(self) -> np.ndarray:
        """Share of right values among the surest 1, 2, ... users, (users,)."""
        order = np.argsort(-self.posterior, kind="stable")
        return np.cumsum(self.right[order]) / np.arange(1, len(order) + 1)


@dataclass(frozen=True)
class Figures:
    """A line of `table.csv`; an interval is None with too few users."""

    attribute: str
    system: str
    num_users: int
    majority: float
    chunk: float
    user: float
    user_low: float | None
    user_high: float | None
    change: float
    change_low: float | None
    change_high: float | None
    ece: float
    ece_low: float | None
    ece_high: float | None
    at_25: float
    at_50: float
    at_75: float


class ProfileTable:
    """Compares systems that infer profiles, on the same people; writes table.md, table.csv and table.png."""

    def __init__(
        self,
        systems: dict[str, Path],
        output: Path,
        decision: Literal["vote", "product"] = "vote",
        whole_chunk_only: bool = False,
        num_bins: int = 10,
        num_resamples: int = 10_000,
        seed: int = 0,
        title: str = "Inferred profiles",
    ) -> None:
        """Takes the settings; nothing is read before `run`.

        Args:
            systems: Name of a system and its judgements.parquet; changes are against the first.
            output: Directory for table.md, table.csv and table.png; made if missing, older tables are replaced.
            decision: How chunks were put together, of what the files hold.
            whole_chunk_only: Leave out users with fewer posts than one chunk.
            num_bins: Bins of the calibration error.
            num_resamples: Bootstrap resamples for the 95 % intervals.
            seed: Seed of the bootstrap.
            title: Headline of the table and of the picture.
        """
        if not systems:
            raise ValueError("systems: expected at least one `name: path/to/judgements.parquet`, got none")
        if min(num_bins, num_resamples) < 1:
            raise ValueError(f"num_bins {num_bins} and num_resamples {num_resamples} must be at least 1")
        self.systems = {name: Path(path) for name, path in systems.items()}
        self.output = Path(output)
        self.decision = decision
        self.whole_chunk_only = whole_chunk_only
        self.num_bins = num_bins
        self.num_resamples = num_resamples
        self.seed = seed
        self.title = title

    def run(self) -> None:
        """Reads, compares, prints the table and writes the three files."""
        read = {
            name: read_judgements(path, self.decision, self.whole_chunk_only) for name, path in self.systems.items()
        }
        reference, *others = read
        for name in others:
            require_same_people(reference, read[reference], name, read[name])
        attributes = list(dict.fromkeys(attribute for found in read.values() for attribute in found))
        if alone := [attribute for attribute in attributes if attribute not in read[reference]]:
            raise ValueError(f"{reference} has no judgements of {alone}; put a system first that has them")
        figures = [
            self._figures(attribute, name, found[attribute], read[reference][attribute])
            for attribute in attributes
            for name, found in read.items()
            if attribute in found
        ]
        markdown = f"# {self.title}\n\n{self._markdown(figures)}\n\n{self._caption()}\n"
        print(markdown)
        self.output.mkdir(parents=True, exist_ok=True)
        replace_file(self.output / "table.md", lambda path: path.write_text(markdown, encoding="utf-8"))
        replace_file(
            self.output / "table.csv", lambda path: path.write_text(csv_lines(figures, Figures), encoding="utf-8")
        )
        picture = draw_coverage({a: {n: f[a] for n, f in read.items() if a in f} for a in attributes}, self.title)
        replace_file(self.output / "table.png", lambda path: save_png(picture, path))

    def _figures(self, attribute: str, system: str, mine: Judgements, reference: Judgements) -> Figures:
        right = mine.right.astype(float)
        items = np.column_stack([right, right - reference.right, mine.bins(self.num_bins)])

        def statistic(sums: np.ndarray) -> np.ndarray:
            return np.column_stack([sums[:, :2], np.abs(sums[:, 2:]).sum(axis=1)]) / len(right)

        drawn = resample_items(items, statistic, self.num_resamples, self.seed)
        low, high = (None, None, None), (None, None, None)
        if drawn is not None:
            low, high = (ends.tolist() for ends in percentiles(drawn))
        user, change, ece = statistic(items.sum(axis=0, keepdims=True))[0].tolist()
        covered = mine.covered()
        at = [float(covered[max(1, round(share * len(covered))) - 1]) for share in COVERAGES]
        return Figures(
            attribute, system, len(right), mine.majority, float(mine.chunks.mean()),
            user, low[0], high[0], change, low[1], high[1], ece, low[2], high[2], *at,
        )  # fmt: skip

    def _markdown(self, figures: Sequence[Figures]) -> str:
        reference = next(iter(self.systems))
        rows = [["attribute", "system", "chunk", "user", f"change from {reference}", "ECE"]]
        rows[0] += [f"at {share:.0%}" for share in COVERAGES]
        for attribute in dict.fromkeys(one.attribute for one in figures):
            found = [one for one in figures if one.attribute == attribute]
            name = f"{attribute} ({found[0].num_users} users)"
            rows.append([name, "majority", "", f"{found[0].majority:.3f}", "", "", "", "", ""])
            for one in found:
                change = "" if one.system == reference else _cell("+.3f", one.change, one.change_low, one.change_high)
                user = _cell(".3f", one.user, one.user_low, one.user_high)
                ece = _cell(".3f", one.ece, one.ece_low, one.ece_high)
                covered = [f"{value:.3f}" for value in (one.at_25, one.at_50, one.at_75)]
                rows.append(["", one.system, f"{one.chunk:.3f}", user, change, ece, *covered])
        return align(rows)

    def _caption(self) -> str:
        return (
            f"- chunk: share of right values over a user's chunks, mean over users; user: by {self.decision} over the "
            f"chunks; ECE: expected calibration error in {self.num_bins} bins; at 25 %: accuracy of the quarter of the "
            "users it is surest of.\n"
            f"- [low, high]: 95 % percentile bootstrap over users, {self.num_resamples:,} resamples, seed {self.seed}; "
            "changes are paired. The ECE of a resample errs on the high side."
            + ("\n- Users with fewer posts than one chunk are left out." if self.whole_chunk_only else "")
        )


def read_judgements(path: Path, decision: str, whole_chunk_only: bool = False) -> dict[str, Judgements]:
    """Attribute → what a system says of everybody who has a label, or of those with a whole chunk of posts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, lacks columns or has no such decisions.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no judgements in {path}; `lightning test` of a profile experiment writes them")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); write it anew") from None
    if missing := COLUMNS - set(table.column_names):
        raise ValueError(f"{path} lacks the columns {sorted(missing)}; it has {table.column_names}")
    decided: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    chunks: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in table.to_pylist():
        if whole_chunk_only and row["is_short"]:
            continue
        if row["decision"] == "chunk":
            chunks[row["attribute"], row["user"]].append(row["value"] == row["label"])
        elif row["decision"] == decision:
            decided[row["attribute"]][row["user"]] = row
    if not decided:
        whom = " about users with a whole chunk of posts" if whole_chunk_only else ""
        raise ValueError(f"{path} has no decisions by {decision!r}{whom}")
    found = {}
    for attribute, by_user in decided.items():
        users = sorted(by_user)
        if silent := [user for user in users if not chunks[attribute, user]]:
            raise ValueError(f"{path} has no chunks of {len(silent)} users, among them {silent[0]!r}")
        found[attribute] = Judgements(
            users=users,
            labels=[by_user[user]["label"] for user in users],
            right=np.array([by_user[user]["value"] == by_user[user]["label"] for user in users]),
            posterior=np.array([by_user[user]["posterior"] for user in users]),
            chunks=np.array([np.mean(chunks[attribute, user]) for user in users]),
        )
    return found


def require_same_people(name: str, ours: dict[str, Judgements], other: str, theirs: dict[str, Judgements]) -> None:
    """Raises ValueError where two systems were judged on other users or other labels."""
    for attribute in ours.keys() & theirs.keys():
        one, two = (dict(zip(found[attribute].users, found[attribute].labels, strict=True)) for found in (ours, theirs))
        if one != two:
            raise ValueError(
                f"{attribute}: {name} was judged on {len(one)} users and {other} on {len(two)}, or their labels "
                "differ; test both on the same data"
            )


def draw_coverage(judged: dict[str, dict[str, Judgements]], title: str) -> Figure:
    """Accuracy against coverage as the threshold of the posterior falls; a panel an attribute, a line a system."""
    figure = Figure(figsize=(3.6 * len(judged) + 0.8, 3.9), layout="constrained")
    panels = figure.subplots(1, len(judged), squeeze=False)[0]
    for panel, (attribute, systems) in zip(panels, judged.items(), strict=True):
        for place, (name, found) in enumerate(systems.items()):
            share = np.arange(1, len(found.users) + 1) / len(found.users)
            shown = share >= 0.05  # below, a line is one or two people
            color = COLORS[place % len(COLORS)]
            panel.plot(100 * share[shown], found.covered()[shown], color=color, label=ascii_label(name), linewidth=1.6)
        panel.axhline(found.majority, color=REFERENCE_COLOR, linestyle="--", linewidth=1, label="majority")
        panel.set(title=ascii_label(attribute), xlabel="users who get a value, %", ylim=(0, 1.02), xlim=(0, 100))
        panel.grid(color="#e5e7eb", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of right values")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle(ascii_label(title), fontsize=13, fontweight="bold")
    return figure


def _cell(form: str, value: float, low: float | None, high: float | None) -> str:
    return format(value, form) if low is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"
