"""Run cards: what a command of the trainer did in a run, and the fingerprints of what it did it with."""

from pathlib import Path
from typing import Any

from artefacts.described import is_whole
from artefacts.files import read_object, write_json
from artefacts.fingerprints import fingerprint_of, fingerprint_of_sample
from artefacts.layout import (
    ADAPTERS,
    BACKBONE,
    CARD,
    CONVERSATIONS,
    JUDGEMENTS,
    MANIFEST,
    MODELS,
    NETWORK,
    NETWORK_WEIGHTS,
    PREDICTIONS,
    PROFILES,
    TEST_USERS,
    run_card,
)

WRITTEN = {  # at least one of these, or the command is not finished
    "fit": (
        f"{BACKBONE}/{MANIFEST}",
        f"{ADAPTERS}/*/{CARD}",
        f"{MODELS}/*/{CARD}",
        f"{NETWORK}/{NETWORK_WEIGHTS}",
    ),
    "test": (TEST_USERS, JUDGEMENTS),
    "predict": (PREDICTIONS, PROFILES, CONVERSATIONS),
}


def read_run_card(run: Path, command: str) -> dict[str, Any] | None:
    """The card of a command in its run; None if there is none."""
    path = run_card(run, command)
    if not path.is_file():
        return None
    return read_object(path, "status", "config", mend=f"delete it and repeat `lightning {command}`")


def write_run_card(run: Path, command: str, card: dict[str, Any]) -> None:
    """Writes the card of a command; values that JSON does not know are written as text."""
    write_json(run_card(run, command), card, default=str)


def has_written(run: Path, command: str, config: dict[str, Any]) -> bool:
    """Whether what a command is for is there: in its run, or where its model was told to write it."""
    model = (config.get("model") or {}).get("init_args") or {}
    places = [(run, pattern) for pattern in WRITTEN.get(command, (run_card(run, command).name,))]
    if command == "fit":
        places += [(Path(model[name]), f"**/{CARD}") for name in ("adapters", "tuned") if model.get(name)]
    return any(is_whole(path) for directory, pattern in places for path in directory.glob(pattern))


def prepared_fingerprint(corpus: Path) -> str | None:
    """Fingerprint of a prepared corpus, that of its manifest; None if it is not prepared."""
    return fingerprint_of(corpus / MANIFEST)


def profiles_fingerprint(config: dict[str, Any]) -> str | None:
    """Fingerprint of the profiles that a configuration names for its prompts; None if its prompts have none."""
    data = (config.get("data") or {}).get("init_args") or {}
    if not data.get("profiles") or (data.get("prompt") or {}).get("style", "none") == "none":
        return None
    return fingerprint_of(Path(data["profiles"]))


def backbone_fingerprint(*directories: Path | str | None) -> str | None:
    """Fingerprint of the first of these backbones that exists; None if none does."""
    for directory in directories:
        if directory and (manifest := Path(directory) / MANIFEST).is_file():
            return read_object(manifest, "fingerprint", mend="copy the backbone again or retrain it")["fingerprint"]
    return None


def weights_in(*directories: Path) -> list[str]:
    """Fingerprints of the weights of all users below these directories: of their cards, which have those of files."""
    cards = (card for directory in directories for card in directory.glob(f"*/{CARD}"))
    return sorted(fingerprint_of(card) for card in cards if "." not in card.parent.name)  # .best, .partial, .old


def made_from(config: dict[str, Any], run: Path) -> list[str]:
    """Fingerprints of what a test or prediction is made from, besides backbone, profiles and prepared data."""
    model, data = ((config.get(part) or {}).get("init_args") or {} for part in ("model", "data"))
    root = Path(model.get("tuned") or run)
    fingerprints = weights_in(Path(model.get("adapters") or root / ADAPTERS), root / MODELS)
    paths = [Path(data.get("network") or run / NETWORK) / NETWORK_WEIGHTS]
    if chat_model := ((model.get("chat_model") or {}).get("init_args") or {}).get("directory"):
        paths += [*sorted(Path(chat_model).glob("*.safetensors")), Path(chat_model) / "config.json"]
    if data.get("conversations"):
        paths.append(Path(data["conversations"]))
    return sorted([*fingerprints, *(fingerprint_of_sample(path) for path in paths if path.is_file())])
