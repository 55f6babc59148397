"""Long conversations, part by part: is the speaker recognised, does their profile show, does the talk go in circles?

In: `conversations.jsonl` (`callbacks/conversation_writer.py`), users' training turns, and what a Markov logic network
says of each part (`datamodules/conversation_posts.py`) and of the users' training posts. Out: for each system and
block of turns the figures of every speaker in every conversation, so that the caller can average and draw speakers.

Figures (`FIGURES`), of what one speaker says in a block of turns; the paper has none of them:

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

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.metrics.identification import UserClassifier
from evaluation.metrics.text_metrics import Unit, distinct

FIGURES = ("recognised", "MRR", "agreement", "agreement so far", "as without text", "repeated", "distinct-2")
KEYS = {"system": str, "conversation": int, "turn": int, "speaker": str | None, "text": str}

Profile = Mapping[str, str]
"""Attribute → value."""


@dataclass(frozen=True)
class Part:
    """What one speaker says in one block of a conversation.

    Attributes:
        system: `own`, `base` or `real`.
        conversation: its number within the system.
        block: 0 for the first block.
        speaker: who speaks.
        partner: the other speaker; None where nobody else is one of the users.
        turns: what they say, in order.
        num_repeated: how many of these turns stood in the conversation before.
    """

    system: str
    conversation: int
    block: int
    speaker: str
    partner: str | None
    turns: tuple[str, ...]
    num_repeated: int


def read_parts(path: Path, block_turns: int) -> list[Part]:
    """Reads conversations and cuts them into blocks of so many turns.

    Raises:
        FileNotFoundError: there are none; says which command makes them.
        ValueError: a line is malformed, a turn comes twice, or nobody speaks; names file and line, and quotes nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no conversations in {path}; make them with: lightning predict --config experiments/conversations.yaml"
        )
    talks: dict[tuple[str, int], dict[int, tuple[str | None, str]]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, text in enumerate(file, start=1):
            line = _line(text, f"{path}, line {number}")
            turns = talks[line["system"], line["conversation"]]
            if line["turn"] in turns:
                raise ValueError(f"{path}, line {number}: turn {line['turn']} of this conversation comes twice")
            turns[line["turn"]] = (line["speaker"], line["text"])
    parts = [part for (system, number), turns in talks.items() for part in _cut(system, number, turns, block_turns)]
    if not parts:
        raise ValueError(f"{path}: nobody speaks in it; make it anew")
    return parts


def _line(text: str, where: str) -> dict:
    try:
        line = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON ({error.msg} at character {error.pos})") from None
    line = line if isinstance(line, dict) else {}
    wrong = [key for key, kind in KEYS.items() if key not in line or not isinstance(line[key], kind)]
    if wrong:
        raise ValueError(f"{where}: expected the keys {', '.join(KEYS)}; missing or of another type: {wrong}")
    return line


def _cut(system: str, number: int, turns: dict[int, tuple[str | None, str]], block_turns: int) -> list[Part]:
    people = sorted({speaker for speaker, _ in turns.values() if speaker is not None})
    said: set[str] = set()
    texts: dict[tuple[int, str], list[str]] = defaultdict(list)
    repeated: dict[tuple[int, str], int] = defaultdict(int)
    for turn, (speaker, text) in sorted(turns.items()):
        if speaker is not None:
            where = ((turn - 1) // block_turns, speaker)
            texts[where].append(text)
            repeated[where] += text in said
        said.add(text)
    return [
        Part(
            system, number, block, speaker, next((one for one in people if one != speaker), None), tuple(own),
            repeated[block, speaker],
        )
        for (block, speaker), own in sorted(texts.items())
    ]  # fmt: skip


@dataclass(frozen=True)
class Judgements:
    """What a network says of parts of conversations, and of the speakers' training posts.

    Args:
        values: name of a part, as `datamodules/conversation_posts.py` makes it → attribute → value.
        profiles: user → attribute → value, from training posts.
        conversations: fingerprint of the conversations.
        block_turns: turns of a block.
    """

    values: Mapping[str, Profile]
    profiles: Mapping[str, Profile]
    conversations: str
    block_turns: int

    def prior(self, user: str) -> Profile:
        """What the network says of a speaker who says nothing."""
        return self.values[f"{self.conversations}/prior/0/0-0/{user}"]

    def of(self, part: Part, so_far: bool) -> Profile:
        """What it says of a part; of one of which nothing is looked at, what it says without any text."""
        first = 1 if so_far else part.block * self.block_turns + 1
        span = f"{first}-{(part.block + 1) * self.block_turns}"
        name = f"{self.conversations}/{part.system}/{part.conversation}/{span}/{part.speaker}"
        return self.values.get(name) or self.prior(part.speaker)

    def agreement(self, values: Profile, user: str) -> float:
        """Share of the attributes in a user's profile with these values; not a number where the profile is empty."""
        return share_of_equal(self.profiles.get(user, {}), values, self.profiles.get(user, {}))


def share_of_equal(one: Profile, other: Profile, attributes: Profile) -> float:
    """Of these attributes, the share to which both give the same value; not a number where there are none."""
    return float(np.mean([one.get(a) == other.get(a) for a in attributes])) if attributes else np.nan


def read_judgements(
    judged: Path, profiles: Path, conversations: Path, block_turns: int, parts: Sequence[Part]
) -> Judgements:
    """Reads what a network says of the conversations, and of the users.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it is about other conversations, or blocks of another size.
    """
    fingerprint = hashlib.sha256(conversations.read_bytes()).hexdigest()[:16]
    values = _profiles(judged, "lightning predict --config experiments/conversation_profiles.yaml")
    others = sorted({name.split("/")[0] for name in values} - {fingerprint})
    if others:
        raise ValueError(
            f"{judged} is about the conversations {others[0]}, but {conversations} is {fingerprint}; predict anew "
            "with: lightning predict --config experiments/conversation_profiles.yaml"
        )
    found = {name.split("/")[3] for name in values} - {"0-0"}
    expected = {f"{part.block * block_turns + 1}-{(part.block + 1) * block_turns}" for part in parts}
    if found and not expected <= found:
        raise ValueError(
            f"{judged} has no judgements of the turns {sorted(expected - found)[0]}, only of {sorted(found)}; set "
            "block_turns to the data.block_turns of that prediction"
        )
    known = _profiles(profiles, "lightning predict --config experiments/<the network's experiment>.yaml")
    judgements = Judgements(values, known, fingerprint, block_turns)
    if silent := sorted({part.speaker for part in parts} - {name.split("/", 4)[4] for name in values}):
        raise ValueError(
            f"{judged} has no judgements of {len(silent)} speakers, among them {silent[0]!r}; predict anew"
        )
    return judgements


def _profiles(path: Path, command: str) -> dict[str, dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"no profiles in {path}; make them with: {command}")
    try:
        rows = pq.read_table(path, columns=["user", "attribute", "value"]).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} cannot be read as profiles ({error}); write it anew") from None
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        found[row["user"]][row["attribute"]] = row["value"]
    return dict(found)


Rows = dict[tuple[str, int], dict[str, np.ndarray]]
"""(system, block) → speaker → (conversations, figures); not a number where there is none."""


def figures_of_parts(
    parts: Sequence[Part], classifier: UserClassifier, judgements: Judgements | None, unit: Unit
) -> Rows:
    """All figures of every part."""

    def figures(part: Part) -> list[float]:
        top, _, reciprocal = classifier.judge({part.speaker: part.turns})[part.speaker].mean(axis=0)
        bigrams = distinct(part.turns, 2, unit) if any(distinct([turn], 2, unit) for turn in part.turns) else np.nan
        profile = [np.nan] * 3
        if judgements is not None:
            own, so_far = judgements.of(part, so_far=False), judgements.of(part, so_far=True)
            known = judgements.profiles.get(part.speaker, {})
            profile = [judgements.agreement(values, part.speaker) for values in (own, so_far)]
            profile.append(share_of_equal(so_far, judgements.prior(part.speaker), known))
        return [top, reciprocal, *profile, part.num_repeated / len(part.turns), bigrams]

    return _rows(parts, figures)


def figures_of_partners(parts: Sequence[Part], classifier: UserClassifier, judgements: Judgements | None) -> Rows:
    """The floor: the same parts, held to be the partner's; those without a partner among the users are left out."""

    def figures(part: Part) -> list[float]:
        top, _, reciprocal = classifier.judge({part.partner: part.turns})[part.partner].mean(axis=0)
        profile = [np.nan] * 2
        if judgements is not None:
            both = judgements.of(part, so_far=False), judgements.of(part, so_far=True)
            profile = [judgements.agreement(values, part.partner) for values in both]
        return [top, reciprocal, *profile, np.nan, np.nan, np.nan]

    return _rows([part for part in parts if part.partner is not None], figures)


def _rows(parts: Sequence[Part], figures: Callable[[Part], list[float]]) -> Rows:
    found: dict[tuple[str, int], dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for part in parts:
        found[part.system, part.block][part.speaker].append(figures(part))
    return {
        where: {speaker: np.array(rows) for speaker, rows in sorted(speakers.items())}
        for where, speakers in found.items()
    }
