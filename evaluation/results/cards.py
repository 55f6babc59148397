"""The cards beside predictions: what made them, and whether two systems may stand in one table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artefacts.described import require_described
from artefacts.files import read_object
from artefacts.layout import ADAPTERS, BACKBONE, MODELS, card_of, run_card
from artefacts.run_card import backbone_fingerprint, weights_in

UNTUNED = "ProfileSeq2Seq"  # systems, as cards name them
TUNED = ("UserLora", "UserTuning")
FACTS = (
    "system", "model", "prompt", "corpus", "backbone", "commit", "fit_commit", "split", "data", "decoding", "usage",
)  # fmt: skip


def read_card(path: Path) -> dict[str, Any]:
    """The card beside a predictions file: `predictions.card.json` for `predictions.jsonl`; empty if there is none.

    From the cards of the run, if it is in one, come commit, fit_commit, corpus and tuned_from.

    Raises:
        FileNotFoundError: If a file that it describes is missing.
        ValueError: If the card is not a JSON object, or a file is not the one that it describes.
    """
    card_path = card_of(Path(path))
    if not card_path.is_file():
        return {}
    card = read_object(card_path)
    require_described(card_path, "run `lightning predict` again")
    for key, command in (("commit", "predict"), ("fit_commit", "fit")):
        about_run = run_card(path.parent, command)
        if about_run.is_file():
            about = read_object(about_run)
            preparation = about.get("config", {}).get("data", {}).get("init_args", {}).get("preparation") or {}
            corpus = preparation.get("corpus", {}).get("class_path", "").rpartition(".")[2]
            facts = {key: about.get("commit"), "corpus": corpus}
            if command == "fit":
                facts["tuned_from"] = about.get("backbone")
            for name, fact in facts.items():
                if fact:
                    card.setdefault(name, fact)
    return card


def is_of_other_weights(card: Mapping[str, Any], run: Path) -> bool:
    """Whether a run has weights that its predictions or test were not made with, by the card of those.

    Weights that are gone do not matter. The card of an earlier version knows the backbone alone.
    """
    backbone = backbone_fingerprint(run / BACKBONE)
    if card.get("backbone") and backbone not in (None, card["backbone"]):
        return True
    return "weights" in card and not set(weights_in(run / ADAPTERS, run / MODELS)) <= set(card["weights"])


def card_facts(card: dict[str, Any]) -> list[str]:
    """What a caption says of a card, one phrase per key that is there; fingerprints are cut to 12 characters."""
    facts = []
    for key in FACTS:
        if card.get(key):
            text = card[key] if isinstance(card[key], str) else json.dumps(card[key], ensure_ascii=False)
            facts.append(f"{key.replace('_', ' ')} {text[:12] if key in ('backbone', 'split') else text}")
    return facts


def check_same_split(name: str, ours: dict[str, Any], other_name: str, others: dict[str, Any]) -> None:
    """Raises ValueError where the cards of two systems name different fingerprints of their test splits."""
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
