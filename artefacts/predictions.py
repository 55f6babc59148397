"""Lines of `predictions.jsonl`: one JSON object per reply pair, in UTF-8.

`{"user": str, "pair_id": str, "context": [["speaker" | "partner", text], ...], "reference": str,
"candidates": [str, ...], "nll": float | null, "tokens": int | null}`; further keys are ignored. A system without
likelihoods (retrieval, a model behind an interface) has null for both. Messages never quote what people wrote.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

ROLES = ("speaker", "partner")
ROUNDING = "a program whose numbers have 53 bits (jq 1.6, JavaScript)"
"""What may have rounded a `pair_id`, which has 63."""


@dataclass(frozen=True)
class Prediction:
    """One reply pair of the test split and what one system made of it.

    Attributes:
        user: The target user, who wrote the reference.
        pair_id: Unique within a user.
        context: The earlier turns as (role, text), oldest first; "speaker" is the target user.
        reference: The reply that the user really gave.
        candidates: The replies that the system generated, at least one; a reply may be the empty string.
        nll: Negative log-likelihood of the reference, summed over its label tokens, in nats.
        tokens: Number of those label tokens (end-of-sequence included when the model was trained to predict it).
    """

    user: str
    pair_id: int
    context: tuple[tuple[str, str], ...]
    reference: str
    candidates: tuple[str, ...]
    nll: float | None
    tokens: int | None

    def line(self) -> str:
        """The line of this reply pair, with its line end."""
        return json.dumps({**vars(self), "pair_id": str(self.pair_id)}, ensure_ascii=False) + "\n"


def parse_prediction(line: bytes) -> Prediction:
    """Reads one line; raises ValueError where it is malformed or a value is out of range."""
    record = json.loads(line.decode("utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, got {type(record).__name__}")
    for key in ("user", "reference"):
        if not _field(record, key, str).strip():
            raise ValueError(f"key {key!r} is an empty string")
    context = _field(record, "context", list)
    if not all(isinstance(t, list) and len(t) == 2 and t[0] in ROLES and isinstance(t[1], str) for t in context):
        raise ValueError('key \'context\': every turn must be ["speaker", text] or ["partner", text]')
    candidates = _field(record, "candidates", list)
    if not candidates or not all(isinstance(text, str) for text in candidates):
        raise ValueError("key 'candidates' must be a list of at least one string")
    nll, tokens = _likelihood(record)
    return Prediction(
        user=record["user"],
        pair_id=_pair_id(record),
        context=tuple((role, text) for role, text in context),
        reference=record["reference"],
        candidates=tuple(candidates),
        nll=nll,
        tokens=tokens,
    )


def _pair_id(record: dict[str, Any]) -> int:
    """A string in our files, which jq 1.6 and JavaScript keep; a whole number in others'."""
    value = _field(record, "pair_id", int | str | float)
    if isinstance(value, float):
        raise ValueError(f"key 'pair_id' was rounded to {value} by {ROUNDING}; copy it as a string")
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,20}", value):
        raise ValueError("key 'pair_id' must be a whole number, as a string or not")
    return int(value)


def _likelihood(record: dict[str, Any]) -> tuple[float | None, int | None]:
    nll, tokens = _field(record, "nll", int | float | None), _field(record, "tokens", int | None)
    if (nll is None) != (tokens is None):
        raise ValueError(f"keys 'nll' and 'tokens' are null together or not at all, got {nll} and {tokens}")
    if nll is not None and not (math.isfinite(nll) and nll >= 0):
        raise ValueError(f"key 'nll' must be finite and not negative (a sum in nats), got {nll}")
    if tokens is not None and tokens < 1:
        raise ValueError(f"key 'tokens' must be at least 1, got {tokens}")
    return None if nll is None else float(nll), tokens


def _field(record: dict[str, Any], key: str, expected: Any) -> Any:
    if key not in record:
        raise ValueError(f"key {key!r} is missing, found {', '.join(sorted(record)) or 'no keys'}")
    value = record[key]
    if not isinstance(value, expected) or isinstance(value, bool):
        name = getattr(expected, "__name__", str(expected))
        raise ValueError(f"key {key!r} must be {name}, got {type(value).__name__}")
    return value
