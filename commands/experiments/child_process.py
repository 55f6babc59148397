"""Our own command as a child process, so that a run that fails or is killed takes nothing with it."""

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from commands.experiments.outcome import VARIABLE, read_outcome

COMMAND = (sys.executable, "-m", "commands.cli")
Finished = Mapping[tuple[str, ...], Path]
"""Arguments of commands that have nothing to do -> their run directories."""
SERVICE = "WANDB_SERVICE"  # of a process that has logged to W&B; its children would write their logs elsewhere
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Run:
    """What became of a command."""

    directory: Path | None  # of the run; None if the command ended before it knew, or has none (`prepare`)
    error: str | None  # the reason in one line; None when it succeeded
    seconds: float


async def run_lightning(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Runs `lightning <arguments>` and waits for it; all that it prints goes to the log, which is overwritten.

    When this is cancelled, the child is terminated, and waited for. A command that fails is no exception here.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    inherited = {name: value for name, value in os.environ.items() if name != SERVICE}
    with TemporaryDirectory() as temporary, log.open("wb") as output:
        outcome_file = Path(temporary) / "outcome.json"
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            # Unbuffered, so that the log can be followed and its lines are in the order they were printed in.
            env={**inherited, "PYTHONUNBUFFERED": "1", **(environment or {}), VARIABLE: str(outcome_file)},
            preexec_fn=_end_with_parent,
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
        outcome = read_outcome(outcome_file)
    directory = None if outcome.directory is None else Path(outcome.directory)
    return Run(directory, _reason(code, outcome.reason), time.monotonic() - started)


def finished(commands: Sequence[Sequence[str]]) -> Finished:
    """Those of the commands `fit`, `test` and `predict` that have nothing to do, with their run directories."""
    asked = subprocess.run(
        [sys.executable, "-m", "commands.experiments.finished"],
        input=json.dumps([list(command) for command in commands]),
        capture_output=True,
        text=True,
        preexec_fn=_end_with_parent,
    )
    if asked.returncode:  # then each command is run, and finds out itself
        return {}
    answers = zip(commands, json.loads(asked.stdout), strict=True)
    return {tuple(command): Path(run) for command, run in answers if run is not None}


def _reason(code: int, reason: str | None) -> str | None:
    """Why a process failed, by its exit code and what it has told; None if it succeeded."""
    if code == 0:
        return None
    return f"killed by {signal.Signals(-code).name}" if code < 0 else reason or f"exit code {code}"


def _end_with_parent() -> None:
    """In the child: it is terminated when its parent is gone, even by kill -9. Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
