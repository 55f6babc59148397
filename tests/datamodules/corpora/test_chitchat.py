"""Chit-Chat: a tiny file in the published layout, and the real one where its package is installed."""

import importlib.util
import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from datamodules.corpora import ChitChat, Dialogue, Drops, Turn


def message(sender: str, text: str, second: int) -> dict[str, str]:
    return {"sender": sender, "text": text, "timestamp": f"2018-04-01T10:00:{second:02d}.5+00:00"}


def moment(second: int) -> datetime:
    return datetime(2018, 4, 1, 10, 0, second, 500_000, tzinfo=UTC)


def test_conversations_of_two_people_are_read_by_id(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    conversations = {
        "d2": {"messages": [[message("u1", "Any pets?", 3)], [message("u2", "A newt.", 4), message("u2", "Two!", 5)]]},
        "d1": {"messages": [[message("u3", "Hey", 1)], [message("u1", "Hey you", 2)]]},
        "d3": {"messages": [[message("u1", "Anybody?", 6)]]},
    }
    path.write_text(json.dumps(conversations), encoding="utf-8")
    drops = Drops()
    assert list(ChitChat(path).dialogues(drops)) == [
        Dialogue("d1", (Turn("u3", "Hey", moment(1)), Turn("u1", "Hey you", moment(2))), "chitchat"),
        Dialogue("d2", (Turn("u1", "Any pets?", moment(3)), Turn("u2", "A newt. Two!", moment(4))), "chitchat"),
    ]
    assert drops.num_seen == 3
    assert drops.reasons == {"one person only": 1}
    assert drops.reasons.examples["one person only"] == ["d3"]
    assert list(ChitChat(path).profiles()) == []


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("datamodules.corpora.chitchat.distribution", missing)
    with pytest.raises(FileNotFoundError, match="install it with: pip install chitchat-dataset"):
        ChitChat().files  # noqa: B018


@pytest.mark.skipif(importlib.util.find_spec("chitchat_dataset") is None, reason="chitchat-dataset is not installed")
def test_the_published_corpus_has_the_size_we_report() -> None:
    drops = Drops()
    dialogues = list(ChitChat().dialogues(drops))
    assert len(dialogues) == 4_017
    assert sum(len(dialogue.turns) for dialogue in dialogues) == 135_565
    assert drops.num_seen == 7_168
    assert drops.reasons == {"one person only": 3_151}
