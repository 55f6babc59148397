"""Runs as child processes: what is learnt from them, and that none is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from commands.experiments import child_process as runs
from commands.experiments.child_process import THREADS, Run, all_of, run_lightning, threads_of

ROOT = Path(__file__).parents[3]


def run_one(*arguments):
    (run,) = all_of([partial(run_lightning, *arguments)])
    return run


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a script in the place of our command: starting ours takes six seconds."""
    package = tmp_path / "stand_in" / "commands"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}{os.pathsep}{ROOT}")
    monkeypatch.chdir(tmp_path)

    def write(script):
        (package / "cli.py").write_text(f"import os, signal, sys, time\n{script}\n")
        return tmp_path / "logs" / "child.log"

    return write


def test_a_run_that_succeeds(stand_in):
    log = stand_in("print('run directory: runs/a,rank=2'); print(sys.argv[1:], os.environ['MINE'], file=sys.stderr)")
    run = run_one(["fit", "--x=1"], log, {"MINE": "yes"})
    assert (run.directory, run.error) == (Path("runs/a,rank=2"), None)
    assert 0 < run.seconds < 30
    assert log.read_text() == "run directory: runs/a,rank=2\n['fit', '--x=1'] yes\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('early'); sys.exit('error: rank must be 1 or more')", "rank must be 1 or more"),
        ("def f():\n  raise KeyError('rank')\nf()", "KeyError: 'rank'"),
        (
            "import atexit; atexit.register(lambda: print('bye', file=sys.stderr)); raise OSError('disk\\n  is full')",
            "OSError: disk",
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("print('what is this?', file=sys.stderr); print(' '); sys.exit(3)", "what is this?"),
        ("sys.exit(3)", "exit code 3"),
    ],
)
def test_the_reason_of_a_failure(stand_in, script, reason):
    run = run_one([], stand_in(script))
    assert run == Run(None, reason, run.seconds)


def test_the_real_command_says_why_and_where(project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    fit = ["fit", "--config", "experiments/lora_tiny.yaml", "--data.users=eve", "--run=r"]
    run = run_one(fit, Path("child.log"))
    assert run.directory == Path("runs/r")
    assert run.error.startswith("unknown users ['eve']")


def test_works_are_done_at_once_and_come_back_in_their_order(stand_in):
    """The first waits for what the second does."""
    log = stand_in("while sys.argv[1] == 'a' and not os.path.exists('b'): time.sleep(0.01)\nopen(sys.argv[1], 'w')")
    works = [partial(run_lightning, [name], log.with_name(name)) for name in ("a", "b", "c")]
    assert [run.error for run in all_of(works, jobs=2)] == [None] * 3
    assert all_of([], jobs=2) == []


def test_a_work_that_raises_ends_the_others(tmp_path):
    ended = []

    async def long():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def bad():
        await asyncio.sleep(0.01)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        all_of([long, bad], jobs=2)
    assert ended == [True]


def test_cores_are_shared_out_unless_somebody_has_chosen(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert threads_of(1) == {}
    assert threads_of(3) == {THREADS: "2"}
    assert threads_of(9) == {THREADS: "1"}
    monkeypatch.setenv(THREADS, "5")
    assert threads_of(3) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(stand_in, number):
    """Whatever ends the parent ends the children; told to end, they may do it in their own way, and are waited for."""
    if number == signal.SIGKILL and runs._LIBC is None:
        pytest.skip("there is no such call on this system")
    logs = [
        stand_in(
            "def end(*_):\n  time.sleep(0.3); print('ended'); sys.exit(1)\n"
            "signal.signal(signal.SIGTERM, end); print(os.getpid()); time.sleep(60)"
        ).with_name(name)
        for name in ("one.log", "two.log", "never.log")
    ]
    works = ", ".join(f"partial(run_lightning, [], Path({str(log)!r}))" for log in logs)
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from functools import *\nfrom commands.experiments.child_process import *\nall_of([{works}], jobs=2)",
        ],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run behind a `&`
    )
    deadline = time.monotonic() + 30
    while not all(log.is_file() and log.read_text().endswith("\n") for log in logs[:2]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = [int(log.read_text()) for log in logs[:2]]
    parent.send_signal(number)
    code = parent.wait(30)
    assert code == {signal.SIGTERM: 143, signal.SIGHUP: 129}.get(number, -number)
    if number != signal.SIGKILL:
        assert all(log.read_text().endswith("ended\n") for log in logs[:2])
    for child in children:
        while Path(f"/proc/{child}/stat").is_file() and ") Z " not in Path(f"/proc/{child}/stat").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert all(log.read_text().endswith("ended\n") for log in logs[:2])
    assert not logs[2].exists()
