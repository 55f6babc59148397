"""Real kills: `kill -9` behind the first checkpoint, the same command again, and the weights are bit for bit those of
a run that nobody disturbed."""

import json
import os
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from commands.cli import main


@pytest.mark.parametrize(
    ("experiment", "flags", "weights"),
    [
        ("pretrain_tiny", ["--trainer.max_epochs=12"], "backbone/model.safetensors"),
        ("tuning_tiny", ["--model.max_epochs=4"], "models/*/model.safetensors"),
        ("lora_tiny", ["--model.max_epochs=8", "--data.users_per_batch=1"], "adapters/*/adapter_model.safetensors"),
    ],
    ids=["pre-training", "all weights of each user", "adapters"],
)
def test_killed_and_started_again_gives_the_same_weights(project, started, experiment, flags, weights):
    arguments = ["fit", "--config", f"experiments/{experiment}.yaml", *flags]
    main([*arguments, "--run=whole"])
    killed = [*arguments, "--run=killed", "--checkpoint_every=0"]
    run = project / "runs" / "killed"
    process = started(killed, run / "checkpoints" / "last.ckpt")
    time.sleep(0.1)
    assert process.poll() is None, "it ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
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


def test_a_fit_that_is_told_to_end_does_not_end_as_if_it_was_done(project, started):
    """`make quickstart` would go on with the next command."""
    fit = ["fit", "--config", "experiments/lora_tiny.yaml", "--run=told", "--model.max_epochs=2000"]
    run = project / "runs" / "told"
    process = started([*fit, "--checkpoint_every=0"], run / "checkpoints" / "last.ckpt")
    process.terminate()
    assert process.wait(30) == 143
    assert json.loads((run / "fit.card.json").read_text())["status"] == "running"


def test_a_prediction_that_is_told_to_end_ends(project, started):
    """Lightning looks for signals in a fit only: a table that is stopped would wait for its child's last batch."""
    main(["fit", "--config", "experiments/lora_tiny.yaml", "--run=told", "--model.max_epochs=1"])
    slow = ["--model.decoding.num_candidates=200", "--model.decoding.max_new_tokens=400"]
    predict = ["predict", "--config", "experiments/lora_tiny.yaml", "--run=told", "--model.max_epochs=1", *slow]
    partial = project / "runs" / "told" / "predictions.partial"
    process = started(predict, partial)
    time.sleep(1)
    process.terminate()
    assert process.wait(30) == 143
    assert not (partial.parent / "predictions.jsonl").is_file()
