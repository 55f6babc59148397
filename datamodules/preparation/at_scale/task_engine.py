"""Runs the tasks of a stage in several processes, on this machine or on a Ray cluster, by Daft.

In: a function, the tasks it is called with, and a directory. Out: what it returned for each, kept there as JSON.

The same Daft query runs on both engines: a row a task, and a function in processes of its own that is handed one row at
a time. It runs in a child process, because Daft may crash as it ends (3 of 76 runs in our trials) and reports at two
hosts how it is used unless it is told not to before it is imported. Whether a stage has succeeded is decided by the
results that are there. A task with a result is not run again, so a run that was killed goes on.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

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
MAX_TRIES = 3
SECONDS_BETWEEN_NODES = 2.0
MAX_PARTITIONS = 1000
LOST_NODE = 17  # the child's exit code for it
AGAIN = "The same command goes on where this one stopped"


class StageFailed(ValueError):
    """A stage could not be finished for a reason that lies in the machine; the same command goes on with it."""


class Engine:
    """Where tasks run. It is a context: what it has started ends with it.

    Args:
        runner: `native` for processes of this machine, `ray` for those of a Ray cluster.
        num_workers: tasks at once.
        address: of a Ray cluster that is running; None starts one here, of `num_workers` processors.

    Raises:
        ValueError: what is needed is not installed, or an address is given without a cluster's being asked for.
    """

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
        """Calls `function(task)` for every task that has no result yet.

        Args:
            name: of the stage; its results are in `directory/name/<number of the task>.json`.
            function: can be pickled, and returns what JSON can hold.
            tasks: can be pickled; they must be the same ones in the same order when a run goes on.
            directory: of the results.

        Returns:
            The results in the order of the tasks.

        Raises:
            ValueError: a task has raised one, or FileNotFoundError.
            StageFailed: a process was killed, or the disk is full.
            RuntimeError: a task has failed otherwise.
        """
        results = (directory / name).absolute()
        results.mkdir(parents=True, exist_ok=True)
        for left_over in results.iterdir():
            if left_over.suffix != ".json":
                left_over.unlink()
        while missing := [number for number in range(len(tasks)) if not _result(results, number).is_file()]:
            self._do(name, _Stage(function, {number: tasks[number] for number in missing}, results), len(tasks))
        return [json.loads(_result(results, number).read_text(encoding="utf-8")) for number in range(len(tasks))]

    def _do(self, name: str, stage: _Stage, num_tasks: int) -> None:
        packed = stage.results / "stage.pickle"
        packed.write_bytes(pickle.dumps(stage))
        log = stage.results.with_name("log.txt")
        child = self._child = self._child or self._start_child(log)
        child.stdin.write(f"{packed}\n".encode())
        child.stdin.flush()
        _watch(name, child, stage, num_tasks)
        if errors := sorted(stage.results.glob("*.error")):
            _raise(name, errors[0])
        if child.poll() == LOST_NODE:
            print(f"{name}: a machine of the Ray cluster was lost; going on without it")
            self._end_child()
            return
        missing = [number for number in stage.tasks if not _result(stage.results, number).is_file()]
        if missing:
            tail = log.read_text(encoding="utf-8", errors="replace")[-1500:] if log.is_file() else ""
            raise StageFailed(
                f"{len(missing)} of {num_tasks} tasks of the stage {name!r} are not done: a process was killed, "
                f"perhaps for want of memory, or the engine failed. {AGAIN}; more num_buckets or fewer workers take "
                f"less memory. The engine's last words:\n{tail}"
            )
        packed.unlink()

    def _start_child(self, log: Path) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        where = [self.runner, str(self.num_workers), *([self.address] if self.address else [])]
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", __name__, *where],
                stdin=subprocess.PIPE,  # takes the stages; its end tells the child that we are gone
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


@dataclass(frozen=True)
class _Stage:
    """What the child process needs to know."""

    function: Callable[[Any], dict[str, Any]]
    tasks: dict[int, Any]
    results: Path

    def do(self, number: int) -> None:
        """Runs one task and keeps its result, or what went wrong."""
        if _result(self.results, number).is_file():  # Ray runs a task again when it has lost sight of who ran it
            return
        try:
            self._count_try(number)
            _write(_result(self.results, number), json.dumps(self.function(self.tasks[number])))
        except BaseException as error:
            told = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
            told["is_ours"] = isinstance(error, ValueError | FileNotFoundError)
            told["is_of_machine"] = isinstance(error, OSError | MemoryError)  # a full disk, for one
            _write(self.results / f"{number}.error", json.dumps(told))
            raise

    def _count_try(self, number: int) -> None:
        """Ray starts a process that was killed again and again: a task that kills it each time has to end."""
        path = self.results / f"{number}.tries"
        with path.open("a") as file:
            file.write(".")
        if path.stat().st_size > MAX_TRIES:
            raise RuntimeError(f"its process was killed {MAX_TRIES} times, perhaps for want of memory")


def _result(results: Path, number: int) -> Path:
    return results / f"{number}.json"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


# ---- the parent


def _watch(name: str, child: subprocess.Popen[bytes], stage: _Stage, num_tasks: int) -> None:
    """Says how far the stage is until the child is done with it, or has ended."""
    started = last = time.monotonic()
    before = num_tasks - len(stage.tasks)
    while child.poll() is None and not (stage.results / "done").is_file():
        time.sleep(SECONDS_BETWEEN_LOOKS)
        now = time.monotonic()
        if now - last >= (1 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES):
            last = now
            done = sum(_result(stage.results, number).is_file() for number in stage.tasks)
            left = (now - started) / done * (len(stage.tasks) - done) if done else None
            remaining = f", {left:.0f} s to go" if left is not None else ""
            line = f"{name}: {before + done} of {num_tasks} tasks, {now - started:.0f} s{remaining}"
            print(
                f"\r{line:<70}" if sys.stderr.isatty() else line,
                end="" if sys.stderr.isatty() else "\n",
                file=sys.stderr,
            )
    if sys.stderr.isatty():
        print("\r" + " " * 70 + "\r", end="", file=sys.stderr)
    print(f"{name}: {len(stage.tasks)} tasks in {time.monotonic() - started:.1f} s")


def _raise(name: str, path: Path) -> None:
    told = json.loads(path.read_text(encoding="utf-8"))
    if told["is_ours"]:
        raise ValueError(told["message"])
    if told["is_of_machine"]:
        raise StageFailed(f"task {path.stem} of the stage {name!r}: {told['type']}: {told['message']}. {AGAIN}")
    raise RuntimeError(
        f"task {path.stem} of the stage {name!r} has failed with {told['type']}: {told['message']}. {AGAIN}, "
        f"when that is mended.\n{told['traceback']}"
    )


# ---- the child


def _child(runner: str, num_workers: int, address: str | None = None) -> None:
    """Does the stages that are named on standard input, one after the other."""
    import daft

    stages: queue.Queue[Path] = queue.Queue()
    threading.Thread(target=_listen, args=[stages], daemon=True).start()
    try:
        _choose_runner(runner, num_workers, address)
        daft.set_execution_config(maintain_order=False)  # or a worker waits for its turn behind another's long task
        while True:
            packed = stages.get()
            try:
                _query(packed, runner, num_workers)
            except Exception:  # the parent looks at what is there; this goes to the log
                traceback.print_exc()
            _write(packed.with_name("done"), "")
    finally:
        sys.stderr.flush()


def _listen(stages: queue.Queue[Path]) -> None:
    """Puts stages into the queue; when the parent's end of our standard input is closed, ends us and our workers."""
    for line in sys.stdin:
        stages.put(Path(line.strip()))
    if (ray := sys.modules.get("ray")) is not None:
        with suppress(Exception):
            ray.shutdown()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _choose_runner(runner: str, num_workers: int, address: str | None) -> None:
    import daft

    if runner == "native":
        daft.set_runner_native()
        return
    import ray

    if address is None:
        ray.init(address="local", num_cpus=num_workers, include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address=address, log_to_driver=False)
    threading.Thread(target=_watch_nodes, daemon=True).start()
    daft.set_runner_ray()


