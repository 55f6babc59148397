"""Reading what a system said: one `predictions.jsonl` per system, and the card that lies beside it.

In: JSON lines, one per reply pair, UTF-8:
`{"user": str, "pair_id": int, "context": [["speaker" | "partner", text], ...], "reference": str,
"candidates": [str, ...], "nll": float | null, "tokens": int | null}`; keys beyond these are ignored. A system that
gives no likelihoods (retrieval, a model behind an interface) has null for both.
Out: a list of `Prediction`. A bad line stops the reading: it is never skipped, because a
smaller test set is another test set. Messages name keys and pairs and never quote what people wrote.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROLES = ("speaker", "partner")
FIRST_FEW = 3
UNTUNED = "ProfileSeq2Seq"  # systems, as cards name them
TUNED = ("UserLora", "UserTuning")


@dataclass(frozen=True)
class Prediction:
    """One reply pair of the test split and what one system made of it.

    Attributes:
        user: The target user, who wrote the reference.
        pair_id: Number of the reply pair; unique within a user.
        context: The earlier turns as (role, text), oldest first; "speaker" is the target user.
        reference: The reply that the user really gave.
        candidates: The replies that the system generated, at least one; a reply may be the empty string.
        nll: Negative log-likelihood of the reference under the model, summed over its label tokens, in nats; None
            where the system gives no likelihoods.
        tokens: Number of those label tokens (end-of-sequence included when the model was trained to predict it); None
            together with `nll`.
    """

    user: str
    pair_id: int
    context: tuple[tuple[str, str], ...]
    reference: str
    candidates: tuple[str, ...]
    nll: float | None
    tokens: int | None


def read_predictions(path: Path) -> list[Prediction]:
    """Reads all predictions of one system, in the order of the file.

    Args:
        path: A `predictions.jsonl`.

    Returns:
        One `Prediction` per line.

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
                prediction = _parse(line)
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


