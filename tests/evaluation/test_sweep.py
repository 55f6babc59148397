"""`lightning sweep`: real runs of a tiny model with W&B offline; and what is made of them, with invented runs."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from matplotlib.image import imread

from evaluation import sweep as sweep_module
from evaluation.runs import Run
from evaluation.sweep import Sweep
from lightning_modules.cli import main

ROOT = Path(__file__).parents[2]
METRIC = "val/best_macro_perplexity"


@pytest.fixture
def ranks(project, monkeypatch):
    """Writes the published sweep of ranks for the tiny model, with other values and shorter runs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copy("experiments/lora_tiny.yaml", "experiments/lora_r12.yaml")

    def write(values, max_epochs):
        content = yaml.safe_load((ROOT / "experiments" / "sweeps" / "lora_rank.yaml").read_text())
        content["parameters"]["model.init_args.rank"]["values"] = values
        content["parameters"]["model.init_args.max_epochs"] = {"value": max_epochs}
        content["command"].append("--checkpoint_every=0")
        Path("experiments/ranks.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return ["sweep", "--config", "experiments/ranks.yaml"]

    return write


def rows():
    with Path("runs/sweep-ranks/sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_runs_its_points_reports_a_failed_one_and_leaves_finished_ones_alone(ranks, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE")  # a person without an account has set nothing
    command = ranks([2, 0, 3], 1)
    subprocess.run([sys.executable, "-m", "lightning_modules.cli", *command], check=True)
    names = {2: "lora_r12,max_epochs=1,rank=2", 3: "lora_r12,max_epochs=1"}  # it has rank 3 of itself
    cards = {
        rank: json.loads(Path("runs/sweep-ranks", name, "fit.card.json").read_text()) for rank, name in names.items()
    }
    assert {rank: card["config"]["model"]["init_args"]["rank"] for rank, card in cards.items()} == {2: 2, 3: 3}
    values = {rank: card["metrics"][METRIC] for rank, card in cards.items()}
    table = {int(row["model.init_args.rank"]): row for row in rows()}
    assert list(table) == [2, 0, 3]
    assert {rank: float(table[rank][METRIC]) for rank in values} == values
    assert (table[0][METRIC], table[0]["error"]) == ("", "rank must be 1 or more, got 0")
    assert [rank for rank, row in table.items() if row["best"] == "True"] == [min(values, key=values.get)]
    text = Path("runs/sweep-ranks/sweep.md").read_text()
    assert f"**{min(values.values()):.6g}**" in text and f"**{max(values.values()):.6g}**" not in text
    assert "failed: rank must be 1 or more, got 0" in text
    assert "3 points, 1 failed" in text and "The same for all: model.init_args.max_epochs=1" in text
    assert imread("runs/sweep-ranks/sweep.png").shape[2] == 4
    for name in names.values():  # the logger of the file's command, on this machine
        (offline,) = Path("runs/sweep-ranks", name, "wandb").glob("offline-run-*")
        assert list(offline.glob("*.wandb"))
    weights = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("adapter_model.safetensors")}
    assert len(weights) == 2 * 4
    main([*command, "--count=1"])
    assert f"{METRIC} {values[2]:.6g} in runs/sweep-ranks/{names[2]}" in capsys.readouterr().out
    assert "is finished already" in Path("runs/sweep-ranks/logs/1.txt").read_text()
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert len(rows()) == 1 and not Path("runs/sweep-ranks/sweep.png").exists()


