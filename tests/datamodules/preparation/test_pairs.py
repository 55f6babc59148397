"""Reply pairs: every turn that answers another one, with its context."""

from __future__ import annotations

from datetime import UTC, datetime

from datamodules.corpora import Dialogue, Turn
from datamodules.preparation.pairs import reply_pairs
from datamodules.preparation.splits import stable_hash

TIME = datetime(2024, 3, 1, tzinfo=UTC)
TURNS = (Turn("ada", "hi"), Turn("ben", "hi"), Turn("ada", "tea?"), Turn("ben", "yes", TIME))
DIALOGUE = Dialogue("d", TURNS, "invented")
IDS = [[7], [8, 9], [10, 11, 12], [13]]


def test_every_turn_but_the_first_is_a_response() -> None:
    first, second, third = reply_pairs(DIALOGUE, IDS, None, max_context_turns=2)
    assert [first[name] for name in ("position", "speaker", "context_ids", "time")] == [1, "ben", [7], None]
    assert [second[name] for name in ("position", "speaker", "context_ids", "time")] == [2, "ada", [7, 8, 9], None]
    assert third == {
        "pair_id": stable_hash("d", 3),
        "dialogue_id": "d",
        "position": 3,
        "speaker": "ben",
        "partner": "ada",
        "context_ids": [8, 9, 10, 11, 12],
        "context_lengths": [2, 3],
        "context_speakers": [0, 1],
        "response_ids": [13],
        "time": TIME,
    }


def test_of_one_author_only_the_own_responses() -> None:
    pairs = reply_pairs(DIALOGUE, IDS, "ben", max_context_turns=4)
    assert [(pair["position"], pair["speaker"], len(pair["context_lengths"])) for pair in pairs] == [
        (1, "ben", 1),
        (3, "ben", 3),
    ]
    assert list(reply_pairs(DIALOGUE, IDS, "cleo", max_context_turns=4)) == []


def test_ids_are_unique_within_a_dialogue_and_between_dialogues() -> None:
    dialogues = (DIALOGUE, Dialogue("e", TURNS, "invented"), Dialogue("f", TURNS[:1], "invented"))  # f: no answer
    assert len({pair["pair_id"] for dialogue in dialogues for pair in reply_pairs(dialogue, IDS, None, 4)}) == 6
