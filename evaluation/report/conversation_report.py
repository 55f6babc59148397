"""The table of long conversations: rows of cells, caption and picture. No text of a turn is in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from evaluation.report.plots import REFERENCE_COLOR, color_of, frame, headline
from evaluation.results.cards import card_facts
from evaluation.results.conversations import Part
from evaluation.results.part_profiles import PartProfiles
from evaluation.scores.conversation_scores import CHANCE, FIGURES, ConversationScore
from evaluation.scores.figure import interval_cell
from evaluation.statistics.bootstrap import MIN_UNITS, Bootstrap

MAX_NAMED = 5  # blocks whose turns stand below a panel
DRAWN = ("recognised", "agreement so far", "repeated", "distinct-2")


def caption_of(
    parts: Sequence[Part],
    card: Mapping[str, Any],
    profiles: PartProfiles | None,
    block_turns: int,
    unit: str,
    bootstrap: Bootstrap,
) -> list[str]:
    """What a reader has to know; arguments as in `conversation_scores`, and the card of the conversations."""
    speakers = sorted({part.speaker for part in parts})
    num_conversations = len({part.conversation for part in parts if part.system == "own"})
    lines = [
        f"{len(speakers)} speakers, {num_conversations} conversations of two user models, begun by "
        f"{card.get('opening_turns', 'an unknown number of')} turns of a real test dialogue; the backbone has the same "
        "beginnings. real turns: everyone's own test turns with those they answer, numbered alike, so that a block "
        "holds as much text; it may go over the end of a dialogue, and in late blocks users with few turns are "
        "missing.",
        "recognised, MRR: by a classifier of training turns, from the speaker's turns of that block alone. repeated: "
        "turns that stood word for word in the conversation before. distinct-2: of the speaker's turns in the block, "
        f"in {unit}s.",
        "[low, high]: 95 % BCa bootstrap over speakers, then conversations, "
        f"{bootstrap.num_resamples:,} resamples, seed {bootstrap.seed}; two speakers of one conversation are taken as "
        f"independent. No interval with fewer than {MIN_UNITS} speakers.",
    ]
    if profiles is not None:
        lines.append(_about_profiles([profiles.of_users.get(user, {}) for user in speakers], block_turns))
    facts = card_facts(card) + [f"{key} {card[key]}" for key in ("adapters", "seed") if key in card]
    return [*lines, "; ".join(facts)] if facts else lines


def _about_profiles(known: Sequence[Mapping[str, str]], block_turns: int) -> str:
    return (
        f"agreement: with the {sum(map(len, known))} attributes that the same network infers from the training posts "
        f"of {sum(map(bool, known))} of these speakers. It has learnt from chunks of many more posts than the "
        f"{block_turns / 2:g} turns that a speaker has in a block, so its prior weighs much: as without text is how "
        "often its value is the one it gives without any text, and `without any text` what that value alone agrees."
    )


def table_rows(lines: Sequence[ConversationScore]) -> list[list[str]]:
    """A system and block a row; figures that nobody has are left out."""
    columns = [figure for figure in FIGURES if any(line.figure == figure for line in lines)]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    speakers: dict[tuple[str, str], int] = {}
    for line in lines:
        turns = "" if line.first_turn is None else f"{line.first_turn}-{line.last_turn}"
        where = (line.system, turns)
        cells.setdefault(where, {})[line.figure] = interval_cell(line.value, line.low, line.high)
        speakers[where] = max(speakers.get(where, 0), line.num_speakers)
    rows = [["system", "turns", "speakers", *columns]]
    for where, own in cells.items():
        rows.append([*where, str(speakers[where]), *(own.get(figure, "") for figure in columns)])
    return rows


def draw(lines: Sequence[ConversationScore], title: str) -> Picture:
    """A panel a figure, a line a system, over the blocks; what is of no block is a line across."""
    drawn = [figure for figure in DRAWN if any(line.figure == figure for line in lines)]
    systems = list(dict.fromkeys(line.system for line in lines))
    blocks = sorted({(one.first_turn, one.last_turn) for one in lines if one.first_turn is not None})
    figure = Picture(figsize=(3.7 * len(drawn), 4.2), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for panel, name in zip(panels, drawn, strict=True):
        for number, system in enumerate(systems):
            scores = {one.first_turn: one for one in lines if (one.system, one.figure) == (system, name)}
            _draw_system(panel, scores, [first for first, _ in blocks], number, system)
        named = range(0, len(blocks), -(-len(blocks) // MAX_NAMED))  # more names would lie over each other
        panel.set_xticks(named, [f"{first}-{last}" for first, last in (blocks[position] for position in named)])
        panel.set(title=name, xlabel="turns")
        panel.set_ylim(-0.03, 1.05)  # all are shares
        frame(panel, "top", "right")
    entries = {}
    for panel in panels:
        entries |= {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, frameon=False)
    headline(figure, title)
    return figure


def _draw_system(
    panel: Axes, scores: dict[int | None, ConversationScore], blocks: list[int], number: int, system: str
) -> None:
    if None in scores:
        style = "--" if system == CHANCE else ":"
        panel.axhline(scores[None].value, color=REFERENCE_COLOR, linestyle=style, label=system)
        return
    color = color_of(number)
    shift = 0.07 * (number - 1.5)  # side by side, so that intervals do not hide each other
    points = [(block + shift, scores[first]) for block, first in enumerate(blocks) if first in scores]
    if points:
        x, y = zip(*((x, score.value) for x, score in points), strict=True)
        panel.plot(x, y, "o-", color=color, markersize=4, label=system)
    for x, score in points:
        if score.low is not None:
            panel.vlines(x, score.low, score.high, color=color, alpha=0.35, linewidth=2.5)
