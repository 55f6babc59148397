"""Which commands have nothing to do: asked of all at once, because to start a command takes longer than to look.

In, on standard input: a JSON list of the arguments of commands of the trainer. Out, on standard output: a JSON list
of their run directories, null where there is something to do, or where a command cannot even be read (it says so
itself when it is run).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn

from commands.training.trainer_cli import TrainerCLI


class _FoundFinished(Exception):
    pass


class _Question(TrainerCLI):
    """Reads a command and looks at its run, and goes no further."""

    def before_instantiate_classes(self) -> NoReturn:
        self.run_directory = self._directory()
        earlier = self.earlier_run()
        try:
            if self.subcommand == "fit":
                earlier.checkpoint_of_a_fit()
            else:
                earlier.leave_if_done()
        except SystemExit:
            raise _FoundFinished(self.run_directory) from None
        raise SystemExit(1)


def finished_run(arguments: Sequence[str]) -> Path | None:
    """The run directory of a command that has nothing to do, else None."""
    try:
        _Question(arguments)
    except _FoundFinished as found:
        return found.args[0]
    except (Exception, SystemExit):  # whatever is wrong with it, it says itself
        return None
    raise AssertionError("a question has no other end")


def main() -> None:
    """Answers what stands on standard input."""
    with redirect_stdout(sys.stderr):
        found = [finished_run(arguments) for arguments in json.load(sys.stdin)]
    json.dump([None if run is None else str(run) for run in found], sys.stdout)


if __name__ == "__main__":
    main()
