"""People who asked to be left out: a text file of ids, one a line, beside the data.

In: the file. Out: the ids, and the file with one more.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def read_opt_out(path: Path) -> frozenset[str]:
    """The ids in the file; FileNotFoundError where there is none, because a mistyped name would leave nobody out."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found; opt_out is a text file of people's ids, one a line, and may be empty"
        )
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return frozenset(line.strip() for line in lines) - {""}


def names_fingerprint(names: frozenset[str]) -> str:
    """Tells one list from another, without naming anybody."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def add_to_opt_out(path: Path, user: str) -> None:
    """Adds an id at the end, unless it is there; the file is made if it is missing, and whole at any time."""
    before = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    if path.is_file() and user.strip() in read_opt_out(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".forgetting")
    partial.write_text(before + ("\n" if before and not before.endswith("\n") else "") + user + "\n", encoding="utf-8")
    os.replace(partial, path)
