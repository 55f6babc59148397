"""Which commands have nothing to do: asked for all of them at once, because starting a command takes seconds.

In, on standard input: a JSON list of the arguments of commands of the trainer. Out, on standard output: a JSON list
of their run directories, null if a command has something to do or cannot be read, which it reports when it is run.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import NoReturn

from commands.experiments.outcome import Report
from commands.training.trainer_cli import TrainerCLI


class _Question(TrainerCLI):
    """Reads a command and looks at its run, and runs nothing; exits with 0 if there is nothing to do."""

    def before_instantiate_classes(self) -> NoReturn:
        self.run_directory = self._directory()
        self.report.begin(self.run_directory)
        earlier = self.earlier_run()
        if self.subcommand == "fit":
            earlier.checkpoint_of_a_fit()
        else:
            earlier.leave_if_done()
        raise SystemExit(1)


def finished_run(arguments: Sequence[str]) -> str | None:
    """The run directory of a command that has nothing to do, else None."""
    report = Report()
    try:
        _Question(arguments, report)
    except SystemExit as end:
        return report.directory if end.code == 0 else None
    except Exception:  # whatever is wrong with it, the command reports itself
        return None
    raise AssertionError("a question has no other end")


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):
        runs = [finished_run(arguments) for arguments in json.load(sys.stdin)]
    json.dump(runs, sys.stdout)
