"""The command `lightning`: finds the subcommand, and ends as a person, a shell and a parent process expect it."""

import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version

from commands.environment import import_torchmetrics_for_help, keep_offline, keep_private
from commands.experiments.outcome import Report
from commands.mistakes import message_for_a_person, one_line_of
from commands.parsing import files_first
from commands.registry import COMMANDS, TRAINER, command_in, help_of

HARMLESS_WARNINGS = (
    ".*LightningCLI's args parameter is intended to run from within Python.*",
    ".*does not have many workers.*",  # collation is far faster than a training step
    ".*Your `IterableDataset` has `__len__` defined.*",  # true only of several workers, and there are none
    ".*your dataloader is not resumable.*",  # the data module is
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*LeafSpec.*",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; mistakes of the person at the keyboard end in one line, not in a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.argv[1:] = arguments  # what Lightning starts further processes with
    keep_offline()
    for message in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message)
    report = Report.of_this_process()
    try:
        keep_private()
        dispatch(arguments, report)
    except BaseException as error:
        end = _end_of(error)
        report.end(_reason(end))
        if end is error:
            raise
        raise end from None
    report.end(None)


def dispatch(arguments: Sequence[str], report: Report) -> None:
    """Runs the command that the arguments begin with; the report is told the run directory, if it has one."""
    if not arguments:
        sys.exit(help_of())
    if arguments in (["--help"], ["-h"], ["human-eval", "--help"], ["human-eval", "-h"]):
        print(help_of(arguments[0] if len(arguments) > 1 else ""))
        return
    if arguments == ["--version"]:
        print(version("user-dialogue"))
        return
    name = command_in(arguments)
    arguments = [*name.split(), *files_first(arguments[len(name.split()) :])]
    if COMMANDS[name].path == TRAINER:
        if {"--help", "-h"} & set(arguments):
            import_torchmetrics_for_help()
        from commands.training.trainer_cli import run_trainer

        run_trainer(arguments, report)
    else:
        from commands.tools import run_tool

        run_tool(name, arguments[len(name.split()) :])


def _end_of(error: BaseException) -> BaseException:
    """How the process ends after an error: as it is, or as an exit with a line for a person."""
    cause = error.__context__ if isinstance(error, SystemExit) else error  # Lightning exits with 1 after an interrupt
    if isinstance(cause, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        end = SystemExit(128 + signal.SIGINT)
        end.add_note("interrupted")
        return end
    if isinstance(error, SystemExit) or (message := message_for_a_person(error)) is None:
        return error
    return SystemExit(f"error: {message}")


def _reason(end: BaseException) -> str | None:
    """Why the command failed, in one line; None if it did not."""
    if not isinstance(end, SystemExit):
        return one_line_of(end)
    if end.code in (None, 0):
        return None
    texts = [end.code] if isinstance(end.code, str) else getattr(end, "__notes__", [f"exit code {end.code}"])
    return texts[0].removeprefix("error: ").partition("\n")[0]


if __name__ == "__main__":
    main()
