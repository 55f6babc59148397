"""People who asked to be left out: a text file of ids, one a line, beside the data."""

from __future__ import annotations

import re
from pathlib import Path

from artefacts.files import write_text
from artefacts.fingerprints import fingerprint
from artefacts.people import clean_id

COMMENT = re.compile(r"(^|\s)#.*")


def read_opt_out(path: Path) -> frozenset[str]:
    """The ids in the file, as `clean_id` writes them; what follows a `#` is a comment.

    Raises:
        FileNotFoundError: it is missing; a mistyped name would leave nobody out.
        ValueError: it is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found; opt_out is a text file of people's ids, one a line, and may be empty"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    return frozenset(clean_id(COMMENT.sub("", line)) for line in lines) - {""}


def names_fingerprint(names: frozenset[str]) -> str:
    """Tells one list from another, without naming anybody."""
    return fingerprint("\n".join(sorted(names)))


def add_to_opt_out(path: Path, user: str) -> None:
    """Adds an id at the end, unless it is listed; the file is made if it is missing, and whole at any time."""
    before = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    if not path.is_file() or clean_id(user) not in read_opt_out(path):
        write_text(path, before + ("\n" if before and not before.endswith("\n") else "") + clean_id(user) + "\n")
