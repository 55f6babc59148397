"""Real kills: `kill -9` behind the first checkpoint, the same command again, and the weights are bit for bit those of
a run that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commands.cli import main

COMMAND = [sys.executable, "-m", "commands.cli"]


def kill_behind_a_checkpoint(arguments, checkpoint, project):
    """Starts the command, kills it a moment after its checkpoint was written anew, and says whether it was at work."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*COMMAND, *arguments], cwd=project, env=environment, start_new_session=True)
    deadline = time.monotonic() + 90
    try:
        while not checkpoint.is_file():
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.1)
    finally:
        alive = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return alive


@pytest.mark.parametrize(
    ("experiment", "flags", "weights"),
    [
        ("pretrain_tiny", ["--trainer.max_epochs=12"], "backbone/model.safetensors"),
        ("tuning_tiny", ["--model.max_epochs=4"], "models/*/model.safetensors"),
        ("lora_tiny", ["--model.max_epochs=8", "--data.users_per_batch=1"], "adapters/*/adapter_model.safetensors"),
    ],
    ids=["pre-training", "all weights of each user", "adapters"],
)
def test_killed_and_started_again_gives_the_same_weights(project, experiment, flags, weights):
    arguments = ["fit", "--config", f"experiments/{experiment}.yaml", *flags]
    main([*arguments, "--run=whole"])
    killed = [*arguments, "--run=killed", "--checkpoint_every=0"]
    run = project / "runs" / "killed"
    assert kill_behind_a_checkpoint(killed, run / "checkpoints" / "last.ckpt", project)
    steps = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    assert json.loads((run / "fit.card.json").read_text())["status"] == "running"
    assert not list(run.glob("backbone/*"))
    main(killed)
    finished = json.loads((run / "fit.card.json").read_text())
    assert (finished["status"], finished["steps"] > steps) == ("finished", True)
    theirs = {
        path.relative_to(project / "runs" / "whole"): load_file(path)
        for path in (project / "runs" / "whole").glob(weights)
    }
    ours = {path.relative_to(run): load_file(path) for path in run.glob(weights)}
    assert ours.keys() == theirs.keys() != set()
    for path, tensors in theirs.items():
        assert not [name for name in tensors if not torch.equal(ours[path][name], tensors[name])], path


def test_a_fit_that_is_told_to_end_does_not_end_as_if_it_was_done(project):
    """`make quickstart` would go on with the next command."""
    fit = ["fit", "--config", "experiments/lora_tiny.yaml", "--run=told", "--model.max_epochs=2000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*COMMAND, *fit, "--checkpoint_every=0"], cwd=project, env=environment)
    run, deadline = project / "runs" / "told", time.monotonic() + 90
    while not (run / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    assert process.wait(30) == 143
    assert json.loads((run / "fit.card.json").read_text())["status"] == "running"


def test_a_prediction_that_is_told_to_end_ends(project):
    """Lightning looks for signals in a fit only: a table that is stopped would wait for its child's last batch."""
    main(["fit", "--config", "experiments/lora_tiny.yaml", "--run=told", "--model.max_epochs=1"])
    slow = ["--model.decoding.num_candidates=200", "--model.decoding.max_new_tokens=400"]
    predict = ["predict", "--config", "experiments/lora_tiny.yaml", "--run=told", "--model.max_epochs=1", *slow]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*COMMAND, *predict], cwd=project, env=environment)
    partial, deadline = project / "runs" / "told" / "predictions.jsonl.partial", time.monotonic() + 90
    while not partial.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1)
    process.terminate()
    assert process.wait(30) == 143
    assert not (partial.parent / "predictions.jsonl").is_file()
