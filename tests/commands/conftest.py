"""Commands of rows that are not run, and commands in a process that is killed."""

import asyncio
import multiprocessing
from pathlib import Path

import pytest
from ending import run_command

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


ROOT = Path(__file__).parents[2]
PRELOADED = [
    "commands.training.trainer_cli",
    "commands.table",
    "callbacks",
    "lightning_modules.user_lora",
    "lightning_modules.user_tuning",
]


@pytest.fixture
def fork(monkeypatch):
    """Starts a function in a process that is forked from a server.

    The server has imported everything, which takes longer than all else that a command does in these tests.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def start(function, *arguments):
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return start


@pytest.fixture
def start_command(project, fork):
    """Starts `lightning ...` in the project, as a process to be killed."""
    return lambda *arguments: fork(run_command, arguments, project)
