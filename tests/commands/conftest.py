"""Commands of rows that are not run, and commands in a process that is killed."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands.experiments import child_process
from commands.experiments.child_process import Run


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """What would have been run, in a directory for each experiment; `broken.yaml` fails when it is fitted."""
    seen = []

    async def run(arguments, log, environment=None):
        seen.append(arguments)
        await asyncio.sleep(0.01)
        directory = tmp_path / "runs" / Path(arguments[2]).stem
        if "broken.yaml" in arguments:
            return Run(directory, "out of luck", 1.0)
        if arguments[0] == "predict":
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "predictions.jsonl").touch()
        return Run(directory, None, 2.0)

    monkeypatch.setattr(child_process, "run_lightning", run)
    monkeypatch.setattr(child_process, "finished", lambda _: {})
    return seen


@pytest.fixture
def started(monkeypatch):
    """Starts our command in a process group of its own and waits until it has written a file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def start(arguments, file):
        process = subprocess.Popen([sys.executable, "-m", "commands.cli", *arguments], start_new_session=True)
        deadline = time.monotonic() + 180
        while not file.is_file():
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return process

    return start
