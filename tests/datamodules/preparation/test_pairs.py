"""Reply pairs: every turn that answers another one, with its context."""

from __future__ import annotations

from datetime import UTC, datetime

from datamodules.corpora import Dialogue, Turn
from datamodules.preparation.pairs import ReplyPair, reply_pairs
from datamodules.preparation.splits import stable_hash

TIME = datetime(2024, 3, 1, tzinfo=UTC)
DIALOGUE = Dialogue(
    "d", (Turn("ada", "hi"), Turn("ben", "hi"), Turn("ada", "tea?", TIME), Turn("ben", "yes")), "invented"
)


def test_every_turn_but_the_first_is_a_response() -> None:
    assert list(reply_pairs(DIALOGUE, None, max_context_turns=2)) == [
        ReplyPair(stable_hash("d", 1), "d", 1, speaker="ben", partner="ada", num_context=1, time=None),
        ReplyPair(stable_hash("d", 2), "d", 2, speaker="ada", partner="ben", num_context=2, time=TIME),
        ReplyPair(stable_hash("d", 3), "d", 3, speaker="ben", partner="ada", num_context=2, time=None),
    ]


def test_of_one_author_only_the_own_responses() -> None:
    pairs = list(reply_pairs(DIALOGUE, "ben", max_context_turns=4))
    assert [(pair.position, pair.speaker, pair.num_context) for pair in pairs] == [(1, "ben", 1), (3, "ben", 3)]
    assert list(reply_pairs(DIALOGUE, "cleo", max_context_turns=4)) == []


def test_ids_are_unique_within_a_dialogue_and_between_dialogues() -> None:
    other = Dialogue("e", DIALOGUE.turns, "invented")
    ids = [pair.id for dialogue in (DIALOGUE, other) for pair in reply_pairs(dialogue, None, 4)]
    assert len(set(ids)) == 6


def test_a_single_turn_answers_nothing() -> None:
    assert list(reply_pairs(Dialogue("d", DIALOGUE.turns[:1], "invented"), None, 4)) == []