def read_card(path: Path) -> dict[str, Any]:
    """Reads the card beside a predictions file: `predictions.card.json` for `predictions.jsonl`.

    Args:
        path: The predictions file (not the card).

    Returns:
        The card, with keys such as system, model, prompt, split, backbone, decoding, data, and from the cards of the
        run, if it is in one, commit, fit_commit, corpus and tuned_from; empty if there is none.

    Raises:
        ValueError: If the card is not a JSON object.
    """
    card_path = Path(path).with_suffix(".card.json")
    if not card_path.is_file():
        return {}
    try:
        card = json.loads(card_path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{card_path}: not valid JSON: {error}") from error
    if not isinstance(card, dict):
        raise ValueError(f"{card_path}: expected a JSON object, got {type(card).__name__}")
    for key, command in (("commit", "predict"), ("fit_commit", "fit")):
        run_card = path.with_name(f"{command}.card.json")
        if run_card.is_file():
            about = json.loads(run_card.read_bytes())
            preparation = about.get("config", {}).get("data", {}).get("init_args", {}).get("preparation") or {}
            corpus = preparation.get("corpus", {}).get("class_path", "").rpartition(".")[2]
            facts = {key: about.get("commit"), "corpus": corpus}
            if command == "fit":
                facts["tuned_from"] = about.get("backbone")
            for name, fact in facts.items():
                if fact:
                    card.setdefault(name, fact)
    return card


def older_than_weights(path: Path) -> bool:
    """Has the run that a file lies in been trained again since the file was written?"""
    run, made = path.parent, path.stat().st_mtime
    weights = [*run.glob("adapters/*/card.json"), *run.glob("models/*/card.json"), *run.glob("backbone/manifest.json")]
    return any(file.stat().st_mtime > made for file in weights)


def card_facts(card: dict[str, Any]) -> list[str]:
    """What a caption says of a card, one phrase per key that is there; fingerprints are cut to 12 characters."""
    facts = []
    for key in (
        "system",
        "model",
        "prompt",
        "corpus",
        "backbone",
        "commit",
        "fit_commit",
        "split",
        "data",
        "decoding",
        "usage",
    ):
        if card.get(key):
            text = card[key] if isinstance(card[key], str) else json.dumps(card[key], ensure_ascii=False)
            facts.append(f"{key.replace('_', ' ')} {text[:12] if key in ('backbone', 'split') else text}")
    return facts


def check_same_split(name: str, ours: dict[str, Any], other_name: str, others: dict[str, Any]) -> None:
    """Checks the cards of two systems: if both name the fingerprint of their test split, it must be one.

    Raises:
        ValueError: Names both fingerprints.
    """
    left, right = ours.get("split"), others.get("split")
    if left and right and left != right:
        raise ValueError(
            f"systems {name!r} and {other_name!r} cannot be compared, their cards name different test splits: "
            f"{left} and {right}. Predict with both on the same test split."
        )


def on_other_backbones(cards: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Tuned systems that were not tuned from the backbone they stand beside, and why they do not compare.

    That is the one with the same prompt; a table may have several of those, if each tuned system is on one of them.
    Without one, the first tuned system with that prompt says which backbone it is.

    Args:
        cards: of each system.
    """

    def prompt(card: dict[str, Any]) -> dict[str, Any]:
        return {key: fact for key, fact in (card.get("data") or {}).items() if key != "retrieved"}

    def begun_with(card: dict[str, Any]) -> str | None:
        return card.get("backbone") if card.get("system") in (UNTUNED, *TUNED) else card.get("tuned_from")

    refused = {}
    for name, card in cards.items():
        alike = {n: one for n, one in cards.items() if prompt(one) == prompt(card) and begun_with(one)}
        plain = [n for n, one in alike.items() if one.get("system") == UNTUNED] or list(alike)[:1]
        beside = {n: begun_with(cards[n]) for n in plain}
        if name in alike and card.get("system") != UNTUNED and begun_with(card) not in beside.values():
            refused[name] = (
                f"system {name!r} was tuned from another backbone ({begun_with(card)[:12]}) than those beside it: "
                + ", ".join(f"{n!r} ({one[:12]})" for n, one in beside.items())
                + "; make it from that one, or give the table its own backbone's predictions too"
            )
    return refused


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
    if found:
        raise ValueError(
            f"systems {name!r} and {other_name!r} cannot be compared, their reply pairs differ: {'; '.join(found)}. "
            "Predict with both on the same test split."
        )


def _first_few(keys: set[tuple[str, int]]) -> str:
    names = [f"{user}/{pair_id}" for user, pair_id in sorted(keys)[:FIRST_FEW]]
    return ", ".join(names) + (", ..." if len(keys) > FIRST_FEW else "")


def _parse(line: bytes) -> Prediction:
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
    nll, tokens = _field(record, "nll", int | float | None), _field(record, "tokens", int | None)
    if (nll is None) != (tokens is None):
        raise ValueError(f"keys 'nll' and 'tokens' are null together or not at all, got {nll} and {tokens}")
    if nll is not None and not (math.isfinite(nll) and nll >= 0):
        raise ValueError(f"key 'nll' must be finite and not negative (a sum in nats), got {nll}")
    if tokens is not None and tokens < 1:
        raise ValueError(f"key 'tokens' must be at least 1, got {tokens}")
    return Prediction(
        user=record["user"],
        pair_id=_field(record, "pair_id", int),
        context=tuple((role, text) for role, text in context),
        reference=record["reference"],
        candidates=tuple(candidates),
        nll=None if nll is None else float(nll),
        tokens=tokens,
    )


def _field(record: dict[str, Any], key: str, expected: Any) -> Any:
    if key not in record:
        raise ValueError(f"key {key!r} is missing, found {', '.join(sorted(record)) or 'no keys'}")
    value = record[key]
    if not isinstance(value, expected) or isinstance(value, bool):
        name = getattr(expected, "__name__", str(expected))
        raise ValueError(f"key {key!r} must be {name}, got {type(value).__name__}")
    return value
