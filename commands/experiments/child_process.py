"""Our own command as a child process: how the table and the sweep get runs that are not there yet.

In: arguments of `lightning`. Out: a `Run` (its directory, the reason if it failed), and a log of all it printed. A
process of its own, so that a run that fails or is killed takes nothing with it and gets the whole memory.
"""

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Finished = Mapping[tuple[str, ...], Path]
"""Arguments of commands that have nothing to do -> their run directories."""
DIRECTORY = "run directory: "  # what the command prints in front of it
ERROR = "error: "  # what it says in front of the reason
TRACEBACK = "Traceback (most recent call last):"
THREADS = "OMP_NUM_THREADS"
SERVICE = "WANDB_SERVICE"  # of a process that has logged to W&B; its children would write their logs elsewhere
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


async def run_lightning(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Runs `lightning <arguments>` and waits for it; shows nothing.

    When it is cancelled, the child is told to end, and waited for.

    Args:
        arguments: The subcommand and its flags.
        log: File for all that the command prints, replaced if there; its directory is made.
        environment: Variables for the child on top of this process's own.

    Returns:
        What became of it. A command that fails is no exception here.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    inherited = {name: value for name, value in os.environ.items() if name != SERVICE}
    with log.open("w", encoding="utf-8") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "commands.cli",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            # Unbuffered, so that the log can be followed and its lines are in the order they were printed in.
            env={**inherited, "PYTHONUNBUFFERED": "1", **(environment or {})},
            preexec_fn=_end_with_parent,
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    directories = [Path(line.removeprefix(DIRECTORY)) for line in lines if line.startswith(DIRECTORY)]
    return Run(directories[0] if directories else None, _reason(code, lines), time.monotonic() - started)


def finished(commands: Sequence[Sequence[str]]) -> Finished:
    """Those of the commands that have nothing to do, with their run directories.

    Args:
        commands: arguments of `lightning fit`, `test` or `predict`.
    """
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


def all_of(works: Sequence[Callable[[], Awaitable[T]]], jobs: int = 1) -> list[T]:
    """Does works that wait for child processes, and begins them in their order.

    A signal that ends this process, or an interrupt from the keyboard, first ends what is under way. Call it from the
    main thread: it listens for signals.

    Args:
        works: What is to be done.
        jobs: Most that are under way at once.

    Returns:
        Their results, in the order of `works`.

    Raises:
        SystemExit: This process was told to end.
        Exception: The first that a work has raised; the others are cancelled.
    """
    told: list[int] = []

    async def begin() -> list[T]:
        loop, task, places = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Semaphore(jobs)
        assert task is not None, "this is a coroutine of asyncio.run"

        def end(number: int) -> None:
            told.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, end, number)

        async def in_turn(work: Callable[[], Awaitable[T]]) -> T:
            async with places:
                return await work()

        async with asyncio.TaskGroup() as group:  # unlike `gather`, it waits for all when it is cancelled
            tasks = [group.create_task(in_turn(work)) for work in works]
        return [task.result() for task in tasks]

    try:
        return asyncio.run(begin())
    except asyncio.CancelledError:
        sys.exit(128 + told[0])
    except ExceptionGroup as error:
        raise error.exceptions[0] from None


def threads_of(jobs: int) -> dict[str, str]:
    """The environment of a child that has this machine's cores with others; its own choice of threads stays."""
    if jobs == 1 or THREADS in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {THREADS: str(max(1, cores // jobs))}


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


def _end_with_parent() -> None:
    """In the child: it is told to end when its parent is gone even without a word (kill -9). Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
