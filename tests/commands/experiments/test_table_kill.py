"""`lightning table` killed in the middle: nothing looks finished, no child is left, and the same table again is whole.

The rows' commands are stand-ins, since starting ours takes six seconds; that ours leave finished runs as they are is
tested in `test_cli.py`.
"""

import os
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from ending import has_ended, wait_until

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


def make_table(directory):
    """In a process of its own; nothing is asked about what is finished, since the stand-ins' runs have no cards."""
    from commands.experiments import child_process
    from commands.experiments.experiment import Experiment
    from commands.table import Table

    os.chdir(directory)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run behind a `&`
    child_process.COMMAND = (sys.executable, "stand_in.py")
    child_process.finished = lambda _: {}
    systems = {name: Experiment(name) for name in ("quick", "slow")}
    with open("said", "w") as said, redirect_stdout(said):
        Table(systems, Path("out"), encoder=None, per_user=False, num_resamples=10).run()


def calls():
    """Command and row of every command that was started, and its process."""
    return [line.split() for line in Path("calls").read_text().splitlines()] if Path("calls").is_file() else []


@pytest.mark.skipif(sys.platform != "linux", reason="a child learns of its parent's kill on Linux only")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_the_second_row_and_started_again(fork, tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    Path("stand_in.py").write_text(COMMAND)
    parent = fork(make_table, tmp_path)
    wait_until(lambda: len(calls()) == 3, parent.is_alive)
    assert [call[:2] for call in calls()] == [["fit", "quick"], ["predict", "quick"], ["fit", "slow"]]
    os.kill(parent.pid, number)
    parent.join(30)
    assert parent.exitcode not in (0, None)
    wait_until(lambda: has_ended(calls()[-1][2]))
    assert not list(Path("out").glob("table.*"))
    Path("go").touch()
    again = fork(make_table, tmp_path)
    again.join(60)
    assert again.exitcode == 0
    assert [call[:2] for call in calls()[3:]] == [[c, n] for n in ("quick", "slow") for c in ("fit", "predict")]
    assert all(f"| {name} " in Path("out/table.md").read_text() for name in ("quick", "slow"))
    assert "[2 of 2] slow:" in Path("said").read_text()
