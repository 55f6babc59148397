"""The manifest of a prepared corpus: what is in it, and what it was made from."""

from pathlib import Path
from typing import Any

from artefacts.files import read_object, write_json
from artefacts.fingerprints import fingerprint
from artefacts.layout import MANIFEST

MANIFEST_VERSION = 1


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a prepared corpus; FileNotFoundError says how to make one."""
    path = directory / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"no prepared corpus in {directory}; make it with: lightning prepare --config experiments/<corpus>.yaml"
        )
    return read_object(path)


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, in one step."""
    write_json(directory / MANIFEST, manifest)


def user_numbers(manifest: dict[str, Any]) -> dict[str, int]:
    """A number for each target user, their place among them; it stays when another one is forgotten."""
    users = sorted(manifest["target_users"])
    free = set(manifest.get("free_numbers", ()))
    numbers = [number for number in range(len(users) + len(free)) if number not in free]
    return dict(zip(users, numbers, strict=True))


def num_pairs(manifest: dict[str, Any], split: str) -> int:
    """Reply pairs in a split, by its manifest."""
    return sum(group[0] for part in manifest["splits"][split] for group in part["row_groups"])


def split_fingerprint(manifest: dict[str, Any], split: str) -> str:
    """What a split holds, in 16 hexadecimal digits: from the SHA-256 of its parts."""
    return fingerprint("".join(part["sha256"] for part in manifest["splits"][split]))
