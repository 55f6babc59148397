"""The commit of this code, for cards and captions. Standard library only, so that callbacks may import it."""

import subprocess
from pathlib import Path


def git_commit() -> str | None:
    """The commit of this code, with a mark where files differ from it; None outside a checkout."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return None
    return run.stdout.strip() or None
