"""Puts a finished directory in its place, so that a killed process leaves the old one, the new one or none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replace_directory(fresh: Path, directory: Path) -> None:
    """Renames `fresh` to `directory`; what was there is moved out of the way first and deleted last."""
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        os.replace(directory, old)
    os.replace(fresh, directory)
    shutil.rmtree(old, ignore_errors=True)
