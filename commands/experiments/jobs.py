"""Experiments that run at once as child processes: rows of a table, points of a sweep."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from commands.experiments import child_process

T = TypeVar("T")
THREADS = "OMP_NUM_THREADS"
GPUS = "CUDA_VISIBLE_DEVICES"
LONGEST_NAME = 100
_DEVICES: ContextVar[Mapping[str, str]] = ContextVar("devices", default=MappingProxyType({}))
"""Environment of the children of the work that is under way: which GPUs they see."""


class RowFailedError(Exception):
    """An experiment has failed; the message names the command, the reason and its log."""

    def __init__(self, message: str, directory: Path | None, reason: str = "") -> None:
        super().__init__(message)
        self.directory = directory  # of the run; None if the command ended before it was known
        self.reason = reason


@dataclass(frozen=True)
class Job:
    """One of several experiments."""

    position: str  # on the screen, such as "1 of 3"
    name: str  # of the row or the point
    log: Path  # of its logs, without the command's name
    environment: Mapping[str, str]

    def say(self, text: object) -> None:
        """Prints a line about this experiment."""
        print(f"[{self.position}] {self.name}: {text}", flush=True)

    async def run(self, arguments: Sequence[str]) -> Path | None:
        """Runs a command of `lightning` and gives its run directory; RowFailedError if it fails."""
        command = arguments[0]
        log = self.log.with_name(f"{self.log.name}.{command}.log")
        self.say(f"{command} ({log})")
        run = await child_process.run_lightning(arguments, log, {**self.environment, **_DEVICES.get()})
        if run.error is not None:
            raise RowFailedError(f"lightning {command}: {run.error} (all of it: {log})", run.directory, run.error)
        self.say(f"{command} {run.seconds:.0f} s")
        return run.directory


def jobs_of(names: Iterable[str], logs: Path, environment: Mapping[str, str]) -> list[Job]:
    """A job for each name, with logs below a directory."""
    names = list(names)
    files = [re.sub(r"[^A-Za-z0-9=_-]+", "-", name)[:LONGEST_NAME] for name in names]
    return [
        Job(f"{number} of {len(names)}", name, logs / f"{number}-{file}", environment)
        for number, (name, file) in enumerate(zip(names, files, strict=True), start=1)
    ]


def all_of(works: Sequence[Callable[[], Awaitable[T]]], jobs: int = 1) -> list[T]:
    """Results of works that wait for child processes; they begin in their order, at most `jobs` at once.

    A signal that ends this process, or an interrupt from the keyboard, first ends what is under way. Call it from the
    main thread: it listens for signals.

    Raises:
        SystemExit: This process was terminated.
        Exception: The first that a work has raised; the others are cancelled.
    """
    signals: list[int] = []
    try:
        return asyncio.run(_all_of(works, jobs, signals))
    except asyncio.CancelledError:
        sys.exit(128 + signals[0])
    except ExceptionGroup as error:
        raise error.exceptions[0] from None


async def _all_of(works: Sequence[Callable[[], Awaitable[T]]], jobs: int, signals: list[int]) -> list[T]:
    """The same, cancelled by a signal, which is appended to `signals`."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    slots: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    for devices in devices_of(jobs):
        slots.put_nowait(devices)
    assert task is not None, "this is a coroutine of asyncio.run"

    def cancel(number: int) -> None:
        signals.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, cancel, number)

    async def in_turn(work: Callable[[], Awaitable[T]]) -> T:
        devices = await slots.get()
        _DEVICES.set(devices)  # of this task alone
        try:
            return await work()
        finally:
            slots.put_nowait(devices)

    async with asyncio.TaskGroup() as group:  # unlike `gather`, it waits for all when it is cancelled
        tasks = [group.create_task(in_turn(work)) for work in works]
    return [task.result() for task in tasks]


def threads_of(jobs: int) -> dict[str, str]:
    """The environment of a child that shares this machine's cores; a number of threads that is set stays."""
    if jobs == 1 or THREADS in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {THREADS: str(max(1, cores // jobs))}


def devices_of(jobs: int) -> list[dict[str, str]]:
    """For each of the jobs at once, the environment that gives it its share of the GPUs; empty without GPUs.

    Every job has GPUs of its own, or one that it shares where there are more jobs than GPUs.
    """
    gpus = _visible_gpus() if jobs > 1 else []
    if not gpus:
        return [{} for _ in range(jobs)]
    return [{GPUS: ",".join(gpus[slot % len(gpus) :: jobs])} for slot in range(jobs)]


def _visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them."""
    import torch

    chosen = [name.strip() for name in os.environ.get(GPUS, "").split(",") if name.strip()]
    num_gpus = torch.cuda.device_count()
    return chosen[:num_gpus] or [str(number) for number in range(num_gpus)]
