"""PersonaChatJP (JPersonaChat): Japanese small talk between people who were each given a persona.

In the published workbook `japanese_persona_chat.xlsx`, sheet `ペルソナリスト` has the columns `No`, `ペルソナID`, `A`
and `B`, where A and B hold one persona's sentences each, a sentence a line. Sheet `対話` has the columns `No`,
`ペルソナID`, `speaker` (or `話者`, ...), which is A or B, and `発話`.

Sugiyama et al., 2021; NTT publishes it at https://github.com/nttcslab/japanese-dialog-transformers
Terms: see the licence there; NTT publishes it for evaluation and verification.

- The header row is found by the names of the columns; rows above it, empty rows and other columns are ignored.
- Consecutive rows with the same `No` and the same `ペルソナID` are one dialogue. An empty cell in these two columns
  means what the row above says; a new number without a `ペルソナID` is malformed.
- A dialogue's id is `No:ペルソナID`. The corpus does not say who wrote. By default a speaker is a side of the pair
  `ペルソナID`, such as `PP1:A`, who takes part in one dialogue. With `speaker: persona` it is the persona: its authors
  count 100 personas in 5,000 dialogues of 61,793 turns, about 618 turns of each. It is called after the first pair in
  the list that has these sentences, in this order.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

from .records import Corpus, Dialogue, Drops, Malformed, Profile, Turn, persona_of, two_people

PERSONA_SHEET, DIALOGUE_SHEET = "ペルソナリスト", "対話"
SIDES = ("A", "B")
OTHER_NAMES = {"話者": "speaker", "話者id": "speaker", "発話者": "speaker"}


class JPersonaChat(Corpus):
    """Reads the published workbook of PersonaChatJP.

    Args:
        path: `japanese_persona_chat.xlsx`.
        speaker: who is one person: a `side` of one pair, or a `persona`, in whatever pairs it stands.
    """

    def __init__(self, path: Path, speaker: Literal["side", "persona"] = "side") -> None:
        self.path = path
        self.speaker = speaker

    @property
    def files(self) -> list[Path]:
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{self.path} not found; PersonaChatJP is the .xlsx that "
                "https://github.com/nttcslab/japanese-dialog-transformers links to"
            )
        return [self.path]

    def fingerprint(self) -> str:
        return super().fingerprint() + ("" if self.speaker == "side" else f" by {self.speaker}")

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        ids: set[str] = set()
        names = self._names()
        for (no, persona), rows in groupby(self._utterances(), key=lambda utterance: utterance[:2]):
            id = f"{no}:{persona}"
            with drops.dialogue(id):
                messages = [_message(*row, names) for row in rows]
                if id in ids:
                    raise Malformed("duplicate id", f"{DIALOGUE_SHEET}: got more rows later, expected them together")
                ids.add(id)
                yield two_people(id, messages, "jpersona_chat", drops.people)

    def profiles(self) -> Iterator[Profile]:
        names = self._names()
        for side, sentences in self._personas():
            if sentences and names.get(side, side) == side:
                yield persona_of(side, sentences)

    def _names(self) -> dict[str, str]:
        """Side of a pair → speaker, where it is not called so itself."""
        if self.speaker == "side":
            return {}
        first: dict[tuple[str, ...], str] = {}
        return {side: first.setdefault(sentences, side) for side, sentences in self._personas() if sentences}

    def _personas(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yields each side of each pair with its persona's sentences."""
        known: set[str] = set()
        for number, cells in self._rows(PERSONA_SHEET, ("No", "ペルソナID", *SIDES)):
            persona = cells["ペルソナID"]
            if not persona or persona in known:
                got = f"{persona} for the second time" if persona else "no ペルソナID"
                raise ValueError(f"{self.path}: sheet {PERSONA_SHEET}, row {number}: got {got}, expected a new one")
            known.add(persona)
            for side in SIDES:
                lines = (" ".join(line.split()) for line in cells[side].splitlines())
                yield f"{persona}:{side}", tuple(line for line in lines if line)

    def _utterances(self) -> Iterator[tuple[str, str, int, str, str]]:
        """Yields `No`, `ペルソナID`, row number, speaker and text of the rows that say something."""
        no = persona = ""
        for number, cells in self._rows(DIALOGUE_SHEET, ("No", "ペルソナID", "speaker", "発話")):
            if cells["No"] not in ("", no):
                no, persona = cells["No"], ""
            persona = cells["ペルソナID"] or persona
            if cells["speaker"] or cells["発話"]:
                yield no, persona, number, unicodedata.normalize("NFKC", cells["speaker"]).upper(), cells["発話"]

    def _rows(self, sheet: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields the number and the named cells of each row below the header that is not empty."""
        (path,) = self.files
        workbook = _open(path)
        try:
            if sheet not in workbook.sheetnames:
                raise ValueError(f"{path}: got the sheets {', '.join(workbook.sheetnames)}; expected a sheet {sheet}")
            workbook[sheet].reset_dimensions()  # the size that a file states for itself may be wrong
            column_of: dict[str, int] = {}
            first: list[str] = []
            for number, values in enumerate(workbook[sheet].iter_rows(values_only=True), start=1):
                cells = [_text(value) for value in values]
                if column_of:
                    if any(cells):
                        yield number, {name: "".join(cells[at : at + 1]) for name, at in column_of.items()}
                    continue
                names = [_name(cell) for cell in cells]
                first = first or [cell[:20] for cell in cells if cell]
                if {column.casefold() for column in columns} <= set(names):
                    column_of = {column: names.index(column.casefold()) for column in columns}
            if not column_of:
                raise ValueError(
                    f"{path}: sheet {sheet}: got no row with the column names {', '.join(columns)}; "
                    f"its first row has {', '.join(first) or 'nothing'}"
                )
        finally:
            workbook.close()


def _open(path: Path) -> Any:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        return load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, BadZipFile, KeyError) as error:
        raise ValueError(f"{path}: got {error}, expected an .xlsx workbook") from None


def _text(value: object) -> str:
    """A cell as text; Excel keeps whole numbers as floats."""
    if value is None:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _name(cell: str) -> str:
    """A column's name whatever its width and case: Ｎｏ. is no."""
    name = unicodedata.normalize("NFKC", cell).strip(" .").casefold()
    return OTHER_NAMES.get(name, name)


def _message(no: str, persona: str, number: int, side: str, text: str, names: dict[str, str]) -> Turn:
    where = f"{DIALOGUE_SHEET} row {number}"
    if not no or not persona:
        raise Malformed("no dialogue", f"{where}: got No {no!r} and ペルソナID {persona!r}, expected both")
    if side not in SIDES:
        raise Malformed("unknown speaker", f"{where}: got {side[:20]!r} for the speaker, expected A or B")
    name = f"{persona}:{side}"
    return Turn(names.get(name, name), text)
