"""The tasks of a stage that have no result yet: pickled by the engine, run by its processes."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artefacts.files import write_text

MAX_TRIES = 3


@dataclass(frozen=True)
class StageTasks:
    """What a process needs to know of a stage.

    `results/` has `<number>.json`, what `function(tasks[number])` returned, or `<number>.error`.
    """

    function: Callable[[Any], dict[str, Any]]
    tasks: dict[int, Any]
    results: Path

    def result(self, number: int) -> Path:
        return self.results / f"{number}.json"

    def without_results(self) -> StageTasks | None:
        """The tasks that are still to be run; None if all have results."""
        missing = {number: task for number, task in self.tasks.items() if not self.result(number).is_file()}
        return replace(self, tasks=missing) if missing else None

    def do(self, number: int) -> None:
        """Runs a task and keeps its result, or its error."""
        if self.result(number).is_file():  # Ray repeats a task whose process it has lost sight of
            return
        try:
            self._count_try(number)
            write_text(self.result(number), json.dumps(self.function(self.tasks[number])), shared=True)
        except BaseException as error:
            report = {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": traceback.format_exc(),
                "is_bad_input": isinstance(error, ValueError | FileNotFoundError),
                "is_of_machine": isinstance(error, OSError | MemoryError),  # a full disk, for example
            }
            write_text(self.results / f"{number}.error", json.dumps(report), shared=True)
            raise

    def _count_try(self, number: int) -> None:
        """Ray restarts a killed process without limit: a task that kills its process each time has to end."""
        path = self.results / f"{number}.tries"
        with path.open("a") as file:
            file.write(".")
        if path.stat().st_size > MAX_TRIES:
            raise RuntimeError(f"its process was killed {MAX_TRIES} times, perhaps for want of memory")
