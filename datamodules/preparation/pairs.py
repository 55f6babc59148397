"""Reply pairs: who answers whom, with which turns before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datamodules.corpora.records import Dialogue

from .splits import stable_hash


def reply_pairs(
    dialogue: Dialogue, turn_ids: Sequence[Sequence[int]], author: str | None, max_context_turns: int
) -> Iterator[dict[str, Any]]:
    """Yields a row of a shard for every turn that answers another one; `turn_ids` has the ids of each turn.

    If an author is given, only pairs whose response this person wrote.
    """
    turns = dialogue.turns
    for position in range(1, len(turns)):
        turn = turns[position]
        if author is None or turn.speaker == author:
            context = range(max(0, position - max_context_turns), position)
            yield {
                "pair_id": stable_hash(dialogue.id, position),
                "dialogue_id": dialogue.id,
                "position": position,
                "speaker": turn.speaker,
                "partner": turns[position - 1].speaker,
                "context_ids": [id for before in context for id in turn_ids[before]],
                "context_lengths": [len(turn_ids[before]) for before in context],
                "context_speakers": [int(turns[before].speaker != turn.speaker) for before in context],
                "response_ids": turn_ids[position],
                "time": turn.time,
            }
