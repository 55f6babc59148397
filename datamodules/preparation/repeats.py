"""Dialogues that a corpus has twice, such as one chat that was exported twice: in training and in test, they leak."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

from datamodules.corpora.records import Dialogue

from .splits import comparable

Pace = tuple[timedelta, ...] | None


class Told:
    """The dialogues that were met.

    Two are the same if the same people say the same, at the same pace. Times themselves don't count, because another
    export may have another zone; without them only the words do. Two people may well say `hi` and `hello` every day,
    but hardly with the same pause.
    """

    def __init__(self) -> None:
        self._paces: dict[int, set[Pace]] = defaultdict(set)

    def again(self, dialogue: Dialogue) -> bool:
        """Whether it is the same as one before; it counts as met from now on."""
        paces = self._paces[hash(tuple((turn.speaker, turn.text) for turn in dialogue.turns))]
        pace = _pace(dialogue)
        is_known = pace in paces or (bool(paces) and None in (pace, *paces))
        paces.add(pace)
        return is_known


def _pace(dialogue: Dialogue) -> Pace:
    """The time from the first turn to each; None if a turn has no time."""
    times = [turn.time and comparable(turn.time) for turn in dialogue.turns]
    return None if None in times else tuple(time - times[0] for time in times)
