"""The engine on this machine and on Ray: results, what goes on after a stop, what is said of a failure, no orphans."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest

from datamodules.preparation.at_scale import engine_process, stage_tasks, task_engine
from datamodules.preparation.at_scale.task_engine import Engine, StageFailed

HERE = Path(__file__).parent


def square(number):
    """One task."""
    return {"square": number * number, "process": os.getpid()}


def note(task):
    """Says in a file that it was run."""
    directory, number = task
    with (directory / "ran.txt").open("a") as file:
        file.write(f"{number}\n")
    return {"number": number}


def refuse_three(number):
    """Bad input, as a task of ours reports it."""
    if number == 3:
        raise ValueError("row 7 has no author; give it one")
    return {}


def stumble(number):
    """A mistake in the code."""
    return {"result": 1 // (number - 2)}


def fill(number):
    """As on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "000001.arrow")


def die(task):
    """A process that is killed, as for want of memory; the second time it lives."""
    directory, number = task
    marker = directory / "died"
    if number == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"number": number}


def sleep(task):
    """Says who it is, and sleeps."""
    directory, number = task
    (directory / f"process-{number}").write_text(str(os.getpid()))
    time.sleep(60)
    return {}


@pytest.fixture(autouse=True)
def found_by_children(monkeypatch):
    """The processes import this module by its name, wherever the tests were started."""
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def native():
    with Engine("native", 2) as engine:
        yield engine


def test_results_come_in_the_order_of_the_tasks(native, tmp_path):
    found = native.run("squares", square, list(range(7)), tmp_path)
    assert [result["square"] for result in found] == [0, 1, 4, 9, 16, 25, 36]
    processes = {result["process"] for result in found}
    assert os.getpid() not in processes and len(processes) <= 2
    assert native.run("more", square, [3], tmp_path)[0]["square"] == 9


def test_what_has_a_result_is_not_run_again(native, tmp_path):
    results = tmp_path / "notes"
    results.mkdir()
    (results / "1.json").write_text(json.dumps({"number": "from before"}))
    (results / "2.json.99.partial").write_text("{")
    found = native.run("notes", note, [(tmp_path, number) for number in range(3)], tmp_path)
    assert [result["number"] for result in found] == [0, "from before", 2]
    assert sorted((tmp_path / "ran.txt").read_text().split()) == ["0", "2"]
    native.run("notes", note, [(tmp_path, number) for number in range(3)], tmp_path)
    assert len((tmp_path / "ran.txt").read_text().split()) == 2


def test_bad_input_is_reported_as_it_is(native, tmp_path):
    with pytest.raises(ValueError, match=r"^row 7 has no author; give it one$"):
        native.run("refuse", refuse_three, list(range(5)), tmp_path)


def test_a_full_disk_is_said(native, tmp_path):
    with pytest.raises(StageFailed, match=r"stage 'fill': OSError: .*No space left on device: '000001.arrow'. The"):
        native.run("fill", fill, [0], tmp_path)


def test_a_mistake_names_its_task(native, tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)task 2 of the stage 'stumble' has failed with ZeroDiv.*goes on.*1 //"):
        native.run("stumble", stumble, list(range(4)), tmp_path)


def test_after_a_killed_process_the_run_goes_on(native, tmp_path):
    tasks = [(tmp_path, number) for number in range(4)]
    with pytest.raises(StageFailed, match="a process was killed, perhaps for want of memory.*goes on"):
        native.run("die", die, tasks, tmp_path)
    assert [result["number"] for result in native.run("die", die, tasks, tmp_path)] == [0, 1, 2, 3]


def test_a_task_that_kills_its_process_again_and_again_ends(tmp_path):
    stage = stage_tasks.StageTasks(square, {0: 1}, tmp_path)
    (tmp_path / "0.tries").write_text("." * stage_tasks.MAX_TRIES)
    with pytest.raises(RuntimeError, match="killed 3 times"):
        stage.do(0)
    assert "killed 3 times" in json.loads((tmp_path / "0.error").read_text())["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_command(tmp_path, number):
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\n"
        "from test_task_engine import sleep\n"
        "from datamodules.preparation.at_scale.task_engine import Engine\n"
        f"directory = Path({str(tmp_path)!r})\n"
        "with Engine('native', 2) as engine:\n"
        "    engine.run('sleep', sleep, [(directory, 0), (directory, 1)], directory)\n"
    )
    command = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    markers = [tmp_path / "process-0", tmp_path / "process-1"]
    wait_for(lambda: all(marker.is_file() and marker.read_text() for marker in markers))
    workers = [int(marker.read_text()) for marker in markers]
    assert all(psutil.pid_exists(worker) for worker in workers)
    command.send_signal(number)
    command.wait(20)
    wait_for(lambda: not any(is_running(worker) for worker in workers))


def wait_for(condition, seconds=40):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ray_gives_the_same_and_starts_a_killed_process_again(tmp_path):
    with Engine("ray", 2) as engine:
        found = engine.run("squares", square, list(range(5)), tmp_path)
        assert [result["square"] for result in found] == [0, 1, 4, 9, 16]
        tasks = [(tmp_path, number) for number in range(3)]
        assert [result["number"] for result in engine.run("die", die, tasks, tmp_path)] == [0, 1, 2]
        with pytest.raises(ValueError, match=r"^row 7 has no author; give it one$"):
            engine.run("refuse", refuse_three, list(range(5)), tmp_path)


def test_a_lost_machine_ends_the_query(monkeypatch):
    looks = [["a"], ["a", "b"], ["a", "b"], ["b"]]  # one more is welcome, one less is not
    ray = types.SimpleNamespace(nodes=lambda: [{"NodeID": name, "Alive": True} for name in looks.pop(0)])
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(engine_process, "SECONDS_BETWEEN_NODES", 0)
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    with pytest.raises(SystemExit, match=str(engine_process.LOST_NODE)):
        engine_process._watch_nodes()
    assert not looks


def test_after_a_lost_machine_the_stage_goes_on(native, tmp_path, monkeypatch, capsys):
    ends = [engine_process.LOST_NODE, None]
    watch = task_engine._watch

    def lose(name, child, stage, num_tasks):
        if ends.pop(0) is None:
            return watch(name, child, stage, num_tasks)
        child.terminate()
        child.wait()
        child.returncode = engine_process.LOST_NODE

    monkeypatch.setattr(task_engine, "_watch", lose)
    assert [result["square"] for result in native.run("squares", square, [1, 2], tmp_path)] == [1, 4]
    assert "a machine of the Ray cluster was lost; going on without it" in capsys.readouterr().out


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="num_workers is 0"):
        Engine("native", 0)
    with pytest.raises(ValueError, match="add --engine ray"):
        Engine("native", 1, "ray://head:10001")


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(task_engine, "find_spec", lambda module: None if module == "ray" else True)
    Engine("native", 1)
    with pytest.raises(ValueError, match=r"ray is not installed; get it with: pip install -e '\.\[ray\]'"):
        Engine("ray", 1)
