"""Real kills: `kill -9` after the first checkpoint, the same command again, and the weights are bit for bit those of a
run that was never disturbed."""

import json
import os
import signal
import time

import pytest
import torch
from ending import wait_until
from safetensors.torch import load_file

from commands.cli import main


def kill_after_a_checkpoint(process, checkpoint):
    """Kills a command a moment after its first checkpoint was written; it must still be at work."""
    try:
        wait_until(checkpoint.is_file, process.is_alive)
        time.sleep(0.1)
        assert process.is_alive()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()


@pytest.mark.parametrize(
    ("experiment", "flags", "weights"),
    [
        ("pretrain_tiny", ["--trainer.max_epochs=6"], "backbone/model.safetensors"),
        ("tuning_tiny", ["--model.max_epochs=3"], "models/*/model.safetensors"),
        ("lora_tiny", ["--model.max_epochs=4", "--data.users_per_batch=1"], "adapters/*/adapter_model.safetensors"),
    ],
    ids=["pre-training", "all weights of each user", "adapters"],
)
def test_killed_and_started_again_gives_the_same_weights(project, start_command, experiment, flags, weights):
    arguments = ["fit", "--config", f"experiments/{experiment}.yaml", *flags]
    main([*arguments, "--run=whole"])
    killed = [*arguments, "--run=killed", "--checkpoint_every=0"]
    run = project / "runs" / "killed"
    kill_after_a_checkpoint(start_command(*killed), run / "checkpoints" / "last.ckpt")
    steps = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
    assert json.loads((run / "fit.card.json").read_text())["status"] == "running"
    assert not list(run.glob("backbone/*"))
    main([*arguments, "--run=killed"])
    finished = json.loads((run / "fit.card.json").read_text())
    assert (finished["status"], finished["steps"] > steps) == ("finished", True)
    theirs, ours = (
        {path.relative_to(one): load_file(path) for path in one.glob(weights)} for one in (run.with_name("whole"), run)
    )
    assert ours.keys() == theirs.keys() != set()
    for path, tensors in theirs.items():
        assert not [name for name in tensors if not torch.equal(ours[path][name], tensors[name])], path
