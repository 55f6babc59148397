"""Ids of people: how they are written, where they stand in JSON and YAML files of runs, and which look alike."""

from __future__ import annotations

import unicodedata
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from artefacts.layout import CARD, VOCABULARY

JOINERS = "\u200c\u200d"
"""Invisible characters that belong to words and emoji."""

IDS_IN = {
    f"*.{CARD}": ("config", "data", "init_args", "users"),
    "hparams.yaml": ("data", "init_args", "users"),
    VOCABULARY: ("folds",),
}
"""File name → keys that lead to an id, a list of ids or a mapping by id; other JSON and YAML files have none."""


def clean_id(text: str) -> str:
    """An id as it is used everywhere: NFC, no control or invisible characters, single blanks, none at its ends."""
    kept = (
        " " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter
        for letter in unicodedata.normalize("NFC", text)
        if letter in JOINERS or unicodedata.category(letter) != "Cf"
    )
    return " ".join("".join(kept).split())


def look_of(user: str) -> str:
    """What ids have in common that a reader takes for the same: case, width, accents' form, blanks don't count."""
    folded = unicodedata.normalize("NFKC", clean_id(user)).casefold()
    return unicodedata.normalize("NFKC", "".join(folded.split()))


def keys_to_ids(path: Path) -> tuple[str, ...] | None:
    """Where ids stand in a JSON or YAML file of a run, by its name; None if it has none."""
    return next((keys for pattern, keys in IDS_IN.items() if fnmatch(path.name, pattern)), None)


def without_id(content: Any, keys: tuple[str, ...], user: str) -> Any:
    """A content without an id at the end of the keys; all else is unchanged."""
    if keys:
        if not isinstance(content, dict) or keys[0] not in content:
            return content
        return {**content, keys[0]: without_id(content[keys[0]], keys[1:], user)}
    if isinstance(content, dict):
        return {key: value for key, value in content.items() if key != user}
    if isinstance(content, list):
        return [value for value in content if value != user]
    return None if content == user else content
