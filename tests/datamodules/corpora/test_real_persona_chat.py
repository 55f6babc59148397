"""RealPersonaChat: a tiny folder in the published layout, and the shared archive where there is one."""

import json
import tarfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from datamodules.corpora import Dialogue, Drops, Profile, RealPersonaChat, Turn
from datamodules.preparation.settings import Preparation

ARCHIVE = Path(__file__).parents[4] / "shared" / "data" / "real_persona_chat.tar.xz"
DECLARED = {
    "gender": "Female",
    "age": "20-29",
    "education": "Postgraduate",
    "employment_status": "Student",
    "region_of_residence": "Nara",
}
PEOPLE = {
    "BB": {"demographic_information": {"gender": "Other", "age": "", "education": None, "employment_status": "None"}},
    "AA": {
        "persona": ["I like tea.", "I have a cat."],
        "demographic_information": {**DECLARED, "shoe_size": "23"},
    },
    "CC": {"demographic_information": {}},
}


def utterance(speaker: str, text: str, stamp: str = "NaT") -> dict[str, Any]:
    return {"utterance_id": 0, "interlocutor_id": speaker, "text": text, "timestamp": stamp}


def chat(*utterances: Any) -> dict[str, Any]:
    return {"dialogue_id": 1, "interlocutors": ["AA", "BB"], "utterances": list(utterances), "evaluations": []}


FIRST = chat(
    utterance("AA", "はじめまして", "2022-08-06T14:51:18.360000"), utterance("BB", "どうも", "2022-08-06T14:52:00")
)
FIRST_READ = Dialogue(
    "00001",
    (
        Turn("AA", "はじめまして", datetime(2022, 8, 6, 14, 51, 18, 360_000)),
        Turn("BB", "どうも", datetime(2022, 8, 6, 14, 52)),
    ),
    "real_persona_chat",
)


def write(root: Path, people: Any = PEOPLE, **chats: Any) -> RealPersonaChat:
    (root / "dialogues").mkdir()
    for name, content in chats.items():
        raw = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
        (root / "dialogues" / f"{name.removeprefix('n')}.json").write_bytes(raw)
    (root / "interlocutors.json").write_text(json.dumps(people, ensure_ascii=False), encoding="utf-8")
    return RealPersonaChat(root)


def test_dialogues_are_read_in_the_order_of_their_files(tmp_path: Path) -> None:
    second = chat(utterance("BB", "<AA>さん、"), utterance("BB", "いますか"), utterance("AA", "はい"))
    drops = Drops()
    assert list(write(tmp_path, n00002=second, n00001=FIRST).dialogues(drops)) == [
        FIRST_READ,
        Dialogue("00002", (Turn("BB", "<AA>さん、 いますか"), Turn("AA", "はい")), "real_persona_chat"),
    ]
    assert (drops.num_seen, drops.reasons.total()) == (2, 0)


def test_profiles_are_what_is_declared(tmp_path: Path) -> None:
    assert list(write(tmp_path, n00001=FIRST).profiles()) == [
        Profile("AA", {**DECLARED, "persona": "I like tea. I have a cat."}, "declared"),
        Profile("BB", {"gender": "Other", "employment_status": "None"}, "declared"),
    ]


@pytest.mark.parametrize(
    ("content", "reason", "where"),
    [
        (b"{", "not JSON", "00002.json: got 'Expecting property name enclosed in double quotes' at column 2"),
        (b'"\xff"', "not UTF-8", "00002.json: got invalid start byte, expected UTF-8"),
        (b"[]", "wrong type", "00002.json: got a list for the whole, expected an object"),
        ({"dialogue_id": 2}, "missing key", "00002.json: got no key utterances, expected a list there"),
        (chat(), "empty value", "00002.json: got a list with nothing in it for utterances"),
        (chat("hi"), "wrong type", "00002.json: got a string for utterances[0], expected an object"),
        (chat({"timestamp": "NaT"}), "missing key", "00002.json: got no key utterances[0].interlocutor_id"),
        (
            chat(utterance("AA", "え", "soon")),
            "bad time",
            "00002.json: got 'soon' for utterances[0].timestamp, expected",
        ),
        (chat(utterance("AA", "え")), "one person only", "00002.json"),
        (chat(utterance("AA", " ")), "no text", "00002.json"),
    ],
)
def test_a_broken_dialogue_is_counted(tmp_path: Path, content: Any, reason: str, where: str) -> None:
    drops = Drops()
    assert list(write(tmp_path, n00001=FIRST, n00002=content).dialogues(drops)) == [FIRST_READ]
    assert drops.num_seen == 2
    assert list(drops.reasons.examples) == [reason]
    assert drops.reasons.examples[reason][0].startswith(where)


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ([], "wrong type: got a list for the whole, expected an object"),
        ({"AA": []}, "wrong type: got a list for AA, expected an object"),
        ({"AA": {}}, "missing key: got no key AA.demographic_information, expected an object there"),
        ({"AA": {"demographic_information": {"age": 20}}}, "wrong type: got a number for AA.age, expected a string"),
    ],
)
def test_broken_declarations_are_an_error(tmp_path: Path, people: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"interlocutors\.json: " + message):
        list(write(tmp_path, people, n00001=FIRST).profiles())


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="the shared archive is not here")
def test_the_shared_archive_has_the_size_we_report(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    corpus = RealPersonaChat(tmp_path / "real_persona_chat")
    drops = Drops()
    dialogues = list(Preparation(corpus, tmp_path / "out").dialogues(drops))
    profiles = list(corpus.profiles())
    speakers = {turn.speaker for dialogue in dialogues for turn in dialogue.turns}
    assert drops.num_seen == 9_934
    assert drops.reasons == {"the same turns as an earlier dialogue": 5}
    assert len({dialogue.id for dialogue in dialogues}) == 9_929
    assert sum(len(dialogue.turns) for dialogue in dialogues) == 298_636
    assert len(profiles) == 197
    assert len(speakers) == 195  # two of the 197 who are described speak in none of the archive's dialogues
    assert speakers <= {profile.user for profile in profiles}
    assert all(len(profile.attributes) == 6 for profile in profiles)