def _watch_nodes() -> None:
    """Ends this process when a machine of the cluster is lost: Daft would wait for what it did, maybe for ever."""
    import ray

    before: set[str] = set()
    while True:
        there = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if before - there:
            os._exit(LOST_NODE)
        before = there
        time.sleep(SECONDS_BETWEEN_NODES)


def _query(packed: Path, runner: str, num_workers: int) -> None:
    import daft

    stage: _Stage = pickle.loads(packed.read_bytes())
    numbers = daft.from_pydict({"number": list(stage.tasks)})
    if runner == "ray":
        import ray

        numbers = numbers.into_partitions(min(len(stage.tasks), MAX_PARTITIONS))
        num_workers = min(num_workers, int(ray.cluster_resources().get("CPU", 1)))  # more would be waited for

    @daft.cls(use_process=True, max_concurrency=min(num_workers, len(stage.tasks)))
    class Worker:
        def __init__(self, path: str) -> None:
            self.stage = pickle.loads(Path(path).read_bytes())

        @daft.method.batch(return_dtype=daft.DataType.int64(), batch_size=1)
        def do(self, numbers: Any) -> Any:
            for number in numbers.to_pylist():
                self.stage.do(number)
            return numbers

    numbers.select(Worker(str(packed)).do(numbers["number"])).collect()


if __name__ == "__main__":
    from datamodules.preparation.at_scale import task_engine as engine  # what is pickled is in the module of this name

    engine._child(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
