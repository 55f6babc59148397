"""Which commands have nothing to do: asked for all of them at once, because starting a command takes seconds.

In, on standard input: a JSON list of the arguments of commands of the trainer. Out, on standard output: a JSON list
of their run directories, null if a command has something to do or cannot be read, which it reports when it is run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn

from commands.training.trainer_cli import TrainerCLI


class _AlreadyFinished(Exception):
    """Carries the run directory."""


class _Question(TrainerCLI):
    """Reads a command and looks at its run, and runs nothing."""

    def before_instantiate_classes(self) -> NoReturn:
        self.run_directory = self._directory()
        earlier = self.earlier_run()
        try:
            if self.subcommand == "fit":
                earlier.checkpoint_of_a_fit()
            else:
                earlier.leave_if_done()
        except SystemExit:
            raise _AlreadyFinished(self.run_directory) from None
        raise SystemExit(1)


def finished_run(arguments: Sequence[str]) -> Path | None:
    """The run directory of a command that has nothing to do, else None."""
    try:
        _Question(arguments)
    except _AlreadyFinished as answer:
        return answer.args[0]
    except (Exception, SystemExit):  # whatever is wrong with it, the command reports itself
        return None
    raise AssertionError("a question has no other end")


def main() -> None:
    """Answers the question on standard input."""
    with redirect_stdout(sys.stderr):
        runs = [finished_run(arguments) for arguments in json.load(sys.stdin)]
    json.dump([None if run is None else str(run) for run in runs], sys.stdout)


if __name__ == "__main__":
    main()
