"""PersonaChatJP: small workbooks in the published layout, with invented people."""

from pathlib import Path
from typing import Any

import openpyxl
import pytest

from datamodules.corpora import Dialogue, Drops, JPersonaChat, Profile, Turn

PERSONA_HEADER = ["No", "ペルソナID", "A", "B"]
DIALOGUE_HEADER = ["No", "ペルソナID", "speaker", "発話"]
PERSONAS = [
    PERSONA_HEADER,
    [1, "PP1", "蜂を飼っています。\n 朝は早いです。 \n", "蜂が苦手です。"],
    [2, "PP2", "海が好きです。", None],
]
DIALOGUES = [
    DIALOGUE_HEADER,
    [1, "PP1", "A", "こんにちは"],
    [1, "PP1", "B", "どうも"],
    [2, "PP2", "B", "船は\n好き？"],
    [2, "PP2", "A", "はい"],
    [2, "PP2", "A", "とても"],
]
READ = [
    Dialogue("1:PP1", (Turn("PP1:A", "こんにちは"), Turn("PP1:B", "どうも")), "jpersona_chat"),
    Dialogue("2:PP2", (Turn("PP2:B", "船は 好き？"), Turn("PP2:A", "はい とても")), "jpersona_chat"),
]


def workbook(path: Path, **sheets: list[list[Any]]) -> JPersonaChat:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path / "japanese_persona_chat.xlsx")
    return JPersonaChat(path / "japanese_persona_chat.xlsx")


def read(path: Path, rows: list[list[Any]]) -> tuple[list[Dialogue], Drops]:
    drops = Drops()
    return list(workbook(path, ペルソナリスト=PERSONAS, 対話=rows).dialogues(drops)), drops


def test_dialogues_are_delimited_by_number_and_pair(tmp_path: Path) -> None:
    dialogues, drops = read(tmp_path, DIALOGUES)
    assert dialogues == READ
    assert (drops.num_seen, drops.reasons.total()) == (2, 0)


def test_a_number_that_stands_in_the_first_row_only_will_do(tmp_path: Path) -> None:
    sparse = [DIALOGUE_HEADER]
    for previous, row in zip(DIALOGUES, DIALOGUES[1:], strict=False):
        sparse.append(row if row[:2] != previous[:2] else [None, None, *row[2:]])
    assert read(tmp_path, sparse)[0] == READ


def test_a_change_of_the_pair_alone_begins_a_dialogue(tmp_path: Path) -> None:
    rows = [DIALOGUE_HEADER, [1, "PP1", "A", "雨"], [1, "PP1", "B", "雪"], [1, "PP2", "A", "雷"], [1, "PP2", "B", "霧"]]
    assert [dialogue.id for dialogue in read(tmp_path, rows)[0]] == ["1:PP1", "1:PP2"]


def test_the_header_is_found_by_its_names_and_empty_rows_do_not_matter(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["対話の一覧", *[None] * 4], [], ["発話", "備考", "Ｎｏ.", " 話者 ", "ペルソナID"]]
    for no, pair, speaker, text in DIALOGUES[1:]:
        rows += [[text, "メモ", float(no), "Ａ" if speaker == "A" else "b", pair], [None] * 5]
    assert read(tmp_path, [*rows, [None] * 5, [" "] * 5])[0] == READ


def test_personas_are_profiles(tmp_path: Path) -> None:
    corpus = workbook(tmp_path, ペルソナリスト=[*PERSONAS, [None] * 4], 対話=DIALOGUES)
    assert list(corpus.profiles()) == [
        Profile("PP1:A", {"persona_1": "蜂を飼っています。", "persona_2": "朝は早いです。"}, "declared"),
        Profile("PP1:B", {"persona_1": "蜂が苦手です。"}, "declared"),
        Profile("PP2:A", {"persona_1": "海が好きです。"}, "declared"),
    ]


