"""Long conversations (`artefacts/conversations.py`), cut into what each speaker says in each block of turns."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from artefacts.conversations import Utterance, parse_utterance
from artefacts.described import require_described
from artefacts.layout import card_of


@dataclass(frozen=True)
class Part:
    """What one speaker says in one block of a conversation."""

    system: str  # `own`, `base` or `real`
    conversation: int  # its number within the system
    block: int  # 0 for the first
    speaker: str
    partner: str | None  # the other speaker; None where nobody else is one of the users
    turns: tuple[str, ...]
    num_repeated: int  # how many of these turns stood in the conversation before


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
    require_described(card_of(path), "run `lightning predict` of the conversations again")
    talks: dict[tuple[str, int], dict[int, Utterance]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                said = parse_utterance(line)
                turns = talks[said.system, said.conversation]
                if said.turn in turns:
                    raise ValueError(f"turn {said.turn} of this conversation comes twice")
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            turns[said.turn] = said
    parts = [part for (system, number), turns in talks.items() for part in _cut(system, number, turns, block_turns)]
    if not parts:
        raise ValueError(f"{path}: nobody speaks in it; make it anew")
    return parts


def _cut(system: str, number: int, turns: dict[int, Utterance], block_turns: int) -> list[Part]:
    people = sorted({one.speaker for one in turns.values() if one.speaker is not None})
    earlier: set[str] = set()
    texts: dict[tuple[int, str], list[str]] = defaultdict(list)
    repeated: dict[tuple[int, str], int] = defaultdict(int)
    for turn, (_, _, _, speaker, text) in sorted(turns.items()):
        if speaker is not None:
            part = ((turn - 1) // block_turns, speaker)
            texts[part].append(text)
            repeated[part] += text in earlier
        earlier.add(text)
    partner = {speaker: next((other for other in people if other != speaker), None) for speaker in people}
    return [
        Part(system, number, block, speaker, partner[speaker], tuple(own), repeated[block, speaker])
        for (block, speaker), own in sorted(texts.items())
    ]
