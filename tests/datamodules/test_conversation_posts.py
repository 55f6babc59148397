"""Parts of conversations as evidence: which turns are in which, and which network judges them."""

import hashlib
import json

import pytest

from datamodules import ConversationPosts
from tests.datamodules.test_profile_posts import SMALL, data_of

TURNS = [
    ("own", 0, 0, None, "hello"),
    ("own", 0, 1, "ann", "tea"),
    ("own", 0, 2, "bob", "milk"),
    ("own", 0, 3, "ann", "haha"),
    ("own", 0, 4, "bob", "i'm a man"),  # a label's pattern: hidden where labels are distant
    ("real", 1, 1, None, "and you?"),
    ("real", 1, 2, "bob", "tea tea"),
]


@pytest.fixture
def parts(tmp_path):
    """Makes the module of the conversations above, with a network learnt from invented people."""
    learnt = data_of(tmp_path, stage="fit")
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "vocabulary.json").write_text(learnt.vocabulary())
    keys = ("system", "conversation", "turn", "speaker", "text")
    path = tmp_path / "conversations.jsonl"
    path.write_text("".join(json.dumps(dict(zip(keys, turn, strict=True))) + "\n" for turn in TURNS))

    def build(stage="predict", **settings):
        language, network = tmp_path / "english.yaml", tmp_path / "network"
        given = {"conversations": path, "network": network, "block_turns": 2, **SMALL, **settings}
        data = ConversationPosts(learnt.preparation, language, **given)
        data.setup(stage)
        return data, hashlib.sha256(path.read_bytes()).hexdigest()[:16], learnt

    return build


def test_parts_by_hand(parts):
    data, fingerprint, _ = parts(posts_per_chunk=150)
    assert texts_of(data) == {
        f"{fingerprint}/own/0/1-2/ann": ["tea"],
        f"{fingerprint}/own/0/1-2/bob": ["milk"],
        f"{fingerprint}/own/0/3-4/ann": ["haha"],
        f"{fingerprint}/own/0/3-4/bob": ["i'm a man"],
        f"{fingerprint}/own/0/1-4/ann": ["tea", "haha"],
        f"{fingerprint}/own/0/1-4/bob": ["milk", "i'm a man"],
        f"{fingerprint}/real/1/1-2/bob": ["tea tea"],
        f"{fingerprint}/prior/0/0-0/ann": [""],
        f"{fingerprint}/prior/0/0-0/bob": [""],
    }
    answered = {chunk.user: chunk.answered for chunk in data.chunks}
    assert answered[f"{fingerprint}/own/0/1-4/bob"] == ("tea", "haha")
    assert answered[f"{fingerprint}/own/0/1-4/ann"] == ("hello", "milk")


def texts_of(data):
    return {chunk.user: [post.text for post in chunk.posts] for chunk in data.chunks}


def test_a_speaker_is_judged_by_the_network_that_has_not_seen_them(parts):
    data, _, learnt = parts()
    batch = data.batch(range(len(data.chunks)))
    expected = [learnt.folds[chunk.user.rpartition("/")[2]] for chunk in data.chunks]
    assert batch.learner.tolist() == expected
    assert len(set(expected)) == 2


def test_turns_that_make_distant_labels_are_hidden(parts):
    data, fingerprint, _ = parts(labels="distant", posts_per_chunk=150)
    found = texts_of(data)
    assert found[f"{fingerprint}/own/0/1-4/bob"] == ["milk"]
    assert f"{fingerprint}/own/0/3-4/bob" not in found


def test_nothing_said_is_no_evidence(parts):
    data, _, _ = parts()
    rows = [row for row, chunk in enumerate(data.chunks) if "/prior/" in chunk.user]
    assert not any(len(facts.degrees) for facts in data.batch(rows).facts.values())


def test_what_is_wrong_is_said(parts, tmp_path):
    with pytest.raises(FileNotFoundError, match="make them with: lightning predict --config experiments/conv"):
        parts(conversations=tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="teach a network nothing"):
        parts(stage="fit")
    with pytest.raises(ValueError, match="block_turns must be 1 or more"):
        parts(block_turns=0)