@pytest.mark.parametrize(
    ("rows", "reason", "where"),
    [
        ([[3, "PP3", "C", "え"]], "unknown speaker", "3:PP3: 対話 row 7: got 'C' for the speaker, expected A or B"),
        ([[3, "PP3", None, "お"]], "unknown speaker", "3:PP3: 対話 row 7: got '' for the speaker, expected A or B"),
        ([[3, None, "A", "え"]], "no dialogue", "3:: 対話 row 7: got No '3' and ペルソナID '', expected both"),
        ([[1, "PP1", "A", "え"]], "duplicate id", "1:PP1: 対話: got more rows later, expected them together"),
        ([[3, "PP3", "A", "え"]], "one person only", "3:PP3"),
        ([[3, "PP3", "A", None]], "no text", "3:PP3"),
    ],
)
def test_a_broken_dialogue_is_counted(tmp_path: Path, rows: list[list[Any]], reason: str, where: str) -> None:
    dialogues, drops = read(tmp_path, DIALOGUES + rows)
    assert dialogues == READ
    assert drops.num_seen == 3
    assert drops.reasons.examples == {reason: [where]}


def test_a_missing_sheet_is_named(tmp_path: Path) -> None:
    corpus = workbook(tmp_path, Sheet1=[], 対話=DIALOGUES)
    with pytest.raises(ValueError, match=r"\.xlsx: got the sheets Sheet1, 対話; expected a sheet ペルソナリスト"):
        list(corpus.profiles())


@pytest.mark.parametrize(
    ("rows", "first"), [([["No", "ペルソナID", "発話"], [1, "PP1", "え"]], "No, ペルソナID, 発話"), ([], "nothing")]
)
def test_a_missing_column_is_named(tmp_path: Path, rows: list[list[Any]], first: str) -> None:
    expected = rf"sheet 対話: got no row with the column names No, ペルソナID, speaker, 発話; its first row has {first}"
    with pytest.raises(ValueError, match=expected):
        read(tmp_path, rows)


@pytest.mark.parametrize(
    ("row", "got"), [([3, None, "え", "お"], "no ペルソナID"), ([3, "PP1", "え", "お"], "PP1 for the second time")]
)
def test_a_broken_persona_is_an_error(tmp_path: Path, row: list[Any], got: str) -> None:
    corpus = workbook(tmp_path, ペルソナリスト=[*PERSONAS, row], 対話=DIALOGUES)
    with pytest.raises(ValueError, match=f"sheet ペルソナリスト, row 4: got {got}, expected a new one"):
        list(corpus.profiles())


def test_another_kind_of_file_is_an_error(tmp_path: Path) -> None:
    for name in ("text.xlsx", "old.xls"):
        (tmp_path / name).write_text("no workbook")
        with pytest.raises(ValueError, match=r"got .*, expected an \.xlsx workbook"):
            list(JPersonaChat(tmp_path / name).dialogues(Drops()))


def test_with_speakers_by_persona_a_persona_is_one_person_in_all_its_pairs(tmp_path: Path) -> None:
    personas = [
        PERSONA_HEADER,
        [1, "PP1", "蜂。\n海。", "山。"],
        [2, "PP2", "山。 ", "蜂。\n 海。"],
        [3, "PP3", None, "海。\n蜂。"],
    ]
    rows = [DIALOGUE_HEADER] + [[n, f"PP{n}", side, "はい"] for n in (1, 2, 3) for side in "AB"]
    sides = workbook(tmp_path, ペルソナリスト=personas, 対話=rows)
    corpus = JPersonaChat(sides.path, speaker="persona")
    speakers = [[turn.speaker for turn in dialogue.turns] for dialogue in corpus.dialogues(Drops())]
    # PP2's sides are PP1's, the other way round; sentences in another order are another persona.
    assert speakers == [["PP1:A", "PP1:B"], ["PP1:B", "PP1:A"], ["PP3:A", "PP3:B"]]
    assert [profile.user for profile in corpus.profiles()] == ["PP1:A", "PP1:B", "PP3:B"]
    assert corpus.fingerprint() != sides.fingerprint()
