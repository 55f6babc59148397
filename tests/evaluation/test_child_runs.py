"""Runs as child processes: what is learnt from them, and that none is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation import runs
from evaluation.runs import Run, run_lightning

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a script in the place of our command: starting ours takes six seconds."""
    package = tmp_path / "stand_in" / "lightning_modules"
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
    run = run_lightning(["fit", "--x=1"], log, {"MINE": "yes"})
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
    run = run_lightning([], stand_in(script))
    assert run == Run(None, reason, run.seconds)


def test_the_real_command_says_why_and_where(project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    fit = ["fit", "--config", "experiments/lora_tiny.yaml", "--data.users=eve", "--run=r"]
    run = run_lightning(fit, Path("child.log"))
    assert run.directory == Path("runs/r")
    assert run.error.startswith("unknown users ['eve']")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(stand_in, number):
    """Whatever ends the parent ends the child; told to end, it may end in its own way, and is waited for."""
    if number == signal.SIGKILL and runs._LIBC is None:
        pytest.skip("there is no such call on this system")
    log = stand_in(
        "def end(*_):\n  time.sleep(0.3); print('ended'); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, end); print(os.getpid()); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"from evaluation.runs import *; run_lightning([], Path({str(log)!r}))"],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run behind a `&`
    )
    deadline = time.monotonic() + 30
    while not (log.is_file() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = int(log.read_text())
    parent.send_signal(number)
    code = parent.wait(30)
    assert code == {signal.SIGTERM: 143, signal.SIGHUP: 129}.get(number, -number)
    if number != signal.SIGKILL:
        assert log.read_text().endswith("ended\n")
    while Path(f"/proc/{child}/stat").is_file() and ") Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert log.read_text().endswith("ended\n")
