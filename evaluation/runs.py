"""Our own command as a child process: how the table and the sweep get runs that are not there yet.

In: arguments of `lightning`. Out: a `Run` (its directory, the reason if it failed), and a log of all it printed.
A process of its own, so that a run that fails or is killed takes nothing with it and gets the whole memory.
Not its job: what is run, and what is made of it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = "run directory: "  # what the command prints in front of it
ERROR = "error: "  # what it says in front of the reason
TRACEBACK = "Traceback (most recent call last):"
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Run:
    """What became of a command.

    Attributes:
        directory: Of the run; None if the command ended before it knew, or has none (`prepare`).
        error: The reason in one line; None when it succeeded.
        seconds: Wall time.
    """

    directory: Path | None
    error: str | None
    seconds: float


def run_lightning(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Runs `lightning <arguments>` and waits for it; shows nothing.

    If this process is interrupted or told to end, the child is told to, waited for, and then the exception goes on.
    Call it from the main thread: it listens for signals.

    Args:
        arguments: The subcommand and its flags.
        log: File for all that the command prints, replaced if there; its directory is made.
        environment: Variables for the child on top of this process's own.

    Returns:
        What became of it. A command that fails is no exception here.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as output, _signals_as_exceptions():
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_modules.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Unbuffered, so that the log can be followed and its lines are in the order they were printed in.
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            preexec_fn=_end_with_parent,
        )
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    directories = [Path(line.removeprefix(DIRECTORY)) for line in lines if line.startswith(DIRECTORY)]
    return Run(directories[0] if directories else None, _reason(code, lines), time.monotonic() - started)


def _reason(code: int, lines: Sequence[str]) -> str | None:
    """Why a command failed: its signal, its own `error: ...`, the last line of its traceback, or the last at all."""
    if code == 0:
        return None
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if ours := [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]:
        return ours[-1]
    if TRACEBACK in lines:
        after = lines[len(lines) - lines[::-1].index(TRACEBACK) :]
        if raised := [line for line in after if line and not line[0].isspace()]:
            return raised[0]
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Lets a signal that ends a process unwind it as an interrupt from the keyboard does."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_parent() -> None:
    """In the child: it is told to end when its parent is gone even without a word (kill -9). Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
