"""The files under `experiments/devices/`: the same command on two processes of the CPU, with a tiny model."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TINY = ["--model.size=tiny", "--data.tokens_per_batch=256", "--trainer.val_check_interval=3", "--checkpoint_every=0"]
HERE = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]


def command(name):
    """The first line of a file as arguments."""
    words = (EXPERIMENTS / "devices" / name).read_text().splitlines()[0].split()
    return words[words.index("lightning") + 1 :]


@pytest.fixture
def experiments(project):
    """A project with the experiment at the paper's scale and the files about devices, on the invented corpus."""
    shutil.copy(EXPERIMENTS / "pretrain_t5_base.yaml", project / "experiments")
    shutil.copytree(EXPERIMENTS / "devices", project / "experiments" / "devices")
    shutil.copy(project / "experiments/corpora/invented.yaml", project / "experiments/corpus_sns.yaml")
    return project


def fit(project, name, num_processes, num_steps, *more):
    """Trains in a process of its own, which starts the others; returns what it says."""
    arguments = [*command(name), *TINY, *HERE, *more]
    changes = [f"--trainer.devices={num_processes}", f"--trainer.max_steps={num_steps}"]
    program = [sys.executable, "-m", "commands.cli"]
    run = subprocess.run([*program, *arguments, *changes], cwd=project, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout + run.stderr


def test_every_file_is_tested():
    assert [path.name for path in (EXPERIMENTS / "devices").iterdir()] == ["ddp.yaml"]


def test_two_processes_train_and_one_goes_on(experiments):
    assert "Starting with 2 processes" in fit(experiments, "ddp.yaml", 2, 4, "--run=two")
    fit(experiments, "ddp.yaml", 1, 6, "--run=one", "--ckpt_path=runs/two/checkpoints/last.ckpt")
    state = torch.load(experiments / "runs/one/checkpoints/last.ckpt", weights_only=False)
    # Four batches of two processes, then those of one; the checkpoints are of the last step.
    assert state["ReplyPairs"]["cuts"] == [(2, 256, 4), (1, 256, 2)]
    assert state["global_step"] == 6
    two, one = (load_file(experiments / f"runs/{run}/backbone/model.safetensors") for run in ("two", "one"))
    assert all(torch.isfinite(value).all() for value in one.values())
    assert any((two[name] != one[name]).any() for name in two)
