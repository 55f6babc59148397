"""Steps of the modules on a device that is not there: `python fake_device.py`, in a process of its own.

Tensors have shapes, types and a device, but no numbers (torch's `FakeTensorMode`). An operation on tensors of two
devices raises, and so does a wait for a number of the device (`.item()`, `.tolist()`, a boolean index).
"""

from pathlib import Path

import torch
from peft import LoraConfig
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from datamodules.batches import Seq2SeqBatch
from lightning_modules import ProfileSeq2Seq, UserLora, adapter_module, reply_module
from lightning_modules.backbones.t5 import new_model
from lightning_modules.lora.stacked_lora import StackedLora
from lightning_modules.lora.user_rounds import UserProgress, UserRounds

USERS, ROWS = ("ada", "ben", "cleo"), 2


class Sum(torch.nn.Module):
    def update(self, value):
        self.value = getattr(self, "value", 0) + value


def moved(model, device):
    """The module with its tensors on a device; `Module.to` cannot swap fake ones."""
    tensors = {}
    for part in model.modules():
        for kept in (part._parameters, part._buffers):
            for name, tensor in kept.items():
                if tensor is not None and id(tensor) not in tensors:
                    there = tensor.detach().to(device)
                    is_parameter = kept is part._parameters
                    tensors[id(tensor)] = torch.nn.Parameter(there, tensor.requires_grad) if is_parameter else there
                    tensors[id(tensors[id(tensor)])] = tensors[id(tensor)]
                if tensor is not None:
                    kept[name] = tensors[id(tensor)]
    return model


class StandIn:
    """A trainer and a data module with what a step asks of them."""

    users, rows_per_user, users_per_batch, test_kinds = USERS, ROWS, 3, ["own", "general"]
    label_tokens_per_batch, retrieved, default_root_dir = 4.0, None, "."

    def __init__(self, fn):
        self.state, self.datamodule = self, self
        self.fn = fn


def on_device(module, model, device, fn):
    module.model = moved(model, device)
    module._device = device
    module.nll = module.tokens = Sum()  # torchmetrics' own is no fake tensor
    module.log = lambda *_, **__: None
    trainer = module._trainer = StandIn(fn)
    return trainer


def user_lora(module, device, batch, fn):
    on_device(module, new_model("tiny", 40), device, fn)
    module.lora = moved(StackedLora(module.model, LoraConfig(r=3, target_modules=["q", "v"]), 4), device)
    module.rounds = UserRounds([*USERS], 3)
    module.rounds.fill(lambda user: UserProgress(user, 10, 4.0))
    if fn == "fit":
        optimizer = module.configure_optimizers()
        module.optimizers, module.manual_backward = lambda: optimizer, lambda loss: loss.backward()
        module.training_step(batch, 0)
    else:
        module._rows = lambda users: module.lora.rows.data[: len(users)]
        module.on_test_epoch_start()
        module.test_step(batch, 0, 0)
        module.test_step(batch, 0, 1)
        module.predict_step(batch, 0)
    module.validation_step(batch, 0)


def same_for_all(module, device, batch, fn, model):
    on_device(module, model, device, fn)
    if fn == "fit":
        module.training_step(batch, 0).backward()
    module.validation_step(batch, 0)
    module.on_test_epoch_start()
    module.test_step(batch, 0, 0)
    module.predict_step(batch, 0)


def main():
    _setup_privateuseone_for_python_backend("absent")
    torch.absent.get_amp_supported_dtype = lambda: [torch.bfloat16]  # autocast asks, also where it is off
    device = torch.device("absent", 0)
    for module in (reply_module, adapter_module):  # a reply ends when its tokens say so: that is a wait
        module.generate = lambda model, batch, _: batch.input_ids.new_zeros(len(batch.labels), 1, 5)
    owners = torch.arange(len(USERS)).repeat_interleave(ROWS)
    with FakeTensorMode():
        ids = torch.ones(len(USERS) * ROWS, 8, dtype=torch.long)
        moved_ids = Seq2SeqBatch(*[ids] * 5).to(device)[:3]
    batch = Seq2SeqBatch(*moved_ids, owners, owners)
    for fn in ("fit", "test"):
        lora, one_for_all = UserLora(Path("backbone")), ProfileSeq2Seq()
        with FakeTensorMode(allow_non_fake_inputs=True):
            user_lora(lora, device, batch, fn)
            same_for_all(one_for_all, device, batch, fn, new_model("tiny", 40))
        print("done:", fn)


if __name__ == "__main__":
    main()
