"""Runs the tasks of a stage in several processes, on this machine or on a Ray cluster, by Daft.

The same Daft query runs on both engines: a row a task, and a function in processes of its own that is handed one row at
a time. It runs in a child process (`engine_process.py`), because Daft may crash as it ends (3 of 76 runs in our trials)
and reports its usage to two hosts unless it is told not to before it is imported. Results on disk decide whether a
stage has succeeded. A task with a result is not run again, so that a killed run resumes.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from artefacts.files import read_json

from . import engine_process
from .stage_tasks import StageTasks

SILENT = {
    "DO_NOT_TRACK": "1",
    "SCARF_NO_ANALYTICS": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "DAFT_PROGRESS_BAR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: behind all else that this machine does
}
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a process for each processor, not several threads
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_LINES = 30.0
SECONDS_TO_END = 20.0
AGAIN = "The same command goes on where this one stopped"


class StageFailed(ValueError):
    """A stage could not be finished for a reason that lies in the machine; the same command resumes it."""


class Engine:
    """Where tasks run, as `Preparation` describes it. It is a context: what it has started ends with it."""

    def __init__(self, runner: Literal["native", "ray"], num_workers: int, address: str | None = None) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}, expected 1 or more")
        if address is not None and runner != "ray":
            raise ValueError(f"ray_address is {address}, but the engine is {runner}; add --engine ray")
        needed = {"daft": "prep", "ray": "ray"} if runner == "ray" else {"daft": "prep"}
        for module, extra in needed.items():
            if find_spec(module) is None:
                raise ValueError(f"{module} is not installed; get it with: pip install -e '.[{extra}]'")
        self.runner = runner
        self.num_workers = num_workers
        self.address = address
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # As after Ctrl-C: what is on the stack is left, and with it this context. Only a main thread may do so.
        self._before = signal.signal(signal.SIGTERM, _leave) if _in_main_thread() else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if _in_main_thread():
            signal.signal(signal.SIGTERM, self._before)
        self._end_child()

    def run(
        self, name: str, function: Callable[[Any], dict[str, Any]], tasks: Sequence[Any], directory: Path
    ) -> list[dict[str, Any]]:
        """Calls `function(task)` for every task without a result in `directory/name/<number of the task>.json`.

        Function and tasks can be pickled; the tasks are the same ones in the same order when a run resumes. Results
        are returned in this order.

        Raises:
            ValueError: a task has raised one, or FileNotFoundError.
            StageFailed: a process was killed, or the disk is full.
            RuntimeError: a task has failed otherwise.
        """
        results = (directory / name).absolute()
        results.mkdir(parents=True, exist_ok=True)
        for leftover in results.iterdir():
            if leftover.suffix != ".json":
                leftover.unlink()
        stage = StageTasks(function, dict(enumerate(tasks)), results)
        while missing := stage.without_results():
            self._do(name, missing, len(tasks))
        return [read_json(stage.result(number)) for number in stage.tasks]

    def _do(self, name: str, stage: StageTasks, num_tasks: int) -> None:
        packed = stage.results / "stage.pickle"
        packed.write_bytes(pickle.dumps(stage))
        log = stage.results.with_name("log.txt")
        child = self._child = self._child or self._start_child(log)
        child.stdin.write(f"{packed}\n".encode())
        child.stdin.flush()
        _watch(name, child, stage, num_tasks)
        if errors := sorted(stage.results.glob("*.error")):
            _raise(name, errors[0])
        if child.poll() == engine_process.LOST_NODE:
            print(f"{name}: a machine of the Ray cluster was lost; going on without it")
            self._end_child()
            return
        if missing := stage.without_results():
            tail = log.read_text(encoding="utf-8", errors="replace")[-1500:] if log.is_file() else ""
            raise StageFailed(
                f"{len(missing.tasks)} of {num_tasks} tasks of the stage {name!r} are not done: a process was killed, "
                f"perhaps for want of memory, or the engine failed. {AGAIN}; more num_buckets or fewer workers take "
                f"less memory. The engine's last words:\n{tail}"
            )
        packed.unlink()

    def _start_child(self, log: Path) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        arguments = [self.runner, str(self.num_workers), *([self.address] if self.address else [])]
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", engine_process.__name__, *arguments],
                stdin=subprocess.PIPE,  # takes the stages; its end tells the child that the parent is gone
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **SILENT, **THREADS, "PYTHONPATH": path},
                start_new_session=True,
            )

    def _end_child(self) -> None:
        if self._child is None:
            return
        child, self._child = self._child, None
        if self.runner == "ray":  # it has more to put away than its own processes
            child.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                child.wait(SECONDS_TO_END)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _leave(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


def _watch(name: str, child: subprocess.Popen[bytes], stage: StageTasks, num_tasks: int) -> None:
    """Shows how far the stage is until the child is done with it, or has ended."""
    is_terminal = sys.stderr.isatty()
    started = last = time.monotonic()
    before = num_tasks - len(stage.tasks)
    while child.poll() is None and not (stage.results / "done").is_file():
        time.sleep(SECONDS_BETWEEN_LOOKS)
        now = time.monotonic()
        if now - last >= (1 if is_terminal else SECONDS_BETWEEN_LINES):
            last = now
            done = sum(stage.result(number).is_file() for number in stage.tasks)
            remaining = f", {(now - started) / done * (len(stage.tasks) - done):.0f} s to go" if done else ""
            line = f"{name}: {before + done} of {num_tasks} tasks, {now - started:.0f} s{remaining}"
            print(f"\r{line:<70}" if is_terminal else f"{line}\n", end="", flush=True, file=sys.stderr)
    if is_terminal:
        print(f"\r{'':<70}\r", end="", file=sys.stderr)
    print(f"{name}: {len(stage.tasks)} tasks in {time.monotonic() - started:.1f} s")


def _raise(name: str, path: Path) -> None:
    error = read_json(path)
    if error["is_bad_input"]:
        raise ValueError(error["message"])
    if error["is_of_machine"]:
        raise StageFailed(f"task {path.stem} of the stage {name!r}: {error['type']}: {error['message']}. {AGAIN}")
    raise RuntimeError(
        f"task {path.stem} of the stage {name!r} has failed with {error['type']}: {error['message']}. {AGAIN}, "
        f"when that is mended.\n{error['traceback']}"
    )
