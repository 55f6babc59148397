"""Reply pairs: who answers whom, with which turns before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from datamodules.corpora.records import Dialogue

from .splits import stable_hash


@dataclass(frozen=True, slots=True)
class ReplyPair:
    """The turn at `position` as the response to the `num_context` turns before it.

    `speaker` wrote the response, `partner` is the other one; `id` is a 63-bit hash of dialogue and position.
    """

    id: int
    dialogue_id: str
    position: int
    speaker: str
    partner: str
    num_context: int
    time: datetime | None


def reply_pairs(dialogue: Dialogue, author: str | None, max_context_turns: int) -> Iterator[ReplyPair]:
    """Yields a pair for every turn that answers another one.

    Args:
        dialogue: alternating turns of two people.
        author: only pairs whose response this person wrote; None takes both people's.
        max_context_turns: most turns before the response (about 4 in the authors' earlier public model;
            not stated in the paper).
    """
    turns = dialogue.turns
    for position in range(1, len(turns)):
        turn = turns[position]
        if author is None or turn.speaker == author:
            yield ReplyPair(
                id=stable_hash(dialogue.id, position),
                dialogue_id=dialogue.id,
                position=position,
                speaker=turn.speaker,
                partner=turns[position - 1].speaker,
                num_context=min(position, max_context_turns),
                time=turn.time,
            )
