"""`lightning conversation_table`: long conversations of user models, block by block, in one table.

In: `conversations.jsonl`, the prepared corpus, and, for profiles, what a network says of the conversations and of the
users. Out: `table.md`, `.tex`, `.csv` and `.png`. No text of a turn is written anywhere.

All figures are means over speakers of a speaker's mean over conversations. Intervals are 95 % BCa bootstrap
over speakers, then over the conversations of each; that two speakers of one conversation hang together is left out of
account.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from commands.experiments.before import run_before
from commands.experiments.experiment import moved
from commands.experiments.other_backbone import on_backbones, places_of, require_backbones
from evaluation.metrics.conversation_parts import (
    FIGURES,
    Judgements,
    Part,
    Rows,
    figures_of_partners,
    figures_of_parts,
    read_judgements,
    read_parts,
)
from evaluation.metrics.identification import UserClassifier
from evaluation.metrics.text_metrics import Unit
from evaluation.report.cells import csv_lines
from evaluation.report.files import log_to_wandb, write_tables
from evaluation.report.plots import COLORS, REFERENCE_COLOR, ascii_label
from evaluation.results.predictions import card_facts, read_card
from evaluation.results.training_turns import check_corpus, training_turns
from evaluation.statistics.bootstrap import MIN_UNITS, bca, jackknife_users, resample_users

NAMES = {"own": "own adapters", "base": "backbone", "real": "real turns (ceiling)"}
SWAPPED = "own adapters, held to be the partner (floor)"
CHANCE, SILENT = "chance", "without any text"
MAX_NAMED = 5  # blocks whose turns stand below a panel
DRAWN = ("recognised", "agreement so far", "repeated", "distinct-2")


@dataclass(frozen=True)
class Line:
    """A line of `table.csv`: one figure of one system in one block; an interval is None with too few speakers."""

    system: str
    first_turn: int | None
    last_turn: int | None
    figure: str
    value: float
    low: float | None
    high: float | None
    num_speakers: int


class ConversationTable:
    """Says turn by turn how far user models stay the person they speak for; writes table.md, .tex, .csv and .png."""

    def __init__(
        self,
        conversations: Path,
        prepared: Path,
        output: Path,
        judged: Path | None = None,
        profiles: Path | None = None,
        before: list[str] | None = None,
        backbone: Path | dict[str, Path] | None = None,
        block_turns: int = 10,
        unit: Unit = "word",
        num_resamples: int = 10_000,
        seed: int = 0,
        title: str = "Long conversations",
        wandb_project: str | None = None,
    ) -> None:
        """Takes the settings; nothing is read before `run`.

        Args:
            conversations: A conversations.jsonl.
            prepared: The prepared corpus, whose training turns teach the classifier.
            output: Directory for table.md, .tex, .csv and .png; made if missing, older tables are replaced.
            judged: profiles.parquet of the conversations (experiments/conversation_profiles.yaml); None leaves
                profiles out.
            profiles: profiles.parquet of the users' training posts, by the same network.
            before: Commands of `lightning` that are run first.
            backbone: Takes the place of the backbone that these commands name: the same table at another scale. Where
                they have several, each one that they name and what takes its place. It is there already, and not
                trained; what they make from it, and the files above, are in runs of their own.
            block_turns: Turns of a block, of both people together; as the conversations were judged with.
            unit: What bigrams count; "character" for Japanese.
            num_resamples: Bootstrap resamples for the 95 % intervals.
            seed: Of the bootstrap and the classifier.
            title: Headline of the table and of the picture.
            wandb_project: Also logs the figures to this project of Weights & Biases, offline unless WANDB_MODE says
                otherwise.
        """
        if (judged is None) != (profiles is None):
            raise ValueError("agreement needs both `judged` and `profiles`: give both or neither")
        if min(block_turns, num_resamples) < 1:
            raise ValueError(f"block_turns {block_turns} and num_resamples {num_resamples} must be at least 1")
        self.conversations = Path(conversations)
        self.prepared = Path(prepared)
        self.output = Path(output)
        self.judged = judged
        self.profiles = profiles
        self.before = before or []
        self.places = places_of(on_backbones(self.before), backbone) if backbone else {}
        self.block_turns = block_turns
        self.unit: Unit = unit
        self.num_resamples = num_resamples
        self.seed = seed
        self.title = title
        self.wandb_project = wandb_project

    def run(self) -> None:
        """Makes what is missing, reads, judges, prints the table and writes its files."""
        require_backbones(self.places.values())
        moved_runs = run_before(self.before, self.output / "logs", self.places)
        conversations = Path(moved(str(self.conversations), moved_runs))
        parts = read_parts(conversations, self.block_turns)
        card = read_card(conversations)
        check_corpus("conversations", card, self.prepared)
        judgements = None
        if self.judged is not None and self.profiles is not None:
            judged = Path(moved(str(self.judged), moved_runs))
            judgements = read_judgements(judged, self.profiles, conversations, self.block_turns, parts)
        speakers = sorted({part.speaker for part in parts})
        training = training_turns(self.prepared)
        if unknown := sorted(set(speakers) - training.keys()):
            raise ValueError(f"{conversations}: {unknown[0]!r} is no target user of {self.prepared}")
        # As many turns together as a speaker has in a block, so that texts are of the kind that is judged.
        classifier = UserClassifier(
            {user: training[user] for user in speakers}, bundle=-(-self.block_turns // 2), seed=self.seed
        )
        own = [part for part in parts if part.system == "own"]
        lines = self._lines(figures_of_parts(parts, classifier, judgements, self.unit), NAMES)
        lines += self._lines(figures_of_partners(own, classifier, judgements), {"own": SWAPPED})
        lines += by_chance(len(speakers)) + self._silent(speakers, judgements)
        self._write(lines, self._caption(parts, speakers, card, judgements))

    def _lines(self, rows: Rows, names: dict[str, str]) -> list[Line]:
        """Means and intervals of all figures."""
        found = []
        order = list(names)
        for (system, block), speakers in sorted(rows.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
            turns = (block * self.block_turns + 1, (block + 1) * self.block_turns)
            for number, figure in enumerate(FIGURES):
                values = [one[:, number] for one in speakers.values()]
                found += self._line(names[system], *turns, figure, values)
        return found

    def _line(
        self, system: str, first: int | None, last: int | None, figure: str, speakers: Sequence[np.ndarray]
    ) -> list[Line]:
        """One figure from each speaker's values; nothing where nobody has any."""
        values = [own[~np.isnan(own)] for own in speakers]
        values = [np.column_stack([own, np.ones_like(own)]) for own in values if len(own)]
        if not values:
            return []

        def mean(sums: np.ndarray) -> np.ndarray:  # (..., speakers, 2)
            return (sums[..., 0] / sums[..., 1]).mean(axis=-1)

        value = mean(np.stack([own.sum(axis=0) for own in values]))
        drawn = resample_users(values, mean, self.num_resamples, self.seed)
        ends = (None, None) if drawn is None else map(float, bca(drawn, value, jackknife_users(values, mean)))
        return [Line(system, first, last, figure, float(value), *ends, len(values))]

    def _silent(self, speakers: Sequence[str], judgements: Judgements | None) -> list[Line]:
        """Agreement of what the network says without any text: what no text can be thanked for."""
        if judgements is None:
            return []
        values = [np.array([judgements.agreement(judgements.prior(user), user)]) for user in speakers]
        return self._line(SILENT, None, None, "agreement so far", values)

    def _caption(
        self, parts: Sequence[Part], speakers: Sequence[str], card: dict, judgements: Judgements | None
    ) -> list[str]:
        numbers = {system: len({p.conversation for p in parts if p.system == system}) for system in NAMES}
        lines = [
            f"{len(speakers)} speakers, {numbers['own']} conversations of two user models, begun by "
            f"{card.get('opening_turns', 'an unknown number of')} turns of a real test dialogue; the backbone has the "
            "same beginnings. real turns: everyone's own test turns with those they answer, numbered alike, so that a "
            "block holds as much text; it may go over the end of a dialogue, and in late blocks users with few turns "
            "are missing.",
            "recognised, MRR: by a classifier of training turns, from the speaker's turns of that block alone. "
            "repeated: turns that stood word for word in the conversation before. distinct-2: of the speaker's turns "
            f"in the block, in {self.unit}s.",
            "[low, high]: 95 % BCa bootstrap over speakers, then conversations, "
            f"{self.num_resamples:,} resamples, seed {self.seed}; two speakers of one conversation are taken as "
            f"independent. No interval with fewer than {MIN_UNITS} speakers.",
        ]
        if judgements is not None:
            known = [judgements.profiles.get(user, {}) for user in speakers]
            lines.append(
                f"agreement: with the {sum(map(len, known))} attributes that the same network infers from the training "
                f"posts of {sum(map(bool, known))} of these speakers. It has learnt from chunks of many more posts "
                f"than the {self.block_turns / 2:g} turns that a speaker has in a block, so its prior weighs much: as "
                "without text is how often its value is the one it gives without any text, and `without any text` what "
                "that value alone agrees."
            )
        facts = card_facts(card) + [f"{key} {card[key]}" for key in ("adapters", "seed") if key in card]
        return [line for line in [*lines, "; ".join(facts)] if line]

    def _write(self, lines: Sequence[Line], notes: Sequence[str]) -> None:
        columns = [field.name for field in fields(Line)]
        write_tables(
            self.output, self.title, [table_rows(lines)], notes, csv_lines(lines, Line), draw(lines, self.title)
        )
        if self.wandb_project:
            log_to_wandb(self.wandb_project, self.title, columns, map(astuple, lines), self.output)


