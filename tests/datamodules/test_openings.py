"""How conversations begin: who with whom, with whose words; and what is read in them."""

import pytest

from datamodules import Openings
from datamodules.batches import ConversationBatch
from datamodules.corpora import Drops
from datamodules.openings import pairs_of
from datamodules.preparation.splits import split_dialogues


@pytest.fixture
def test_dialogues(invented_corpus, split_rule):
    """User → their test dialogues, straight from the corpus: lists of (is the user, text)."""
    _, splits = split_dialogues(list(invented_corpus.dialogues(Drops())), split_rule)
    found = {}
    for dialogue, user in splits["users/test"]:
        found.setdefault(user, []).append([(turn.speaker == user, turn.text) for turn in dialogue.turns])
    return found


def opened(preparation, **settings):
    data = Openings(preparation, **settings)
    data.setup("predict")
    return data


def test_everybody_meets_everybody_once_before_anybody_again():
    for users, rounds in (("abcdef", 5), ("abcde", 5)):
        pairs = pairs_of(users, 3 * rounds if len(users) == 6 else 2 * rounds, seed=1)
        assert len({frozenset(pair) for pair in pairs}) == len(users) * (len(users) - 1) / 2
        first = [user for pair in pairs[: len(users) // 2] for user in pair]
        assert len(set(first)) == len(first) == len(users) // 2 * 2
    assert pairs_of("abcdef", None, 1) == pairs_of("abcdef", 9, 1)[:3]
    assert pairs_of("abcdef", None, 2) != pairs_of("abcdef", None, 1)
    assert len(pairs_of("ab", 3, 0)) == 3


@pytest.mark.parametrize("opening_turns", [1, 2, 3, 6])
def test_openings_are_first_turns_of_test_dialogues(preparation, test_dialogues, opening_turns):
    data = opened(preparation, num_conversations=12, opening_turns=opening_turns)
    batch = data.conversations()
    owners = set()
    for people, turns in zip(batch.people, batch.turns, strict=True):
        heard = [(people[side], data.prompts.tokenizer.decode(ids)) for side, ids in turns]
        assert turns[-1][0] == 1  # the other one is next
        owner = [
            user
            for user in people
            if any(
                [(who == user, text) for who, text in heard] == dialogue[:opening_turns]
                for dialogue in test_dialogues[user]
            )
        ]
        assert len(owner) == 1
        owners |= set(owner)
    assert owners == {"ada", "ben", "cleo", "dan"}


def test_real_turns_are_the_replies_of_the_test_with_what_they_answer(preparation, test_dialogues):
    data = opened(preparation)
    expected = [pair for talk in test_dialogues["cleo"] for pair in talk[: 2 * (len(talk) // 2)]]  # guests begin
    assert data.real_turns("cleo", 99) == expected
    assert data.real_turns("cleo", 3) == expected[:3]


def test_what_is_read_is_the_end_of_the_context(preparation):
    data = opened(preparation, max_context_tokens=9)
    speaker, partner = data.prompts.markers.tolist()
    turns = [[(0, [300]), (1, [301]), (0, [302, 303]), (1, [304]), (0, [305, 306, 307])]]
    batch = ConversationBatch([0], [("ada", "ben")], turns)
    read = data.read(batch, turns, now=1)
    whole = [speaker, 301, partner, 302, 303, speaker, 304, partner, 305, 306, 307]  # the last 4 turns, 11 ids
    row = [partner, *whole[3:]][-9:]
    row[0] = partner  # a turn that is cut keeps its marker
    assert read.input_ids[0][read.attention_mask[0] == 1].tolist() == [*row, data.prompts.eos]
    assert data.read(batch, turns, now=0).input_ids[0][0] == speaker


def test_what_is_wrong_is_said(preparation):
    with pytest.raises(ValueError, match=r"needs two users, got \['ada'\]"):
        opened(preparation, users="ada")
    with pytest.raises(ValueError, match=r"of 50 turns or more; lower data\.opening_turns"):
        opened(preparation, opening_turns=50).conversations()
    for name in ("num_conversations", "opening_turns", "conversations_per_batch"):
        with pytest.raises(ValueError, match=rf"data\.{name} must be 1 or more, got 0"):
            Openings(preparation, **{name: 0})
