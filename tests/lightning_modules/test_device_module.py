"""What cannot run is refused in one line, and what runs asks nothing of the device within a step."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_modules import ProfileNetwork, ProfileSeq2Seq, PromptedLLM, RetrievedReply, UserLora, UserTuning


def trainer(precision="32-true", device="cpu", world_size=1):
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(precision=precision, strategy=strategy, world_size=world_size)


def every_module():
    yield ProfileSeq2Seq()
    yield UserLora(Path("backbone"))
    yield UserTuning(Path("backbone"))
    yield ProfileNetwork("formulas.mln")
    yield PromptedLLM(SimpleNamespace())
    yield RetrievedReply()


@pytest.mark.parametrize("module", [*every_module()], ids=lambda module: type(module).__name__)
@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "bf16-true", "transformer-engine"])
def test_precisions_that_lose_digits_are_refused(module, precision):
    with pytest.raises(ValueError, match=f"{type(module).__name__} has no trainer.precision={precision}: set 32-true"):
        module.require_devices(trainer(precision), "fit")
    module.require_devices(trainer(), "fit")


@pytest.mark.parametrize("module", [*every_module()], ids=lambda module: type(module).__name__)
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_processes_share_the_work_or_are_refused(module, command):
    if type(module) is ProfileSeq2Seq and command in ("fit", "validate"):
        module.require_devices(trainer(world_size=2), command)
        return
    with pytest.raises(ValueError, match=f"{command} with .* runs in one process, got 2: set trainer.devices=1"):
        module.require_devices(trainer(world_size=2), command)


def test_a_network_runs_on_the_cpu():
    with pytest.raises(ValueError, match="ProfileNetwork cannot run on cuda: set trainer.accelerator=cpu"):
        ProfileNetwork("formulas.mln").require_devices(trainer(device="cuda"), "fit")


def test_steps_run_on_another_device_without_a_wait_for_it():
    script = Path(__file__).with_name("fake_device.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert run.stdout == "done: fit\ndone: test\n", run.stderr[-3000:]
