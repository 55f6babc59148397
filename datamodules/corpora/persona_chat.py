"""PERSONA-CHAT: English small talk between crowd workers who were each given a persona.

The text files are as ParlAI writes them. Every line begins with its number, which restarts at 1 with each
dialogue; the two texts of a turn are separated by a tab (written <TAB> here):

    1 your persona: i like to ski.
    2 partner's persona: i am a nurse.
    3 hello there<TAB>hi , how was work ?<TAB><TAB>a candidate|another candidate

The reward column and the candidates are not read. Zhang et al., ACL 2018; ParlAI (https://parl.ai) downloads it with
`--task personachat`.

People have no identity beyond one dialogue here, so a speaker is `FILE:N:self` or `FILE:N:partner`, N being the
dialogue's number in its file: no one has the history an adapter needs. A `self` file says only what `self` is like; a
`both` file says it of both.

Some releases tell each dialogue twice, once from either side (then the one who speaks first answers the utterance
`__SILENCE__`, which is no text, and the last turn is missing); the files of one split (`train_self_original.txt`,
`train_both_original.txt`, ...) tell them again. Only the first telling counts, so that none is in training and in test.

Terms: see the licence that comes with your copy; its mirrors state different ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .jsonl import numbered_lines
from .records import Corpus, Dialogue, Drops, Malformed, Profile, Turn, persona_of, two_people

NUMBERED = re.compile(r"(\d+) (.*)")
PERSONAS = {"your persona:": "self", "partner's persona:": "partner"}
SILENCE = "__SILENCE__"


class PersonaChat(Corpus):
    """Reads PERSONA-CHAT in ParlAI's text form.

    Args:
        path: one file, or a directory whose `*.txt` files are all read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def files(self) -> list[Path]:
        files = sorted(self.path.glob("*.txt")) if self.path.is_dir() else [self.path]
        if not files or not files[0].is_file():
            what = f"no *.txt in {self.path}" if self.path.is_dir() else f"{self.path} not found"
            raise FileNotFoundError(f"{what}; PERSONA-CHAT comes with ParlAI (https://parl.ai, task personachat)")
        return files

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        whole: set[tuple[str, ...]] = set()
        without_last: set[tuple[str, ...]] = set()
        for id, lines in self._episodes():
            with drops.dialogue(id):
                messages, _ = _parse(id, lines)
                dialogue = two_people(id, messages, "persona_chat", drops.people)
                texts = tuple(turn.text for turn in dialogue.turns)
                if texts in whole or texts in without_last or texts[:-1] in whole:
                    raise Malformed("an earlier dialogue told again")
                whole.add(texts)
                without_last.add(texts[:-1])
                yield dialogue

    def profiles(self) -> Iterator[Profile]:
        for id, lines in self._episodes():
            try:
                _, personas = _parse(id, lines)
            except Malformed:
                continue  # `dialogues` accounts for it
            for side, sentences in personas.items():
                yield persona_of(f"{id}:{side}", sentences)

    def _episodes(self) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
        """Yields the id and the numbered lines of each dialogue."""
        for path in self.files:
            for ordinal, lines in enumerate(_split(path), start=1):
                yield f"{path.name}:{ordinal}", lines


def _split(path: Path) -> Iterator[list[tuple[int, bytes]]]:
    lines: list[tuple[int, bytes]] = []
    for number, raw in numbered_lines(path):
        if raw.startswith(b"1 ") and lines:
            yield lines
            lines = []
        lines.append((number, raw))
    if lines:
        yield lines


def _parse(id: str, lines: list[tuple[int, bytes]]) -> tuple[list[Turn], dict[str, list[str]]]:
    """The messages of one dialogue and the persona sentences of each side that has some."""
    messages: list[Turn] = []
    personas: dict[str, list[str]] = {}
    for expected, (line, raw) in enumerate(lines, start=1):
        text = _text(line, raw, expected)
        prefix = next((prefix for prefix in PERSONAS if text.startswith(prefix)), None)
        if prefix is not None:
            personas.setdefault(PERSONAS[prefix], []).append(" ".join(text.removeprefix(prefix).split()))
            continue
        partner, tab, rest = text.partition("\t")
        if not tab:
            raise Malformed(
                "no reply", f"line {line}: got no tab, expected the partner's utterance, a tab and the reply"
            )
        messages.append(Turn(f"{id}:partner", "" if partner == SILENCE else partner))
        messages.append(Turn(f"{id}:self", rest.partition("\t")[0]))
    return messages, personas


def _text(line: int, raw: bytes, expected: int) -> str:
    """What a line says after its number, which must be the expected one."""
    try:
        text = raw.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise Malformed("not UTF-8", f"line {line}: got {error.reason}, expected UTF-8") from None
    match = NUMBERED.fullmatch(text)
    if match is None or int(match[1]) != expected:
        got = "no number" if match is None else f"the number {match[1][:9]}"
        raise Malformed("wrong line number", f"line {line}: got {got} at its beginning, expected {expected}")
    return match[2]
