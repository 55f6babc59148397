"""What measures a preparation: memory of all processes together, lines through the points, files that are left."""

import csv
import shlex
import sys
import time

import pytest

from benchmarks.preparation import Setting, compare, draw, report, straight_line
from benchmarks.process_tree import run, with_descendants

HOLD = "import time; held = bytearray({size}); held[::4096] = b'1' * len(held[::4096]); time.sleep(1.2)"
PARENT = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {child!r}]); {hold}; child.wait()"
PREPARE = (
    "import glob, os, sys, pathlib; flags = dict(flag.split('=') for flag in sys.argv[1:]); "
    "posts = glob.glob(os.environ['POSTS']); out = pathlib.Path(flags['--output']); out.mkdir(); "
    "(out / 'part').write_bytes(bytes(int(flags['--num_buckets']) * len(posts)))"
)


def python(code):
    return [sys.executable, "-c", code]


def test_memory_and_cpu_of_a_process_and_its_child(tmp_path):
    one = run(python(HOLD.format(size=50_000_000)), tmp_path / "log", {}, interval=0.05)
    code = PARENT.format(child=HOLD.format(size=70_000_000), hold=HOLD.format(size=50_000_000))
    two = run(python(code), tmp_path / "log", {}, interval=0.05)
    assert 50 < one.peak_memory < 75 and one.most_processes == 1  # an interpreter holds less than 25 MB
    assert 120 < two.peak_memory < 170 and two.most_processes == 2
    assert 1.2 < one.seconds < 20 and one.cpu_seconds < 1.2


def test_a_process_whose_parent_has_ended_still_counts(tmp_path):
    """The middle process ends before its child begins to hold memory, as an orphan."""
    child = "import time; time.sleep(1); " + HOLD.format(size=60_000_000)
    middle = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(0.4)"
    top = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {middle!r}]); time.sleep(1.5)"
    usage = run(python(top), tmp_path / "log", {}, interval=0.05)
    assert usage.peak_memory > 70
    assert usage.most_processes == 3


def test_a_command_that_fails_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with 3; its log .* ends with\nno posts"):
        run(python("import sys; print('no posts'); sys.exit(3)"), tmp_path / "log", {})


def test_an_interruption_ends_the_command(tmp_path, monkeypatch):
    seen = set()

    def interrupted(known):
        seen.update(known)
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.process_tree.with_descendants", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(python("import time; time.sleep(60)"), tmp_path / "log", {})
    for _ in range(100):
        alive = [one for one in seen if "zombie" not in state(one)]
        if not alive:
            return
        time.sleep(0.05)
    pytest.fail(f"{alive} still run: {with_descendants(seen)}")


def state(process):
    try:
        with open(f"/proc/{process}/status") as file:
            return next(line for line in file if line.startswith("State:"))
    except FileNotFoundError:
        return "zombie"


def test_straight_line():
    assert straight_line([1e6, 2e6, 4e6], [5, 7, 11]) == pytest.approx((2, 3, 0))
    slope, start, worst = straight_line([0, 1e6, 2e6], [0, 3, 0])  # least squares: the mean, 1; off by 2 of 3
    assert (slope, start, worst) == pytest.approx((0, 1, 200 / 3), abs=1e-9)


def test_any_command_is_measured_for_every_size_and_setting(tmp_path):
    settings = [Setting("native", 1, 0), Setting("ray", 16, 2)]
    runs = compare(python(PREPARE), [1000, 3000], settings, 2, tmp_path)
    assert [(one.posts, one.num_buckets, one.output_bytes) for one in runs] == [
        (1000, 1, 8), (1000, 16, 128), (3000, 1, 8), (3000, 16, 128),
    ] * 2  # fmt: skip
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["engine"], row["num_workers"], int(row["output_bytes"])) for row in rows] == [
        (one.engine, str(one.num_workers), one.output_bytes) for one in runs
    ]
    text = report(runs)
    assert "| 1,000 posts, native, 1 bucket |" in text and "| 3,000 posts, ray, 16 buckets, 2 workers |" in text
    assert text.count("for a million posts, largest residual") == 4
    draw(runs, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert not (tmp_path / "prepared").exists()


def test_a_command_that_writes_nothing_and_another_corpus_are_errors(tmp_path):
    with pytest.raises(RuntimeError, match="has written nothing"):
        compare(shlex.split("true"), [1000], [Setting("native", 1, 0)], 1, tmp_path)
    counts = tmp_path / "posts-1000" / "counts.json"
    counts.write_text(counts.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="another network"):
        compare(shlex.split("true"), [1000], [Setting("native", 1, 0)], 1, tmp_path)
