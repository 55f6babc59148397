"""Commands of the trainer: what they write whatever is given, what stops them, one seed, and SLURM."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from lightning import Callback
from safetensors.torch import load_file

from commands.cli import main

LORA = ["fit", "--config", "experiments/lora_tiny.yaml", "--model.max_epochs=1"]
PRETRAIN = ["fit", "--config", "experiments/pretrain_tiny.yaml"]


def said(arguments):
    """The one line with which a command is refused or stopped."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert isinstance(stop.value.code, str)
    return stop.value.code


def card(run, stage="fit"):
    return json.loads(Path("runs", run, f"{stage}.card.json").read_text())


def adapter(run, user="ada"):
    return load_file(f"runs/{run}/adapters/{user}/adapter_model.safetensors")


def are_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def backbone(run):
    return load_file(f"runs/{run}/backbone/model.safetensors")


class AtStep(Callback):
    """Does something after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            self.action()


@pytest.fixture(autouse=True)
def no_handlers():
    """Signals as a new process has them: a command leaves its handlers behind."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def act_at(monkeypatch):
    """Lets every run do something after a step, before checkpoints are saved."""

    def act(step, action):
        from callbacks import RunCard

        monkeypatch.setattr(RunCard, "on_train_batch_end", AtStep(step, action).on_train_batch_end, raising=False)

    return act


@pytest.fixture
def on_slurm(monkeypatch):
    """The variables of a SLURM job with one task, which is not run by hand."""
    variables = {"NTASKS": 1, "JOB_NAME": "train", "JOB_ID": 4711, "PROCID": 0, "LOCALID": 0, "NODEID": 0}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


# ---- what a command writes


def test_a_callback_of_ones_own_takes_no_adapter_away(project, capsys):
    Path("experiments/mine.yaml").write_text("trainer: {callbacks: [lightning.pytorch.callbacks.ModelSummary]}\n")
    mine = [*LORA, "--config", "experiments/mine.yaml", "--run=mine"]
    main(mine)
    assert (
        "trainer.callbacks has no callbacks.AdapterCheckpoint, which fit needs; it is added" in capsys.readouterr().out
    )
    assert adapter("mine") and card("mine")["status"] == "finished"
    main(["predict", *mine[1:]])
    assert Path("runs/mine/predictions.jsonl").stat().st_size
    paths = [one["class_path"] for one in card("mine")["config"]["trainer"]["callbacks"]]
    assert paths == ["lightning.pytorch.callbacks.ModelSummary", "callbacks.AdapterCheckpoint"]


def test_one_callback_by_a_flag_keeps_what_the_file_says_of_the_writer(project):
    path = Path("experiments/pretrain_tiny.yaml")
    path.write_text(
        path.read_text().replace(
            "- callbacks.BackboneExport", "- {class_path: callbacks.BackboneExport, init_args: {best: true}}"
        )
    )
    main(
        [
            *PRETRAIN,
            "--trainer.max_epochs=1",
            "--run=best",
            "--trainer.callbacks=lightning.pytorch.callbacks.ModelSummary",
        ]
    )
    given = card("best")["config"]["trainer"]["callbacks"]
    assert given[-1] == {"class_path": "callbacks.BackboneExport", "init_args": {"best": True}}
    assert "validation_loss" in json.loads(Path("runs/best/backbone/manifest.json").read_text())


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.max_users_at_once=0", "max_users_at_once must be 1 or more, got 0"),
        ("--model.max_users_at_once=-1", "max_users_at_once must be 1 or more, got -1"),
        ("--data.users_per_batch=-1", "users_per_batch must be 1 or more, got -1"),
        ("--data.rows_per_user=0", "rows_per_user must be 1 or more, got 0"),
        ("--data.predict_rows=-1", "predict_rows must be 1 or more, got -1"),
        ("--trainer.max_steps=0", "nothing would be trained: trainer.max_steps is 0"),
        ("--trainer.max_epochs=0", "nothing would be trained: trainer.max_epochs is 0"),
        ("--trainer.limit_train_batches=0", "nothing would be trained: trainer.limit_train_batches is 0"),
        ("--trainer.max_epochs=-2", "nothing would be trained: trainer.max_epochs is -2"),
        ("--model.init_from=runs/nowhere", "no backbone in runs/nowhere"),
        ("--data.users=eve", "unknown users ['eve']"),
    ],
)
def test_what_is_refused_leaves_no_card(project, flag, message):
    assert message in said([*LORA, "--run=refused", flag])
    assert not Path("runs/refused/fit.card.json").exists()


def test_tokens_per_batch_are_at_least_one(project):
    assert "tokens_per_batch must be 1 or more, got 0" in said([*PRETRAIN, "--run=r", "--data.tokens_per_batch=0"])


