"""Lets several processes train in turns, so that whatever else the machine does hits all of them alike.

Each competitor is a process of its own, with its own memory, environment and libraries. It trains a slice of
steps when it is told to and waits while the others have their turn. Outside a slice its clock stands still.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Turns:
    """A worker's side; to be made before anything that prints is imported.

    The first slice begins when `begin` returns, and ends, as all do, after its last step.
    What a trainer does between two steps, such as fetching the next batch, is inside the slice of the later one.

    Args:
        steps: optimizer steps of a slice.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.step = 0
        self.channel = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print goes to the log

    def begin(self, **facts: Any) -> None:
        """Says that everything is loaded, and waits for the first turn."""
        self._say(facts)

    def after_step(self) -> None:
        """To be called after every optimizer step."""
        self.step += 1
        if self.step % self.steps == 0:
            self._say({"seconds": time.perf_counter() - self.began})

    def end(self, **facts: Any) -> None:
        """The last word, answering a turn that is no slice."""
        print(json.dumps(facts), file=self.channel, flush=True)

    def _say(self, facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=self.channel, flush=True)
        if not sys.stdin.readline():
            sys.exit("the benchmark has gone")
        self.began = time.perf_counter()


class Worker:
    """The benchmark's side.

    Args:
        command: starts the process.
        log: file for what it prints.
        environment: its environment variables.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=dict(environment),
            )

    def hear(self) -> dict[str, Any]:
        """The next thing it says; RuntimeError with the end of its log where it died."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.log.stem} has died:\n{self.log.read_text()[-3000:]}")
        return json.loads(line)

    def turn(self) -> dict[str, Any]:
        """Gives it a turn and waits for what it says afterwards."""
        print(file=self.process.stdin, flush=True)
        return self.hear()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
