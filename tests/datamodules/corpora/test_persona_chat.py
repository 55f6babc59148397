"""PERSONA-CHAT in ParlAI's text form, with invented people."""

from itertools import cycle
from pathlib import Path

import pytest

from datamodules.corpora import Dialogue, Drops, PersonaChat, Profile, Turn

TWO_DIALOGUES = """\
1 your persona: i keep bees.
2 your persona:  i   play the tuba.
3 partner's persona: i fear bees.
4 hi , what is that noise ?\tmy tuba .\t\tmy dog .|my tuba .
5 lovely .\tthanks !
1 your persona: i sail.
2 __SILENCE__\tahoy !\t\tgood day .|ahoy !
3 ahoy yourself .\tnice boat .\t1.0\t
"""


def write(path: Path, text: str | bytes, name: str = "train_both_original.txt") -> Path:
    (path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return path / name


def read(path: Path) -> tuple[list[Dialogue], Drops]:
    drops = Drops()
    return list(PersonaChat(path).dialogues(drops)), drops


def told(id: str, sides: tuple[str, str], *texts: str) -> Dialogue:
    turns = (Turn(f"{id}:{side}", text) for side, text in zip(cycle(sides), texts, strict=False))
    return Dialogue(id, tuple(turns), "persona_chat")


def test_dialogues_alternate_between_partner_and_self(tmp_path: Path) -> None:
    dialogues, drops = read(write(tmp_path, TWO_DIALOGUES))
    one, two = "train_both_original.txt:1", "train_both_original.txt:2"
    assert dialogues == [
        told(one, ("partner", "self"), "hi , what is that noise ?", "my tuba .", "lovely .", "thanks !"),
        told(two, ("self", "partner"), "ahoy !", "ahoy yourself .", "nice boat ."),
    ]
    assert (drops.num_seen, drops.reasons.total()) == (2, 0)


def test_personas_are_profiles(tmp_path: Path) -> None:
    name = "train_both_original.txt"
    assert list(PersonaChat(write(tmp_path, TWO_DIALOGUES)).profiles()) == [
        Profile(f"{name}:1:self", {"persona_1": "i keep bees.", "persona_2": "i play the tuba."}, "declared"),
        Profile(f"{name}:1:partner", {"persona_1": "i fear bees."}, "declared"),
        Profile(f"{name}:2:self", {"persona_1": "i sail."}, "declared"),
    ]


def test_a_directory_is_read_by_name_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path, b"\xef\xbb\xbf1 b\tc\r\n", "valid.txt")
    write(tmp_path, "\n1 a\tb\n\n", "train.txt")
    write(tmp_path, "nothing of ours", "README.md")
    dialogues, drops = read(tmp_path)
    assert [dialogue.id for dialogue in dialogues] == ["train.txt:1", "valid.txt:1"]
    assert [turn.text for turn in dialogues[1].turns] == ["b", "c"]
    assert drops.reasons.total() == 0


def test_a_dialogue_told_again_is_dropped_from_either_side_and_in_every_file(tmp_path: Path) -> None:
    from_one_side = "1 hey\thello\n2 rain again\tas ever\n"
    from_the_other = "1 __SILENCE__\they\n2 hello\train again\n"
    another = "1 hey\thello\n2 rain again\tnot here\n"  # only the last turn is another: another dialogue
    short = "1 hey\thi\n"
    for order in (from_one_side + from_the_other, from_the_other + from_one_side):
        write(tmp_path, order + another.replace("rain", "hail") + short + short.replace("hi", "hiya"), "a.txt")
        write(tmp_path, from_one_side, "b.txt")
        dialogues, drops = read(tmp_path)
        assert [dialogue.id for dialogue in dialogues] == ["a.txt:1", "a.txt:3", "a.txt:4", "a.txt:5"]
        assert drops.num_seen == 6
        assert drops.reasons.examples == {"an earlier dialogue told again": ["a.txt:2", "b.txt:1"]}
    write(tmp_path, from_one_side + another, "a.txt")
    assert [dialogue.id for dialogue in read(tmp_path / "a.txt")[0]] == ["a.txt:1", "a.txt:2"]


@pytest.mark.parametrize(
    ("broken", "reason", "where"),
    [
        (
            b"1 hi\tho\n3 he\tha\n",
            "wrong line number",
            "f.txt:2: line 4: got the number 3 at its beginning, expected 2",
        ),
        (b"1 hi\tho\nwell\tha\n", "wrong line number", "f.txt:2: line 4: got no number at its beginning, expected 2"),
        (
            b"1 hi\tho\n2 he\n",
            "no reply",
            "f.txt:2: line 4: got no tab, expected the partner's utterance, a tab and the reply",
        ),
        (b"1 hi\tho\n2 h\xff\tha\n", "not UTF-8", "f.txt:2: line 4: got invalid start byte, expected UTF-8"),
        (b"1 your persona: i nap.\n", "no text", "f.txt:2"),
        (b"1 __SILENCE__\thi\n", "one person only", "f.txt:2"),
    ],
)
def test_a_broken_dialogue_is_counted_and_the_others_are_read(
    tmp_path: Path, broken: bytes, reason: str, where: str
) -> None:
    path = write(tmp_path, b"1 a\tb\n2 c\td\n" + broken + b"1 e\tf\n", "f.txt")
    dialogues, drops = read(path)
    assert [dialogue.id for dialogue in dialogues] == ["f.txt:1", "f.txt:3"]
    assert drops.num_seen == 3
    assert drops.reasons.examples == {reason: [where]}


def test_profiles_pass_over_a_broken_dialogue(tmp_path: Path) -> None:
    path = write(tmp_path, "1 your persona: i nap.\n2 hi\n1 your persona: i knit.\n2 hi\tho\n", "f.txt")
    assert list(PersonaChat(path).profiles()) == [Profile("f.txt:2:self", {"persona_1": "i knit."}, "declared")]