# ---- what stops a fit


@pytest.mark.parametrize("fit", [PRETRAIN, LORA], ids=["backbone", "adapters"])
@pytest.mark.parametrize("by", ["trainer.max_time", "SIGUSR1", "SIGTERM"])
def test_a_fit_that_has_to_stop_resumes_to_the_same_weights(project, act_at, capsys, fit, by):
    main([*fit, "--run=whole"])
    stopped = [*fit, "--run=stopped", "--checkpoint_every=3600"]
    if by == "trainer.max_time":
        assert f"stopped by {by} after 1 steps; the same command resumes from" in said(
            [*stopped, "--trainer.max_time=00:00:00:00"]
        )
    else:
        act_at(2, lambda: os.kill(os.getpid(), getattr(signal, by)))
        with pytest.raises(SystemExit) as stop:
            main(stopped)
        assert by == "SIGTERM" or "stopped by SIGUSR1 after 2 steps" in stop.value.code
        act_at(-1, None)
    assert card("stopped")["status"] == "running"
    assert Path("runs/stopped/checkpoints/last.ckpt").is_file()
    assert not Path("runs/stopped/backbone").exists() and not Path("runs/stopped/adapters").exists()
    main(stopped)
    assert "continuing from runs/stopped/checkpoints/last.ckpt" in capsys.readouterr().out
    assert card("stopped")["status"] == "finished"
    weights = backbone if fit is PRETRAIN else adapter
    assert are_equal(weights("stopped"), weights("whole"))


# ---- one seed


def test_one_seed_decides_about_adapters(project):
    for flags in (["--run=zero"], ["--run=one", "--seed_everything=1"], ["--run=two", "--seed_everything=2"]):
        main([*LORA, "--data.users=ada", *flags])
    main([*LORA, "--data.users=ada", "--run=given", "--seed_everything=1", "--model.seed=0", "--data.seed=0"])
    assert are_equal(adapter("given"), adapter("zero"))
    assert not any(are_equal(adapter(a), adapter(b)) for a, b in (("zero", "one"), ("one", "two"), ("zero", "two")))
    seeds = [
        (card(run)["config"]["model"]["init_args"]["seed"], card(run)["config"]["data"]["init_args"]["seed"])
        for run in ("zero", "one", "given")
    ]
    assert seeds == [(0, 0), (1, 1), (0, 0)]


def test_nested_seeds_follow_and_that_of_the_splits_does_not(project):
    with pytest.raises(SystemExit):  # after the card: a user of one row has none to copy
        main(
            [
                *LORA,
                "--run=r",
                "--seed_everything=5",
                "--data.history={duplicated: 0.5}",
                "--trainer.max_time=00:00:00:00",
            ]
        )
    data = card("r")["config"]["data"]["init_args"]
    assert (data["history"]["seed"], data["preparation"]["splits"]["seed"]) == (5, 0)


# ---- SLURM


def test_what_slurm_left_is_never_loaded(project, on_slurm):
    main(LORA)
    (run,) = set(path.name for path in Path("runs").glob("lora*"))
    left = Path("runs", run, "hpc_ckpt_1.ckpt")
    torch.save({"state_dict": {}}, left)
    for command in ("test", "predict", "validate", "fit"):
        text = said([command, *LORA[1:]])
        assert f"{left}: Lightning would load" in text and "delete" in text
    left.unlink()
    main(["test", *LORA[1:]])


def test_a_job_that_is_told_to_end_saves_where_every_fit_does(project, on_slurm, act_at):
    act_at(2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    assert "stopped by SIGUSR1" in said([*PRETRAIN, "--run=job"])
    assert Path("runs/job/checkpoints/last.ckpt").is_file()
    assert not list(Path("runs/job").glob("hpc_ckpt*"))


# ---- what may change when a run resumes


@pytest.mark.parametrize(
    ("fit", "changes"),
    [
        (PRETRAIN, ["--data.tokens_per_batch=512"]),
        (PRETRAIN, ["--trainer.precision=bf16-mixed"]),
        (LORA, ["--data.users_per_batch=1", "--data.predict_rows=3", "--model.max_users_at_once=1"]),
    ],
    ids=["tokens_per_batch", "precision", "users"],
)
def test_what_bounds_memory_may_change_when_a_run_resumes(project, monkeypatch, act_at, fit, changes):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    act_at(2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    said([*fit, "--run=r"])
    act_at(-1, None)
    main([*fit, "--run=r", *changes])
    assert card("r")["status"] == "finished"
    if fit is LORA:
        main([*fit, "--run=whole"])
        for user in ("ada", "ben", "cleo", "dan"):
            ours, theirs = adapter("r", user), adapter("whole", user)
            assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)
