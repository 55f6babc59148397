"""Runs as child processes: what is learnt from them, and that none is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from ending import has_ended, wait_until

from commands.experiments import child_process
from commands.experiments.child_process import Run, run_lightning
from commands.experiments.jobs import GPUS, THREADS, all_of, devices_of, jobs_of, threads_of

ROOT = Path(__file__).parents[3]


def run_one(*arguments):
    (run,) = all_of([partial(run_lightning, *arguments)])
    return run


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a script in the place of our command: starting ours takes six seconds."""
    script = tmp_path / "stand_in.py"
    monkeypatch.setattr(child_process, "COMMAND", (sys.executable, str(script)))
    monkeypatch.chdir(tmp_path)

    def write(content):
        script.write_text(f"import os, signal, sys, time\n{content}\n")
        return tmp_path / "logs" / "child.log"

    return write


TELL = f"""
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from commands.experiments.outcome import Report
report = Report.of_this_process()
report.begin(Path("runs/a,rank=2"))
"""


def test_a_run_that_succeeds(stand_in):
    log = stand_in(f"{TELL}report.end(None); print(sys.argv[1:]); print(os.environ['MINE'], file=sys.stderr)")
    run = run_one(["fit", "--x=1"], log, {"MINE": "yes"})
    assert run == Run(Path("runs/a,rank=2"), None, run.seconds)
    assert 0 < run.seconds < 30
    assert log.read_text() == "['fit', '--x=1']\nyes\n"


@pytest.mark.parametrize(
    ("script", "directory", "reason"),
    [
        (f"{TELL}report.end('no disk'); sys.exit(1)", Path("runs/a,rank=2"), "no disk"),
        (f"{TELL}os.kill(os.getpid(), signal.SIGKILL)", Path("runs/a,rank=2"), "killed by SIGKILL"),
        (f"{TELL}report.end(None); os._exit(3)", Path("runs/a,rank=2"), "exit code 3"),
        ("print('error: not read from here'); sys.exit(3)", None, "exit code 3"),
    ],
)
def test_the_reason_of_a_failure(stand_in, script, directory, reason):
    run = run_one([], stand_in(script))
    assert run == Run(directory, reason, run.seconds)


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


@pytest.mark.parametrize(
    ("num_gpus", "chosen", "jobs", "shares"),
    [
        (0, None, 2, [None, None]),
        (8, None, 1, [None]),  # alone it sees all of them
        (2, None, 2, ["0", "1"]),
        (4, None, 2, ["0,2", "1,3"]),
        (2, None, 5, ["0", "1", "0", "1", "0"]),
        (2, "5,GPU-af", 2, ["5", "GPU-af"]),
    ],
)
def test_gpus_are_shared_out(monkeypatch, num_gpus, chosen, jobs, shares):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.delenv(GPUS, raising=False)
    if chosen:
        monkeypatch.setenv(GPUS, chosen)
    assert [devices.get(GPUS) for devices in devices_of(jobs)] == shares


def test_no_two_jobs_at_once_see_the_same_gpu(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(GPUS, raising=False)
    stand_in(f"print(os.environ['{GPUS}']); time.sleep(0.5)")
    jobs = jobs_of(["a", "b", "c", "d"], tmp_path / "logs", {})
    all_of([partial(job.run, ["fit"]) for job in jobs], jobs=2)
    seen = [Path(f"{job.log}.fit.log").read_text().strip() for job in jobs]
    assert sorted(seen[:2]) == ["0", "1"]
    assert set(seen) == {"0", "1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(stand_in, number):
    """Whatever ends the parent ends the children; told to end, they may do it in their own way, and are waited for."""
    if number == signal.SIGKILL and child_process._LIBC is None:
        pytest.skip("there is no such call on this system")
    logs = [
        stand_in(
            "def end(*_):\n  time.sleep(0.3); print('ended'); sys.exit(1)\n"
            "signal.signal(signal.SIGTERM, end); print(os.getpid()); time.sleep(60)"
        ).with_name(name)
        for name in ("one.log", "two.log", "never.log")
    ]
    works = ", ".join(f"partial(run_lightning, [], Path({str(log)!r}))" for log in logs)
    program = f"""
from functools import partial
from commands.experiments import child_process
from commands.experiments.child_process import Path, run_lightning
from commands.experiments.jobs import all_of
child_process.COMMAND = {child_process.COMMAND!r}
all_of([{works}], jobs=2)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run behind a `&`
    )
    wait_until(lambda: all(log.is_file() and log.read_text().endswith("\n") for log in logs[:2]))
    children = [int(log.read_text()) for log in logs[:2]]
    parent.send_signal(number)
    code = parent.wait(30)
    assert code == {signal.SIGTERM: 143, signal.SIGHUP: 129}.get(number, -number)
    if number != signal.SIGKILL:
        assert all(log.read_text().endswith("ended\n") for log in logs[:2])
    wait_until(lambda: all(map(has_ended, children)))
    assert all(log.read_text().endswith("ended\n") for log in logs[:2])
    assert not logs[2].exists()
