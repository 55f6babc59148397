"""What became of a command: a child process writes it as JSON to a file that its parent has named."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from artefacts.files import read_json, write_json

VARIABLE = "LIGHTNING_OUTCOME"
"""The environment variable with the path of the file."""
Status = Literal["running", "finished", "failed"]


@dataclass(frozen=True)
class Outcome:
    """The content of the file."""

    directory: str | None = None  # of the run; None if the command has none (`prepare`) or ended before it was known
    status: Status = "running"  # what remains of a process that was killed
    reason: str | None = None  # why it failed, in one line


class Report:
    """Writes the outcome of this process's command, if its parent wants to know it."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.directory: str | None = None

    @classmethod
    def of_this_process(cls) -> Self:
        """The report to this process's parent; processes that this one starts don't inherit it."""
        path = os.environ.pop(VARIABLE, None)
        return cls(None if path is None else Path(path))

    def begin(self, directory: Path) -> None:
        """Tells the run directory as soon as it is known."""
        self.directory = str(directory)
        self._write("running", None)

    def end(self, reason: str | None) -> None:
        """Tells that the command has finished, or the reason why it failed."""
        self._write("finished" if reason is None else "failed", reason)

    def _write(self, status: Status, reason: str | None) -> None:
        if self.path is not None:
            write_json(self.path, asdict(Outcome(self.directory, status, reason)))


def read_outcome(path: Path) -> Outcome:
    """What a process has written; it is still running, or was killed early, if there is no file."""
    return Outcome(**read_json(path)) if path.is_file() else Outcome()
