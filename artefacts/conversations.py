"""Lines of `conversations.jsonl`: one JSON object per turn, in UTF-8. Messages quote nothing that anybody said."""

import json
from typing import NamedTuple


class Utterance(NamedTuple):
    """One turn. Turns of the opening count up to 0 and have no speaker: a model did not say them."""

    system: str  # own: everyone's own adapter; base: the bare backbone in everyone's place; real: real turns
    conversation: int
    turn: int
    speaker: str | None
    text: str

    def line(self) -> str:
        """The line of this turn, with its line end."""
        return json.dumps(self._asdict(), ensure_ascii=False) + "\n"


def parse_utterance(line: str) -> Utterance:
    """Reads one line; raises ValueError where it is malformed."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg} at character {error.pos})") from None
    record = record if isinstance(record, dict) else {}
    kinds = Utterance.__annotations__
    wrong = [key for key, kind in kinds.items() if key not in record or not isinstance(record[key], kind)]
    if wrong:
        raise ValueError(f"expected the keys {', '.join(kinds)}; missing or of another type: {wrong}")
    return Utterance(*(record[key] for key in kinds))
