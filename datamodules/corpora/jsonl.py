"""Your own dialogues, in a schema of two small files.

Both are UTF-8 text with one JSON object a line.

Dialogues file, one dialogue a line (wrapped here):

    {"id": "2024-05-01/17",
     "turns": [{"speaker": "hana", "text": "Are you up?", "time": "2024-05-01T07:30:00+09:00"},
               {"speaker": "ken",  "text": "Just about."}]}

    id       a string that is not empty and no other line has.
    turns    a list with at least one turn, in the order in which they were said.
    speaker  a string that is not empty: the same for the same person in every dialogue.
    text     a string. White space is folded; consecutive turns of one speaker become one; one without a visible letter
             is dropped.
    time     optional, or null: ISO 8601, with an offset, with `Z`, or without a zone, which is read as UTC. Given for
             all dialogues it decides which ones are held out: the latest.

Ids of people are read in Unicode NFC, without control and invisible letters and blanks around them.

After that a dialogue must have exactly two speakers. A line that breaks these rules is dropped and counted with its
number, what was got and what was expected.

Profiles file, one user a line (two lines are right where their origins differ):

    {"user": "hana", "attributes": {"age": "20-29", "region": "Osaka"}, "origin": "declared"}

    user        a speaker of the dialogues file.
    attributes  attribute -> value, both strings. What is not known is left out: no null, no "".
    origin      optional: "declared" by the user (the default), "distant" (read off phrases such as "I live in X") or
                "inferred" by a model.

A profile line that breaks these rules is a ValueError. In both files blank lines, a byte order mark and other keys
than these are ignored.

Terms: yours. Have the consent of the people whose words these are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from .records import Corpus, Dialogue, Drops, Malformed, Profile, Turn, two_people

T = TypeVar("T", str, list, dict)

ORIGINS = ("declared", "distant", "inferred")
JSON_WORDS = {str: "a string", list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
OTHER_FORMS = {
    b"\x1f\x8b": "gzip: unpack it",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
}
"""First bytes of a file → what it is, and what to do."""
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Jsonl(Corpus):
    """Reads dialogues and profiles in our own schema, which this module's docstring describes.

    Args:
        dialogues_path: one dialogue a line.
        profiles_path: one user's profile a line; None if there are no profiles.
    """

    def __init__(self, dialogues_path: Path, profiles_path: Path | None = None) -> None:
        self.dialogues_path = dialogues_path
        self.profiles_path = profiles_path

    @property
    def files(self) -> list[Path]:
        files = [self.dialogues_path] + ([self.profiles_path] if self.profiles_path else [])
        for path, what in zip(files, ("dialogues", "profiles"), strict=False):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} not found; it should be your own {what} file in the schema of datamodules/corpora/jsonl.py"
                )
        return files

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        path = self.files[0]
        ids: set[str] = set()
        for number, raw in numbered_lines(path):
            with drops.dialogue(f"{path.name}:{number}"):
                id, messages = _dialogue(parse_object(raw))
                if id in ids:
                    raise Malformed("duplicate id", f"got the id {id!r} again, expected another one on every line")
                ids.add(id)
                yield two_people(id, messages, "jsonl", drops.people)

    def profiles(self) -> Iterator[Profile]:
        if self.profiles_path is None:
            return
        path = self.files[1]
        known: set[tuple[str, str]] = set()
        for number, raw in numbered_lines(path):
            try:
                profile = _profile(parse_object(raw))
                if (profile.user, profile.origin) in known:
                    raise Malformed("duplicate user", f"got a second {profile.origin} profile of {profile.user!r}")
            except Malformed as error:
                raise ValueError(f"{path}:{number}: {error.reason}: {error}") from None
            known.add((profile.user, profile.origin))
            yield profile


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that these bytes hold; Malformed says why they do not."""
    try:
        text = raw.decode("utf-8-sig")
        value = json.loads(text)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could never be written again
    except UnicodeError as error:
        raise Malformed("not UTF-8", f"got {error.reason}, expected UTF-8") from None
    except json.JSONDecodeError as error:
        raise Malformed("not JSON", f"got {error.msg!r} at column {error.colno}, expected one JSON object") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise Malformed("not JSON", f"got {error}, expected one JSON object") from None
    return expect(value, dict, "the whole")


def expect(value: Any, kind: type[T], name: str) -> T:
    """`value`, if it is of this kind; Malformed otherwise."""
    if not isinstance(value, kind):
        got = JSON_WORDS.get(type(value), "a number")
        raise Malformed("wrong type", f"got {got} for {name}, expected {JSON_WORDS[kind]}")
    return value


def take(record: dict[str, Any], key: str, kind: type[T], within: str = "", may_be_empty: bool = False) -> T:
    """The value of this kind under `key` of the object called `within`; Malformed if there is none."""
    name = f"{within}.{key}" if within else key
    if key not in record:
        raise Malformed("missing key", f"got no key {name}, expected {JSON_WORDS[kind]} there")
    value = expect(record[key], kind, name)
    if not value and not may_be_empty:
        raise Malformed("empty value", f"got {JSON_WORDS[kind]} with nothing in it for {name}, expected something")
    return value


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the number and the bytes of each line that is not blank; ValueError if the file is no text."""
    with path.open("rb") as file:
        first = file.read(4)
        if form := next((form for magic, form in OTHER_FORMS.items() if first.startswith(magic)), None):
            raise ValueError(f"{path} is {form}, expected UTF-8 text")
        file.seek(0)
        yield from ((number, raw) for number, raw in enumerate(file, start=1) if raw.strip())


def _dialogue(record: dict[str, Any]) -> tuple[str, list[Turn]]:
    id = take(record, "id", str)
    turns = take(record, "turns", list)
    return id, [_turn(expect(turn, dict, f"turns[{index}]"), f"turns[{index}]") for index, turn in enumerate(turns)]


def _turn(turn: dict[str, Any], name: str) -> Turn:
    time = None if turn.get("time") is None else _utc(take(turn, "time", str, name), f"{name}.time")
    return Turn(take(turn, "speaker", str, name), take(turn, "text", str, name, may_be_empty=True), time)


def _utc(text: str, name: str) -> datetime:
    """The time in UTC, so that times with different offsets and without any can be put in one order."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Malformed("bad time", f"got {text[:40]!r} for {name}, expected ISO 8601: 2024-05-01T07:30:00Z") from None


def _profile(record: dict[str, Any]) -> Profile:
    user = take(record, "user", str)
    attributes = take(record, "attributes", dict, may_be_empty=True)
    origin = record.get("origin", "declared")
    if origin not in ORIGINS:
        raise Malformed("unknown origin", f"got {origin!r}, expected one of {', '.join(ORIGINS)}")
    profile = Profile(user, {name: take(attributes, name, str, "attributes") for name in attributes}, origin)
    if not profile.user:
        raise Malformed("empty value", "got blanks and invisible letters alone for user, expected an id")
    return profile
