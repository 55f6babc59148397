"""`lightning table` killed in the middle: nothing looks finished, no child is left, and the same table again is whole.

The rows' commands are stand-ins, since starting ours takes six seconds; that ours leave finished runs as they are is
tested in `test_cli.py`.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMAND = """
import json, os, sys, time
from pathlib import Path
from commands.experiments.outcome import Report
run = Path("runs") / sys.argv[sys.argv.index("--config") + 1]
Report.of_this_process().begin(run)
with open("calls", "a") as calls:
    calls.write(f"{sys.argv[1]} {run.name} {os.getpid()}\\n")
if sys.argv[1] == "predict":
    run.mkdir(parents=True, exist_ok=True)
    line = {"user": "ann", "context": [], "reference": "yes", "candidates": ["no"], "nll": 2.0, "tokens": 2}
    lines = [json.dumps({**line, "pair_id": number}) for number in range(3)]
    (run / "predictions.jsonl").write_text("\\n".join(lines) + "\\n")
elif run.name == "slow" and not Path("go").is_file():
    time.sleep(60)
"""
TABLE = """
import sys
from pathlib import Path
from commands.experiments import child_process
from commands.experiments.experiment import Experiment
from commands.table import Table
child_process.COMMAND = (sys.executable, "stand_in.py")
systems = {name: Experiment(name) for name in ("quick", "slow")}
Table(systems, Path("out"), encoder=None, per_user=False, num_resamples=10).run()
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    (tmp_path / "stand_in.py").write_text(COMMAND)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return lambda: subprocess.Popen(
        [sys.executable, "-c", TABLE],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run behind a `&`
    )


def calls():
    """Command and row of every command that was started, and its process."""
    return [line.split() for line in Path("calls").read_text().splitlines()] if Path("calls").is_file() else []


@pytest.mark.skipif(sys.platform != "linux", reason="a child learns of its parent's kill on Linux only")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_the_second_row_and_started_again(start, number):
    parent, deadline = start(), time.monotonic() + 60
    while len(calls()) < 3:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    assert [call[:2] for call in calls()] == [["fit", "quick"], ["predict", "quick"], ["fit", "slow"]]
    child = Path("/proc") / calls()[-1][2] / "stat"
    parent.send_signal(number)
    assert parent.wait(30) != 0
    while child.is_file() and ") Z " not in child.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not list(Path("out").glob("table.*"))
    Path("go").touch()
    again = start()
    said, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert [call[:2] for call in calls()[3:]] == [[c, n] for n in ("quick", "slow") for c in ("fit", "predict")]
    assert all(f"| {name} " in Path("out/table.md").read_text() for name in ("quick", "slow"))
    assert "[2 of 2] slow:" in said
