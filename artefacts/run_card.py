"""Run cards: what a command of the trainer did in a run, and the fingerprints of what it did it with."""

from pathlib import Path
from typing import Any

from artefacts.files import read_json, write_json
from artefacts.fingerprints import fingerprint_of
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
    return read_json(path) if path.is_file() else None


def write_run_card(run: Path, command: str, card: dict[str, Any]) -> None:
    """Writes the card of a command; values that JSON does not know are written as text."""
    write_json(run_card(run, command), card, default=str)


def has_written(run: Path, command: str, config: dict[str, Any]) -> bool:
    """Whether what a command is for is there: in its run, or where its model was told to write it."""
    model = (config.get("model") or {}).get("init_args") or {}
    places = [(run, pattern) for pattern in WRITTEN.get(command, (run_card(run, command).name,))]
    if command == "fit":
        places += [(Path(model[name]), f"**/{CARD}") for name in ("adapters", "tuned") if model.get(name)]
    return any(any(directory.glob(pattern)) for directory, pattern in places)


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
            return read_json(manifest)["fingerprint"]
    return None