def by_chance(num_users: int) -> list[Line]:
    """Recognition by a ranking that is drawn: 1 / users, and the mean of 1 / rank."""
    reciprocal = float(np.mean(1 / np.arange(1, num_users + 1)))
    values = (("recognised", 1 / num_users), ("MRR", reciprocal))
    return [Line(CHANCE, None, None, figure, value, None, None, num_users) for figure, value in values]


def table_rows(lines: Sequence[Line]) -> list[list[str]]:
    """A system and block a row; figures that nobody has are left out."""
    columns = [figure for figure in FIGURES if any(line.figure == figure for line in lines)]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    speakers: dict[tuple[str, str], int] = {}
    for line in lines:
        turns = "" if line.first_turn is None else f"{line.first_turn}-{line.last_turn}"
        where = (line.system, turns)
        ends = "" if line.low is None else f" [{line.low:.3f}, {line.high:.3f}]"
        cells.setdefault(where, {})[line.figure] = f"{line.value:.3f}{ends}"
        speakers[where] = max(speakers.get(where, 0), line.num_speakers)
    rows = [["system", "turns", "speakers", *columns]]
    for where, own in cells.items():
        rows.append([*where, str(speakers[where]), *(own.get(figure, "") for figure in columns)])
    return rows


def draw(lines: Sequence[Line], title: str) -> Figure:
    """A panel a figure, a line a system, over the blocks; what is of no block is a line across."""
    drawn = [figure for figure in DRAWN if any(line.figure == figure for line in lines)]
    systems = list(dict.fromkeys(line.system for line in lines))
    blocks = sorted({(one.first_turn, one.last_turn) for one in lines if one.first_turn is not None})
    figure = Figure(figsize=(3.7 * len(drawn), 4.2), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for panel, name in zip(panels, drawn, strict=True):
        for number, system in enumerate(systems):
            found = {one.first_turn: one for one in lines if (one.system, one.figure) == (system, name)}
            _draw_system(panel, found, [first for first, _ in blocks], number, system)
        named = range(0, len(blocks), -(-len(blocks) // MAX_NAMED))  # more names would lie over each other
        panel.set_xticks(named, [f"{first}-{last}" for first, last in (blocks[place] for place in named)])
        panel.set(title=name, xlabel="turns")
        panel.set_ylim(-0.03, 1.05)  # all are shares
        panel.grid(color="#e5e7eb", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
    entries = {}
    for panel in panels:
        entries |= {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(ascii_label(title), fontsize=13, fontweight="bold")
    return figure


def _draw_system(panel: Axes, found: dict[int | None, Line], blocks: list[int], number: int, system: str) -> None:
    if None in found:
        panel.axhline(
            found[None].value, color=REFERENCE_COLOR, linestyle="--" if system == CHANCE else ":", label=system
        )
        return
    there = [place for place, first in enumerate(blocks) if first in found]
    if not there:
        return
    color = COLORS[number % len(COLORS)]
    shift = 0.07 * (number - 1.5)  # side by side, so that intervals do not hide each other
    values = [found[blocks[place]].value for place in there]
    panel.plot([place + shift for place in there], values, "o-", color=color, markersize=4, label=system)
    for place in there:
        one = found[blocks[place]]
        if one.low is not None:
            panel.vlines(place + shift, one.low, one.high, color=color, alpha=0.35, linewidth=2.5)
