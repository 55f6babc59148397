"""RealPersonaChat: Japanese text chats between people who describe themselves.

The published folder has `dialogues/NNNNN.json` and `interlocutors.json`: demographic attributes that the speakers
declare, and their ten sentences, which become the attribute `persona`.

Yamashita et al., PACLIC 2023; https://github.com/nu-dialogue/real-persona-chat

Terms: CC BY-SA 4.0, and the authors' conditions, which we keep: do not try to identify a person; do not use the corpus
to impersonate a particular speaker; when inferring attributes, mind those who would not want it. So it is used in
aggregate only (profile inference, profile-conditioned generation), and no adapter of one of its speakers is trained.

A dialogue's id is the name of its file: `dialogue_id` is not unique (11052.json calls itself 11838). A few chats were
published under two names; a preparation drops the second, or the same words could stand in training and in test.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from .jsonl import expect, parse_object, take
from .records import Corpus, Dialogue, Drops, Malformed, Profile, Turn, two_people

ATTRIBUTES = ("gender", "age", "education", "employment_status", "region_of_residence")
ORIGIN = "RealPersonaChat comes from https://github.com/nu-dialogue/real-persona-chat"


class RealPersonaChat(Corpus):
    """Reads the published folder of RealPersonaChat.

    Args:
        root: the folder that contains `dialogues/` and `interlocutors.json`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def files(self) -> list[Path]:
        dialogues = sorted((self.root / "dialogues").glob("*.json"))
        if not dialogues:
            raise FileNotFoundError(f"no {self.root / 'dialogues'}/*.json found; {ORIGIN}")
        interlocutors = self.root / "interlocutors.json"
        if not interlocutors.is_file():
            raise FileNotFoundError(f"{interlocutors} not found; {ORIGIN}")
        return [*dialogues, interlocutors]

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        *paths, _ = self.files
        for path in paths:
            with drops.dialogue(path.name):
                messages = _messages(parse_object(path.read_bytes()))
                yield two_people(path.stem, messages, "real_persona_chat", drops.people)

    def profiles(self) -> Iterator[Profile]:
        """Yields what speakers state under the corpus' own names; "None" as an employment status is a value."""
        path = self.files[-1]
        try:
            people = parse_object(path.read_bytes())
            for user in sorted(people):
                person = expect(people[user], dict, user)
                declared = take(person, "demographic_information", dict, user, may_be_empty=True)
                values = {name: take(declared, name, str, user) for name in ATTRIBUTES if declared.get(name)}
                sentences = take(person, "persona", list, user) if person.get("persona") else []
                if sentences:
                    values["persona"] = " ".join(expect(sentence, str, f"{user}.persona") for sentence in sentences)
                if values:
                    yield Profile(user, values, "declared")
        except Malformed as error:
            raise ValueError(f"{path}: {error.reason}: {error}") from None


def _messages(record: dict[str, Any]) -> list[Turn]:
    utterances = take(record, "utterances", list)
    return [_message(expect(item, dict, f"utterances[{i}]"), f"utterances[{i}]") for i, item in enumerate(utterances)]


def _message(utterance: dict[str, Any], name: str) -> Turn:
    stamp = take(utterance, "timestamp", str, name)
    try:
        time = None if stamp == "NaT" else datetime.fromisoformat(stamp)
    except ValueError:
        raise Malformed("bad time", f"got {stamp[:40]!r} for {name}.timestamp, expected ISO 8601 or NaT") from None
    speaker = take(utterance, "interlocutor_id", str, name)
    return Turn(speaker, take(utterance, "text", str, name, may_be_empty=True), time)
