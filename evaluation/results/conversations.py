"""Long conversations, cut into what each speaker says in each block of turns.

In: `conversations.jsonl` (`callbacks/conversation_writer.py`). Out: `Part`s. Messages quote nothing that anybody said.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

KEYS = {"system": str, "conversation": int, "turn": int, "speaker": str | None, "text": str}


@dataclass(frozen=True)
class Part:
    """What one speaker says in one block of a conversation.

    Attributes:
        system: `own`, `base` or `real`.
        conversation: its number within the system.
        block: 0 for the first block.
        speaker: who speaks.
        partner: the other speaker; None where nobody else is one of the users.
        turns: what they say, in order.
        num_repeated: how many of these turns stood in the conversation before.
    """

    system: str
    conversation: int
    block: int
    speaker: str
    partner: str | None
    turns: tuple[str, ...]
    num_repeated: int


def read_parts(path: Path, block_turns: int) -> list[Part]:
    """Reads conversations and cuts them into blocks of so many turns.

    Raises:
        FileNotFoundError: there are none; says which command makes them.
        ValueError: a line is malformed, a turn comes twice, or nobody speaks; names file and line, and quotes nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no conversations in {path}; make them with: lightning predict --config experiments/conversations.yaml"
        )
    talks: dict[tuple[str, int], dict[int, tuple[str | None, str]]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, text in enumerate(file, start=1):
            line = _line(text, f"{path}, line {number}")
            turns = talks[line["system"], line["conversation"]]
            if line["turn"] in turns:
                raise ValueError(f"{path}, line {number}: turn {line['turn']} of this conversation comes twice")
            turns[line["turn"]] = (line["speaker"], line["text"])
    parts = [part for (system, number), turns in talks.items() for part in _cut(system, number, turns, block_turns)]
    if not parts:
        raise ValueError(f"{path}: nobody speaks in it; make it anew")
    return parts


def _line(text: str, where: str) -> dict:
    try:
        line = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON ({error.msg} at character {error.pos})") from None
    line = line if isinstance(line, dict) else {}
    wrong = [key for key, kind in KEYS.items() if key not in line or not isinstance(line[key], kind)]
    if wrong:
        raise ValueError(f"{where}: expected the keys {', '.join(KEYS)}; missing or of another type: {wrong}")
    return line


def _cut(system: str, number: int, turns: dict[int, tuple[str | None, str]], block_turns: int) -> list[Part]:
    people = sorted({speaker for speaker, _ in turns.values() if speaker is not None})
    said: set[str] = set()
    texts: dict[tuple[int, str], list[str]] = defaultdict(list)
    repeated: dict[tuple[int, str], int] = defaultdict(int)
    for turn, (speaker, text) in sorted(turns.items()):
        if speaker is not None:
            where = ((turn - 1) // block_turns, speaker)
            texts[where].append(text)
            repeated[where] += text in said
        said.add(text)
    return [
        Part(
            system, number, block, speaker, next((one for one in people if one != speaker), None), tuple(own),
            repeated[block, speaker],
        )
        for (block, speaker), own in sorted(texts.items())
    ]  # fmt: skip
