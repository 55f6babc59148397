"""`lightning sweep`: real runs of a tiny model with W&B offline; and what is made of them, with invented runs."""

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from ending import terminate
from matplotlib.image import imread

from commands.cli import main
from commands.experiments import child_process
from commands.experiments.child_process import Run
from commands.sweep import Sweep

ROOT = Path(__file__).parents[2]
OUTPUT = Path("runs/sweep-ranks")
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
    with (OUTPUT / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def log_of_the_first():
    (log,) = (OUTPUT / "logs").glob("1-*.fit.log")
    return log.read_text()


def test_a_sweep_runs_its_points_and_leaves_finished_ones_alone(ranks, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE")  # a person without an account has set nothing
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere")  # of a process that has logged
    command = ranks([2, 3], 1)
    main(command)
    names = {2: "lora_r12,max_epochs=1,rank=2", 3: "lora_r12,max_epochs=1"}  # the experiment is of rank 3
    cards = {rank: json.loads(Path(OUTPUT, name, "fit.card.json").read_text()) for rank, name in names.items()}
    assert {rank: card["config"]["model"]["init_args"]["rank"] for rank, card in cards.items()} == {2: 2, 3: 3}
    values = [card["metrics"][METRIC] for card in cards.values()]
    assert [(row["model.init_args.rank"], float(row[METRIC]), row["best"]) for row in rows()] == [
        (str(rank), value, str(value == min(values))) for rank, value in zip(names, values, strict=True)
    ]
    text = (OUTPUT / "sweep.md").read_text()
    assert f"**{min(values):.6g}**" in text and f"**{max(values):.6g}**" not in text
    assert "2 points, 0 failed" in text and "The same for all: model.init_args.max_epochs=1" in text
    assert imread(OUTPUT / "sweep.png").shape[2] == 4
    for name in names.values():  # by the logger of the file's command, and on this machine
        (offline,) = (OUTPUT / name / "wandb").glob("offline-run-*")
        assert list(offline.glob("*.wandb"))
    weights = {path: path.stat().st_mtime_ns for path in OUTPUT.rglob("adapter_model.safetensors")}
    assert len(weights) == 2 * 4
    capsys.readouterr()
    main([*command, "--count=1"])
    assert f"{METRIC} {values[0]:.6g} in {OUTPUT / names[2]}" in capsys.readouterr().out
    assert "is finished already" in log_of_the_first()
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert len(rows()) == 1 and not (OUTPUT / "sweep.png").exists()


def test_a_killed_sweep_resumes(ranks, start_command):
    command = ranks([2], 8)
    run = OUTPUT / "lora_r12,max_epochs=8,rank=2"
    assert terminate(start_command(*command), run / "checkpoints" / "last.ckpt") == 128 + signal.SIGTERM
    assert json.loads((run / "fit.card.json").read_text())["status"] == "running"
    assert not (OUTPUT / "sweep.md").exists()
    main(command)
    assert "continuing from" in log_of_the_first()
    assert json.loads((run / "fit.card.json").read_text())["status"] == "finished"
    assert float(rows()[0][METRIC]) > 1


@pytest.fixture
def invented(tmp_path, monkeypatch):
    """A sweep whose runs are invented: the metric for each point, or the reason why there is none."""
    monkeypatch.chdir(tmp_path)

    def write(parameters, results, directories=None, **keys):
        content = {"method": "grid", "metric": {"name": "val/x"}, "parameters": parameters, **keys}
        content["command"] = ["lightning", "fit", "${args}"]
        Path("ranks.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        remaining = iter(results)

        async def run_lightning(arguments, log, environment):
            assert environment == {"LOCAL_SWEEP": "ranks"}
            result = next(remaining)
            if isinstance(result, str):
                return Run(None, result, 1.0)
            name = ",".join(arguments[1:])
            directory = log.parents[1] / (directories or {}).get(name, name)
            directory.mkdir(parents=True, exist_ok=True)
            card = {"status": "finished", "config": {}, "metrics": result, "wall_seconds": 61.4, "commit": "c0ffee"}
            (directory / "fit.card.json").write_text(json.dumps(card))
            return Run(directory, None, 1.0)

        monkeypatch.setattr(child_process, "run_lightning", run_lightning)
        return Sweep(Path("ranks.yaml"))

    return write


def test_points_that_are_one_run_are_not_compared(invented):
    sweep = invented({"rank": {"values": [1, 2, 3]}}, [{"val/x": 2.0}] * 3, {"--rank=1": "same", "--rank=2": "same"})
    with pytest.raises(ValueError, match="2 of 3 points have no result; the first: other points were the same run"):
        sweep.run()
    found = [(row["rank"], row["val/x"], row["best"], row["error"]) for row in rows()]
    assert [row[:3] for row in found] == [("1", "", "False"), ("2", "", "False"), ("3", "2.0", "True")]
    assert "what they differ in makes no other run" in found[0][3] == found[1][3]


TABLE = """# ranks

| rank | val/x                                            | seconds | run                |
| ---- | ------------------------------------------------ | ------- | ------------------ |
| 1    | 30.5                                             | 61      | --rank=1,--seed=0  |
| 2    | **20.25**                                        | 61      | --rank=2,--seed=0  |
| 4    | failed: disk \\| full                             |         |                    |
| 8    | failed: no val/x in its card, which has a, val/y | 61      | --rank=8,--seed=0  |
| 16   | nan                                              | 61      | --rank=16,--seed=0 |

- lightning sweep --config ranks.yaml: grid, 5 points, 2 failed.
- val/x at the end of a run, as in its fit.card.json; the best is bold.
- The same for all: seed=0. Commit c0ffee.
"""
CSV = """rank,seed,val/x,best,seconds,run,error
1,0,30.5,False,61.4,"runs/sweep-ranks/--rank=1,--seed=0",
2,0,20.25,True,61.4,"runs/sweep-ranks/--rank=2,--seed=0",
4,0,,False,,,disk | full
8,0,,False,61.4,"runs/sweep-ranks/--rank=8,--seed=0","no val/x in its card, which has a, val/y"
16,0,nan,False,61.4,"runs/sweep-ranks/--rank=16,--seed=0",
"""


def test_the_table_in_full(invented, capsys):
    other, nan = {"val/y": 1.0, "a": 2.0}, {"val/x": float("nan")}
    results = [{"val/x": 30.5, "z": 1}, {"val/x": 20.25}, "disk | full", other, nan]
    parameters = {"rank": {"values": [1, 2, 4, 8, 16]}, "seed": {"value": 0}}
    with pytest.raises(ValueError, match=r"2 of 5 points have no result; the first: disk | full"):
        invented(parameters, results).run()
    assert (OUTPUT / "sweep.md").read_text() == TABLE
    assert TABLE in capsys.readouterr().out
    assert (OUTPUT / "sweep.csv").read_text() == CSV


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
    OUTPUT.mkdir(parents=True)
    (OUTPUT / "sweep.png").write_text("an older one")
    invented(parameters, [{"val/x": float(number)} for number in range(4)]).run()
    assert (OUTPUT / "sweep.png").exists() == drawn


def test_no_point_with_a_result_is_an_error_and_the_table_is_there(invented):
    with pytest.raises(ValueError, match="2 of 2 points have no result; the first: no disk"):
        invented({"x": {"values": [1, 2]}}, ["no disk", {"val/y": 1.0}]).run()
    assert [row["error"] for row in rows()] == ["no disk", "no val/x in its card, which has val/y"]
    assert not (OUTPUT / "sweep.png").exists()


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
    assert "required: config" in capsys.readouterr().err


def test_a_sweep_of_wandb_comes_before_ours(project, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_SWEEP", "ours")
    monkeypatch.setenv("WANDB_SWEEP_ID", "theirs")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "experiments/lora_tiny.yaml", "--data.users=eve"])
    assert "run directory: runs/sweep-theirs/lora_tiny,users=eve" in capsys.readouterr().out
