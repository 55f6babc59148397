"""The records: turns are merged, people counted, drops accounted for, contents fingerprinted."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from datamodules.corpora import ChitChat, JPersonaChat, Jsonl, PersonaChat, RealPersonaChat
from datamodules.corpora.people import People
from datamodules.corpora.records import Corpus, Dialogue, Drops, Malformed, Turn, merge_turns, two_people

MORNING, NOON = datetime(2024, 5, 1, 8), datetime(2024, 5, 1, 12)


def test_merge_turns_joins_one_persons_messages_and_keeps_the_first_time() -> None:
    messages = [
        Turn("a", " good\n morning ", MORNING),
        Turn("a", "sleep　well?", NOON),
        Turn("b", "   ", NOON),
        Turn("a", "hello?", NOON),
        Turn("b", "yes", NOON),
    ]
    assert merge_turns(messages) == (Turn("a", "good morning sleep well? hello?", MORNING), Turn("b", "yes", NOON))
    assert merge_turns([Turn("a", "", MORNING), Turn("a", "hi", NOON)]) == (Turn("a", "hi", NOON),)


def test_two_people_make_a_dialogue() -> None:
    turns = (Turn("a", "hi"), Turn("b", "ho"), Turn("a", "hm"))
    assert two_people("7", turns, "here", People()) == Dialogue("7", turns, "here")


def test_two_spellings_of_an_id_are_one_person() -> None:
    people = People()
    turns = [Turn(speaker, "hi") for speaker in ("Jose\u0301", "ben", "\u200eJosé ", "José")]
    assert [turn.speaker for turn in two_people("7", turns, "here", people).turns] == ["José", "ben", "José"]
    assert list(people.report()) == [
        r"2 spellings of ids are read as another: 'Jose\u0301' as 'José', '\u200eJos\xe9 ' as 'José'"
    ]
    with pytest.raises(Malformed, match="got an id of blanks and invisible letters alone"):
        two_people("8", [Turn("\u200b", "hi"), Turn("ben", "ho")], "here", people)


def test_ids_that_look_alike_stay_two_people_and_are_named() -> None:
    people = People({"ann", "Ann", "ben"})
    assert list(people.report()) == ["ids that look alike are 1 times different people: 'Ann' and 'ann'"]
    assert people.missing(["ANN", "ben", "cleo"]) == ["'ANN' (there is 'Ann' and 'ann')", "'cleo'"]


@pytest.mark.parametrize("text", ["\u200e", "\u200b\ufe0f", "\u2800 \u3164", "\u202a\u202c"])
def test_what_nobody_sees_is_no_text(text: str) -> None:
    assert merge_turns([Turn("a", "hi"), Turn("b", text), Turn("a", "👍🏽")]) == (Turn("a", "hi 👍🏽"),)


@pytest.mark.parametrize(
    ("speakers", "text", "reason"),
    [
        ("ab", " ", "no text"),
        ("", "", "no text"),
        ("aa", "hi", "one person only"),
        ("abc", "hi", "more than two people"),
    ],
)
def test_other_numbers_of_people_are_counted(speakers: str, text: str, reason: str) -> None:
    drops = Drops()
    with drops.dialogue("mine.jsonl:3"):
        two_people("7", [Turn(speaker, text) for speaker in speakers], "here", People())
    assert (drops.num_seen, drops.reasons.examples) == (1, {reason: ["mine.jsonl:3"]})


def drop(drops: Drops, reason: str, where: str, detail: str = "") -> None:
    with drops.dialogue(where):
        raise Malformed(reason, detail)


def test_drops_keep_all_counts_and_three_examples() -> None:
    drops = Drops()
    for number in range(5):
        drop(drops, "no text", f"f:{number}")
    drop(drops, "rare", "f:5", "got 1")
    assert (
        drops.reasons.table()
        == "             5 no text (such as f:0; f:1; f:2)\n             1 rare (such as f:5: got 1)"
    )
    assert Drops().reasons.table() == "  nothing dropped"


def test_stop_above_allows_the_share_and_no_more() -> None:
    drops = Drops(num_seen=9)
    drop(drops, "no text", "f:1")
    drops.stop_above(0.1)
    drop(drops, "no text", "f:2")
    with pytest.raises(
        ValueError, match=r"2 of 11 dialogues would be dropped.*share 0\.1:\n.*f:1; f:2.*\n.*max_dropped"
    ):
        drops.stop_above(0.1)


class Files(Corpus):
    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    @property
    def files(self) -> list[Path]:
        return list(self.paths)

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        return iter(())


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (
            lambda path: ChitChat(path / "dataset.json"),
            r"dataset\.json not found; it is part of the PyPI package chitchat",
        ),
        (lambda path: JPersonaChat(path / "no.xlsx"), r"no\.xlsx not found; .* https://github\.com/nttcslab"),
        (
            lambda path: Jsonl(path / "no.jsonl"),
            r"no\.jsonl not found; it should be your own dialogues file in the schema",
        ),
        (lambda path: Jsonl(path / "a.json", path / "no.jsonl"), r"no\.jsonl .* your own profiles file in the schema"),
        (lambda path: PersonaChat(path / "train.txt"), r"train\.txt not found; PERSONA-CHAT comes with ParlAI"),
        (PersonaChat, r"no \*\.txt in .*; PERSONA-CHAT comes with ParlAI"),
        (lambda path: RealPersonaChat(path / "no"), r"no .*dialogues/\*\.json found; RealPersonaChat comes from https"),
        (RealPersonaChat, r"interlocutors\.json not found; RealPersonaChat comes from https"),
    ],
)
def test_a_missing_file_says_where_it_comes_from(
    tmp_path: Path, corpus: Callable[[Path], Corpus], message: str
) -> None:
    (tmp_path / "dialogues").mkdir()
    for name in ("a.json", "dialogues/1.json"):
        (tmp_path / name).touch()
    for read in (lambda: list(corpus(tmp_path).dialogues(Drops())), lambda: corpus(tmp_path).fingerprint()):
        with pytest.raises(FileNotFoundError, match=message):
            read()


def test_fingerprint_depends_on_names_and_contents_and_not_on_the_folder(tmp_path: Path) -> None:
    paths = []
    for folder, name, content in [("x", "f", "1"), ("y", "f", "1"), ("z", "g", "1"), ("w", "f", "2")]:
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / name)
        paths[-1].write_text(content)
    first, copy, renamed, changed = (Files(path).fingerprint() for path in paths)
    assert first == copy
    assert len({first, renamed, changed}) == 3
    assert list(Files().profiles()) == []
