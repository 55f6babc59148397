"""Our own schema: what is right is read, and everything that is wrong is told with its line."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from datamodules.corpora import Dialogue, Drops, Jsonl, Profile, Turn

TURNS = [{"speaker": "hana", "text": "Tea?"}, {"speaker": "ken", "text": "Please."}]
GOOD = json.dumps({"id": "good", "turns": TURNS}).encode()


def turn(**changes: Any) -> bytes:
    """A dialogue whose second turn is changed; None takes the key away."""
    second = {key: value for key, value in (TURNS[1] | changes).items() if value is not None}
    return json.dumps({"id": "x", "turns": [TURNS[0], second]}).encode()


def read(path: Path, *lines: bytes) -> tuple[list[Dialogue], Drops]:
    file = path / "mine.jsonl"
    file.write_bytes(b"\n".join(lines))
    drops = Drops()
    return list(Jsonl(file).dialogues(drops)), drops


def test_dialogues_are_read_in_the_order_of_the_lines(tmp_path: Path) -> None:
    lines = [
        '{"id": "b", "lang": "ja", "turns": ['
        '{"speaker": "花", "text": "お茶？", "time": "2024-05-01T07:30:00+09:00"}, {"speaker": "ken", "text": "ん"}]}',
        "",
        '{"id": "a", "turns": [{"speaker": "ken", "text": "up", "time": "2024-05-01T07:30:00Z"}, '
        '{"speaker": "ken", "text": " \\n late ", "time": null}, {"speaker":"花", "text":"no", "time":"2024-05-02"}]}',
    ]
    dialogues, drops = read(tmp_path, *(line.encode() for line in lines))
    assert dialogues == [
        Dialogue("b", (Turn("花", "お茶？", datetime(2024, 4, 30, 22, 30, tzinfo=UTC)), Turn("ken", "ん")), "jsonl"),
        Dialogue(
            "a",
            (
                Turn("ken", "up late", datetime(2024, 5, 1, 7, 30, tzinfo=UTC)),
                Turn("花", "no", datetime(2024, 5, 2, tzinfo=UTC)),
            ),
            "jsonl",
        ),
    ]
    assert (drops.num_seen, drops.reasons.total()) == (2, 0)
    assert list(Jsonl(tmp_path / "mine.jsonl").profiles()) == []


def test_windows_files_are_read(tmp_path: Path) -> None:
    dialogues, drops = read(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r", b"\r", turn() + b"\r")
    assert [dialogue.id for dialogue in dialogues] == ["good", "x"]
    assert drops.reasons.total() == 0


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"id": "x", ', "not JSON", "enclosed in double quotes' at column 13, expected one JSON object"),
        (b"[" * 100_000, "not JSON", "expected one JSON object"),
        (b"[1]", "wrong type", "got a list for the whole, expected an object"),
        (GOOD.replace(b"Tea", b"T\xe9a"), "not UTF-8", "got invalid continuation byte, expected UTF-8"),
        (GOOD.replace(b"Tea", b"\\ud83d"), "not UTF-8", "got surrogates not allowed, expected UTF-8"),
        (b'{"turns": []}', "missing key", "got no key id, expected a string there"),
        (b'{"id": 5, "turns": []}', "wrong type", "got a number for id, expected a string"),
        (b'{"id": "", "turns": []}', "empty value", "got a string with nothing in it for id, expected something"),
        (b'{"id": "x"}', "missing key", "got no key turns, expected a list there"),
        (b'{"id": "x", "turns": {}}', "wrong type", "got an object for turns, expected a list"),
        (b'{"id": "x", "turns": []}', "empty value", "got a list with nothing in it for turns, expected something"),
        (b'{"id": "x", "turns": ["hi"]}', "wrong type", "got a string for turns[0], expected an object"),
        (turn(speaker=None), "missing key", "got no key turns[1].speaker, expected a string there"),
        (turn(speaker=True), "wrong type", "got a boolean for turns[1].speaker, expected a string"),
        (turn(speaker=""), "empty value", "got a string with nothing in it for turns[1].speaker, expected something"),
        (turn(text=None), "missing key", "got no key turns[1].text, expected a string there"),
        (turn().replace(b'"Please."', b"null"), "wrong type", "got null for turns[1].text, expected a string"),
        (turn(time=1714516200), "wrong type", "got a number for turns[1].time, expected a string"),
        (turn(time="1st May"), "bad time", "got '1st May' for turns[1].time, expected ISO 8601: 2024-05-01T07:30:00Z"),
        (turn(time="0001-01-01T00:00+09:00"), "bad time", "got '0001-01-01T00:00+09:00' for turns[1].time"),
        (GOOD, "duplicate id", "got the id 'good' again, expected another one on every line"),
        (turn(text=" ", speaker="hana").replace(b"Tea?", b""), "no text", ""),
        (turn(speaker="hana"), "one person only", ""),
        (GOOD.replace(b"good", b"x").replace(b"]", b', {"speaker": "c", "text": "."}]'), "more than two people", ""),
    ],
)
def test_a_line_that_is_wrong_is_counted_with_its_place(tmp_path: Path, line: bytes, reason: str, detail: str) -> None:
    dialogues, drops = read(tmp_path, GOOD, b"", line)
    assert [dialogue.id for dialogue in dialogues] == ["good"]
    assert drops.num_seen == 2
    assert drops.reasons == {reason: 1}
    (where,) = drops.reasons.examples[reason]
    assert where.startswith("mine.jsonl:3")
    assert detail in where


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(GOOD, mtime=0), "is gzip: unpack it"),
        (GOOD.decode().encode("utf-16"), "is UTF-16: save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_refused_at_once(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"mine\.jsonl {message}, expected UTF-8 text"):
        read(tmp_path, content)


def test_two_spellings_of_a_user_are_one_profile(tmp_path: Path) -> None:
    corpus = corpus_with_profiles(
        tmp_path, '{"user": "ken", "attributes": {}}', '{"user": "\\u200eken ", "attributes": {}}'
    )
    with pytest.raises(ValueError, match=r"people\.jsonl:2: duplicate user: got a second declared profile of 'ken'"):
        list(corpus.profiles())


def test_the_account_never_quotes_what_was_said(tmp_path: Path) -> None:
    _, drops = read(tmp_path, b'{"id": "x", "turns": ["my secret"]}', b'{"my secret', turn(text="my secret", time="?"))
    assert drops.reasons.total() == 3
    assert "secret" not in drops.reasons.table()


def test_an_emoji_in_two_escapes_is_one_character(tmp_path: Path) -> None:
    (dialogue,), _ = read(tmp_path, GOOD.replace(b"Tea", b"\\ud83c\\udf75"))
    assert dialogue.turns[0].text == "🍵?"


def corpus_with_profiles(path: Path, *lines: str) -> Jsonl:
    (path / "mine.jsonl").write_bytes(GOOD)
    (path / "people.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return Jsonl(path / "mine.jsonl", path / "people.jsonl")


def test_profiles_are_read(tmp_path: Path) -> None:
    corpus = corpus_with_profiles(
        tmp_path,
        '{"user": "hana", "attributes": {"age": "20-29", "region": "大阪"}}',
        "",
        '{"user": "hana", "attributes": {"age": "30-39"}, "origin": "inferred"}',
        '{"user": "ken", "attributes": {}, "origin": "distant"}',
    )
    assert list(corpus.profiles()) == [
        Profile("hana", {"age": "20-29", "region": "大阪"}, "declared"),
        Profile("hana", {"age": "30-39"}, "inferred"),
        Profile("ken", {}, "distant"),
    ]
    assert [file.name for file in corpus.files] == ["mine.jsonl", "people.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not JSON: got .* at column 2, expected one JSON object"),
        ('{"attributes": {}}', "missing key: got no key user, expected a string there"),
        ('{"user": "a"}', "missing key: got no key attributes, expected an object there"),
        ('{"user": "a", "attributes": {"age": 20}}', "wrong type: got a number for attributes.age, expected a string"),
        ('{"user": "a", "attributes": {"age": null}}', "wrong type: got null for attributes.age, expected a string"),
        ('{"user": "a", "attributes": {"age": ""}}', "empty value: got a string with nothing in it for attributes.age"),
        ('{"user": "a", "attributes": {}, "origin": "guessed"}', "unknown origin: got 'guessed', expected one of decl"),
        ('{"user": "ken", "attributes": {}}', "duplicate user: got a second declared profile of 'ken'"),
    ],
)
def test_a_profile_that_is_wrong_is_an_error_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    corpus = corpus_with_profiles(tmp_path, '{"user": "ken", "attributes": {}}', "", line)
    with pytest.raises(ValueError, match=r"people\.jsonl:3: " + message):
        list(corpus.profiles())
