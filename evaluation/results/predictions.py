"""Reading what a system said: its `predictions.jsonl`, whose lines are those of `artefacts/predictions.py`.

A bad line stops the reading: it is never skipped, because a smaller test set is another test set. Messages name keys
and pairs and never quote what people wrote.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from artefacts.predictions import ROUNDING, Prediction, parse_prediction

FIRST_FEW = 3


def read_predictions(path: Path) -> list[Prediction]:
    """Reads all predictions of one system, in the order of the file.

    Raises:
        FileNotFoundError: If the file is missing; says which command makes it.
        ValueError: If a line is malformed, a (user, pair_id) comes twice or the file is empty; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such predictions file. Make it with `lightning predict --config experiments/<run>.yaml`, "
            "then point to the predictions.jsonl in that run's folder."
        )
    predictions: list[Prediction] = []
    line_of: dict[tuple[str, int], int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                prediction = parse_prediction(line)
                key = (prediction.user, prediction.pair_id)
                if key in line_of:
                    raise ValueError(f"user {key[0]!r}, pair_id {key[1]} was already given in line {line_of[key]}")
            except ValueError as error:  # includes bad JSON and bad UTF-8
                raise ValueError(f"{path}, line {number}: {error}") from error
            line_of[key] = number
            predictions.append(prediction)
    if not predictions:
        raise ValueError(f"{path}: the file is empty, expected one JSON object per reply pair")
    if len({prediction.nll is None for prediction in predictions}) > 1:
        raise ValueError(f"{path}: 'nll' is null in some lines and a number in others; a system has all or none")
    return predictions


def reply_pairs(records: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """Every candidate with its own reference, in order."""
    return [reply for p in records for reply in p.candidates], [p.reference for p in records for _ in p.candidates]


def by_user(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Groups predictions by user, users sorted by name and pairs by id, so that systems line up row by row."""
    users: dict[str, list[Prediction]] = {}
    for prediction in sorted(predictions, key=lambda p: (p.user, p.pair_id)):
        users.setdefault(prediction.user, []).append(prediction)
    return users


def check_same_pairs(name: str, ours: Sequence[Prediction], other_name: str, others: Sequence[Prediction]) -> None:
    """Checks that two systems were asked the same questions: same (user, pair_id) set, same references.

    Raises:
        ValueError: Says how many pairs differ, in which way, and the first few of them.
    """
    left = {(p.user, p.pair_id): p.reference for p in ours}
    right = {(p.user, p.pair_id): p.reference for p in others}
    differences = {
        f"only in {name!r}": left.keys() - right.keys(),
        f"only in {other_name!r}": right.keys() - left.keys(),
        "with another reference": {key for key in left.keys() & right.keys() if left[key] != right[key]},
    }
    found = [f"{len(keys)} {what} (first: {_first_few(keys)})" for what, keys in differences.items() if keys]
    if found and are_rounded(left.keys(), right.keys()):
        raise ValueError(
            f"systems {name!r} and {other_name!r} have the same reply pairs, but the pair_id of one were rounded by "
            f"{ROUNDING}; copy them as strings"
        )
    if found:
        raise ValueError(
            f"systems {name!r} and {other_name!r} cannot be compared, their reply pairs differ: {'; '.join(found)}. "
            "Predict with both on the same test split."
        )


def are_rounded(ours: Collection[tuple[str, int]], others: Collection[tuple[str, int]]) -> bool:
    """Whether (user, pair_id) of two systems are the same but for rounding to 53 bits."""
    one, other = ({(user, float(pair_id)) for user, pair_id in keys} for keys in (ours, others))
    return ours != others and one == other


def _first_few(keys: set[tuple[str, int]]) -> str:
    names = [f"{user}/{pair_id}" for user, pair_id in sorted(keys)[:FIRST_FEW]]
    return ", ".join(names) + (", ..." if len(keys) > FIRST_FEW else "")
