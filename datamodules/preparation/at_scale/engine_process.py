"""The child process of an engine: runs stages as Daft queries until its parent is gone.

    python -m datamodules.preparation.at_scale.engine_process native|ray NUM_WORKERS [ADDRESS]

Standard input names pickled `StageTasks`, one a line. A file `done` beside each says that it was tried.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from artefacts.files import write_text

from .stage_tasks import StageTasks

LOST_NODE = 17
"""Exit code after the loss of a machine of a Ray cluster."""
SECONDS_BETWEEN_NODES = 2.0
MAX_PARTITIONS = 1000


def run_stages(runner: str, num_workers: int, address: str | None = None) -> None:
    """Does the stages that are named on standard input, one after the other."""
    import daft

    stages: queue.Queue[Path] = queue.Queue()
    threading.Thread(target=_listen, args=[stages], daemon=True).start()
    _choose_runner(runner, num_workers, address)
    daft.set_execution_config(maintain_order=False)  # or a worker waits for its turn behind another's long task
    while True:
        packed = stages.get()
        try:
            _query(packed, runner, num_workers)
        except Exception:  # the parent looks at what is there; this goes to the log
            traceback.print_exc()
        write_text(packed.with_name("done"), "", shared=True)


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

    local = {"address": "local", "num_cpus": num_workers, "include_dashboard": False}
    ray.init(**({"address": address} if address else local), log_to_driver=False)
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

    stage: StageTasks = pickle.loads(packed.read_bytes())
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
    run_stages(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