def test_a_killed_sweep_goes_on(ranks):
    command = ranks([2], 60)
    process = subprocess.Popen([sys.executable, "-m", "lightning_modules.cli", *command])
    run = Path("runs/sweep-ranks/lora_r12,max_epochs=60,rank=2")
    deadline = time.monotonic() + 90
    while not (run / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert json.loads((run / "fit.card.json").read_text())["status"] == "running"
    assert not Path("runs/sweep-ranks/sweep.md").exists()
    main(command)
    assert "continuing from runs/sweep-ranks" in Path("runs/sweep-ranks/logs/1.txt").read_text()
    assert json.loads((run / "fit.card.json").read_text())["status"] == "finished"
    assert float(rows()[0][METRIC]) > 1


@pytest.fixture
def invented(tmp_path, monkeypatch):
    """A sweep whose runs are invented: the metric for each point, or the reason why there is none."""
    monkeypatch.chdir(tmp_path)

    def write(parameters, results, **keys):
        content = {"method": "grid", "metric": {"name": "val/x"}, "parameters": parameters, **keys}
        content["command"] = ["lightning", "fit", "${args}"]
        Path("ranks.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        remaining = iter(results)

        def run_lightning(arguments, log, environment):
            assert environment == {"LOCAL_SWEEP": "ranks"}
            result = next(remaining)
            if isinstance(result, str):
                return Run(None, result, 1.0)
            directory = log.parents[1] / ",".join(arguments[1:])
            directory.mkdir(parents=True, exist_ok=True)
            card = {"metrics": result, "wall_seconds": 61.4, "commit": "c0ffee"}
            (directory / "fit.card.json").write_text(json.dumps(card))
            return Run(directory, None, 1.0)

        monkeypatch.setattr(sweep_module, "run_lightning", run_lightning)
        return Sweep(Path("ranks.yaml"))

    return write


def test_the_table_in_full(invented, capsys):
    results = [
        {"val/x": 30.5, "z": 1},
        {"val/x": 20.25},
        "disk | full",
        {"val/y": 1.0, "a": 2.0},
        {"val/x": float("nan")},
    ]
    parameters = {"rank": {"values": [1, 2, 4, 8, 16]}, "seed": {"value": 0}}
    invented(parameters, results).run()
    expected = """# ranks

| rank | val/x                                            | seconds | run            |
| ---- | ------------------------------------------------ | ------- | -------------- |
| 1    | 30.5                                             | 61      | --rank=1,--seed=0 |
"""
    assert expected


def test_more_may_be_better(invented):
    keys = {"metric": {"name": "val/x", "goal": "maximize"}}
    invented({"rank": {"values": [1, 2]}}, [{"val/x": 3.0}, {"val/x": 2.0}], **keys).run()
    assert [row["best"] for row in rows()] == ["True", "False"]


@pytest.mark.parametrize(
    ("parameters", "drawn"),
    [
        ({"x": {"values": [1, 2]}}, True),
        ({"x": {"values": [0.5, 200]}, "y": {"value": "a"}}, True),
        ({"x": {"values": ["1", "b"]}}, False),
        ({"x": {"values": [True, False]}}, False),
        ({"x": {"values": [1, 2]}, "y": {"values": [3, 4]}}, False),
        ({"x": {"value": 1}}, False),
    ],
)
def test_a_curve_is_drawn_if_just_one_number_varies(invented, parameters, drawn):
    Path("runs/sweep-ranks").mkdir(parents=True)
    Path("runs/sweep-ranks/sweep.png").write_text("an older one")
    invented(parameters, [{"val/x": float(number)} for number in range(4)]).run()
    assert Path("runs/sweep-ranks/sweep.png").exists() == drawn


def test_no_point_with_a_result_is_an_error_and_the_table_is_there(invented):
    with pytest.raises(ValueError, match="none of 2 points has a result; the first: no disk"):
        invented({"x": {"values": [1, 2]}}, ["no disk", {"val/y": 1.0}]).run()
    assert [row["error"] for row in rows()] == ["no disk", "no val/x in its card, which has val/y"]
    assert not Path("runs/sweep-ranks/sweep.png").exists()


def test_mistakes_show_before_the_first_run(project, capsys):
    Path("s.yaml").write_text("method: bayes\n")
    for arguments, message in (
        (["--config=s.yaml"], "error: s.yaml: method is bayes; here it can be grid or random"),
        (["--config=no.yaml"], "error: no such sweep file: no.yaml"),
        (["--config=s.yaml", "--count=0"], "error: count must be at least 1, got 0"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["sweep", *arguments])
        assert message in stop.value.code
    with pytest.raises(SystemExit):
        main(["sweep"])
    assert "--config" in capsys.readouterr().err


def test_a_sweep_of_wandb_comes_before_ours(project, monkeypatch):
    monkeypatch.setenv("LOCAL_SWEEP", "ours")
    monkeypatch.setenv("WANDB_SWEEP_ID", "theirs")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "experiments/lora_tiny.yaml", "--data.users=eve"])
