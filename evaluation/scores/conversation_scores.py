"""Long conversations, part by part: is the speaker recognised, does their profile show, does the talk go in circles?

Scores are means over speakers of a speaker's mean over conversations.
Intervals are 95 % BCa bootstrap over speakers, then over the conversations of each; that two speakers of one
conversation hang together is left out of account.

Figures, of what one speaker says in a block of turns; the paper has none of them:

    recognised      is the speaker ranked first among all users by a classifier of training turns, from this block alone
    MRR             1 / rank
    agreement       share of the attributes in the speaker's profile (from training posts) to which the network gives
                    the same value from this block alone
    agreement so far      ... from all that the speaker has said up to the end of the block
    as without text       share of these attributes to which it gives, from all so far, the value it gives somebody who
                    has said nothing: what may be no more than its prior
    repeated        share of the turns that repeat an earlier turn of the conversation word for word, whoever said it
    distinct-2      unique bigrams / bigrams of the turns
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.identification import UserClassifier
from evaluation.metrics.text_metrics import Unit, distinct
from evaluation.results.conversations import Part
from evaluation.results.part_profiles import PartProfiles, share_of_equal
from evaluation.statistics.bootstrap import Bootstrap

FIGURES = ("recognised", "MRR", "agreement", "agreement so far", "as without text", "repeated", "distinct-2")
NAMES = {"own": "own adapters", "base": "backbone", "real": "real turns (ceiling)"}
SWAPPED = "own adapters, held to be the partner (floor)"
CHANCE, SILENT = "chance", "without any text"

Rows = dict[tuple[str, int], dict[str, np.ndarray]]
"""(system, block) → speaker → (conversations, figures); not a number where there is none."""


def figures_of_parts(
    parts: Sequence[Part], classifier: UserClassifier, profiles: PartProfiles | None, unit: Unit, swapped: bool = False
) -> Rows:
    """All figures of every part; without profiles no agreement.

    `swapped` is the floor: each part is held to be the partner's. Parts without a partner among the users are left out,
    and so are the figures that do not depend on whose part it is.
    """
    rows: dict[tuple[str, int], dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for part in parts:
        user = part.partner if swapped else part.speaker
        if user is not None:
            figures = _resemblance(part, user, classifier, profiles)
            figures += [np.nan] * 3 if swapped else _habits(part, profiles, unit)
            rows[part.system, part.block][part.speaker].append(figures)
    return {
        block: {speaker: np.array(figures) for speaker, figures in sorted(speakers.items())}
        for block, speakers in rows.items()
    }


def _resemblance(part: Part, user: str, classifier: UserClassifier, profiles: PartProfiles | None) -> list[float]:
    """The figures that say how far a part sounds like a user."""
    top, _, reciprocal = classifier.judge({user: part.turns})[user].mean(axis=0)
    if profiles is None:
        return [top, reciprocal, np.nan, np.nan]
    return [top, reciprocal, *(profiles.agreement(profiles.of(part, so_far), user) for so_far in (False, True))]


def _habits(part: Part, profiles: PartProfiles | None, unit: Unit) -> list[float]:
    """The other figures of a part."""
    as_without = np.nan
    if profiles is not None:
        known = profiles.of_users.get(part.speaker, {})
        as_without = share_of_equal(profiles.of(part, so_far=True), profiles.prior(part.speaker), known)
    bigrams = distinct(part.turns, 2, unit) if any(distinct([turn], 2, unit) for turn in part.turns) else np.nan
    return [as_without, part.num_repeated / len(part.turns), bigrams]


@dataclass(frozen=True)
class ConversationScore:
    """A line of `table.csv`: one figure of one system in one block; an interval is None with too few speakers."""

    system: str
    first_turn: int | None
    last_turn: int | None
    figure: str
    value: float
    low: float | None
    high: float | None
    num_speakers: int


def conversation_scores(
    parts: Sequence[Part],
    training: Mapping[str, Sequence[str]],
    profiles: PartProfiles | None,
    block_turns: int,
    unit: Unit,
    bootstrap: Bootstrap,
) -> list[ConversationScore]:
    """The figures of all systems in every block, of the own adapters held to be the partner, and by chance.

    Args:
        parts: What everybody says in each block.
        training: User → training turns, of all speakers.
        profiles: What a network says of them; None leaves agreement out.
        block_turns: Turns of a block, of both people together.
        unit: What bigrams count.
        bootstrap: Draws the intervals; its seed is that of the classifier, too.
    """
    speakers = sorted({part.speaker for part in parts})
    # As many turns together as a speaker has in a block, so that texts are of the kind that is judged.
    classifier = UserClassifier(
        {user: training[user] for user in speakers}, bundle=-(-block_turns // 2), seed=bootstrap.seed
    )
    own = [part for part in parts if part.system == "own"]
    scores = _of_systems(figures_of_parts(parts, classifier, profiles, unit), NAMES, block_turns, bootstrap)
    swapped = figures_of_parts(own, classifier, profiles, unit, swapped=True)
    scores += _of_systems(swapped, {"own": SWAPPED}, block_turns, bootstrap) + by_chance(len(speakers))
    if profiles is not None:  # what no text can be thanked for
        values = [np.array([profiles.agreement(profiles.prior(user), user)]) for user in speakers]
        scores += _score(SILENT, (None, None), "agreement so far", values, bootstrap)
    return scores


def _of_systems(
    rows: Rows, names: Mapping[str, str], block_turns: int, bootstrap: Bootstrap
) -> list[ConversationScore]:
    """Means and intervals of all figures."""
    order = list(names)
    scores = []
    for (system, block), speakers in sorted(rows.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        turns = (block * block_turns + 1, (block + 1) * block_turns)
        for number, figure in enumerate(FIGURES):
            values = [conversations[:, number] for conversations in speakers.values()]
            scores += _score(names[system], turns, figure, values, bootstrap)
    return scores


def _score(
    system: str, turns: tuple[int | None, int | None], figure: str, speakers: Sequence[np.ndarray], bootstrap: Bootstrap
) -> list[ConversationScore]:
    """One figure from each speaker's values; nothing where nobody has any."""
    known = [values[~np.isnan(values)] for values in speakers]
    sums = [np.column_stack([values, np.ones_like(values)]) for values in known if len(values)]
    if not sums:
        return []

    def mean(totals: np.ndarray) -> np.ndarray:  # (..., speakers, 2)
        return (totals[..., 0] / totals[..., 1]).mean(axis=-1)

    value = mean(np.stack([items.sum(axis=0) for items in sums]))
    low, high = bootstrap.of_users(sums, mean, value).tolist()
    return [ConversationScore(system, *turns, figure, float(value), low, high, len(sums))]


def by_chance(num_users: int) -> list[ConversationScore]:
    """Recognition by a ranking that is drawn: 1 / users, and the mean of 1 / rank."""
    reciprocal = float(np.mean(1 / np.arange(1, num_users + 1)))
    values = (("recognised", 1 / num_users), ("MRR", reciprocal))
    return [ConversationScore(CHANCE, None, None, figure, value, None, None, num_users) for figure, value in values]
