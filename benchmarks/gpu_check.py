"""What a GPU has to confirm, as a table: `python -m benchmarks.gpu_check`, at most 8 minutes, no data needed.

On a machine without a GPU it says so and does the same with the smallest model on the CPU, in seconds, which shows that
the checks themselves run. No GPU has confirmed anything in this table yet.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor

from benchmarks.report import table
from datamodules.batches import Seq2SeqBatch
from lightning_modules.backbones.generation import Decoding, generate
from lightning_modules.backbones.likelihood import reply_states, row_nll, summed_nll, user_nll
from lightning_modules.backbones.t5 import Size, new_model
from lightning_modules.lora.per_user_adamw import PerUserAdamW
from lightning_modules.lora.stacked_lora import StackedLora

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
VOCABULARY = 32_128 if HAS_GPU else 400
SMALL: Size = "small" if HAS_GPU else "tiny"
BASE: Size = "base" if HAS_GPU else "tiny"
NUM_USERS = (8, 32, 64) if HAS_GPU else (2,)
ROWS, INPUT, LABELS = (8, 48, 20) if HAS_GPU else (2, 8, 4)  # rows of a user, and their tokens
PEFT = {"r": 12, "lora_alpha": 12, "target_modules": ["q", "k", "v", "o", "wi", "wo"], "task_type": "SEQ_2_SEQ_LM"}
LIMIT = 480.0
"""Seconds; checks that would begin later are skipped."""


def batch_of(num_rows: int, seed: int = 0) -> Seq2SeqBatch:
    """Random reply pairs."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randint(2, VOCABULARY, (num_rows, INPUT), generator=draw)
    labels = torch.randint(2, VOCABULARY, (num_rows, LABELS), generator=draw)
    owners = torch.arange(num_rows)
    return Seq2SeqBatch(inputs, torch.ones_like(inputs), labels, owners, owners)


class Users:
    """A backbone with adapters of some users, and their training step as in `UserLora`."""

    def __init__(self, size: Size, num_users: int, device: torch.device, bf16: bool) -> None:
        torch.manual_seed(0)
        with device:  # as Lightning builds it
            self.model = new_model(size, VOCABULARY).eval()
            self.lora = StackedLora(self.model, LoraConfig(**PEFT), num_users)
            self.rows = torch.stack([self.lora.initial_row(seed) for seed in range(num_users)])
        noise = torch.randn(self.rows.shape, generator=torch.Generator().manual_seed(1))
        self.model.to(device)
        self.lora.rows.data = (self.rows + 0.02 * noise).to(device)
        self.optimizer = PerUserAdamW(self.lora.rows)
        self.device, self.bf16 = device, bf16
        self.batch = batch_of(num_users * ROWS).to(device)
        self.slots = torch.arange(num_users).to(device)
        self.rates = torch.full((num_users,), 1e-3).to(device)

    def loss_and_gradient(self) -> tuple[Tensor, Tensor]:
        rows = self.lora.rows.detach()[self.slots].requires_grad_()
        with torch.autocast(self.device.type, torch.bfloat16, self.bf16):
            self.lora.activate(rows)
            nll = user_nll(self.model, reply_states(self.model, self.batch), self.batch.labels, len(self.slots))
        (gradient,) = torch.autograd.grad(nll.float().sum() / (ROWS * LABELS), rows)
        return nll.detach().float(), gradient

    def step(self) -> None:
        _, gradient = self.loss_and_gradient()
        self.optimizer.step(slots=self.slots, gradient=gradient, learning_rates=self.rates)


def seconds_of(work: Callable[[], object], repetitions: int) -> float:
    """Of one repetition, after two to warm up."""
    for number in range(repetitions + 2):
        if number == 2:
            _wait()
            began = time.perf_counter()
        work()
    _wait()
    return (time.perf_counter() - began) / repetitions


def _wait() -> None:
    if HAS_GPU:
        torch.cuda.synchronize()


def first_weights() -> tuple[str, bool]:
    """The same numbers in the device's context as on the CPU."""
    here, there = (Users(SMALL, 2, device, False) for device in (torch.device("cpu"), DEVICE))
    pairs = zip(here.model.state_dict().values(), there.model.state_dict().values(), strict=True)
    same = torch.equal(here.rows, there.rows) and all(torch.equal(a, b.cpu()) for a, b in pairs)
    return "equal" if same else "differ", same


def against_the_cpu() -> tuple[str, bool]:
    """Losses and gradients of a step in fp32."""
    here, there = (Users(SMALL, 4, device, False).loss_and_gradient() for device in (torch.device("cpu"), DEVICE))
    worst = max(float((b.cpu() - a).norm() / a.norm()) for a, b in zip(here, there, strict=True))
    return f"{worst:.1e}", worst < 1e-3


def loss_in_bf16() -> tuple[str, bool]:
    """Of a training step, against fp32."""
    exact, lowered = (Users(BASE, 8, DEVICE, bf16).loss_and_gradient()[0].sum() for bf16 in (False, True))
    off = float(lowered / exact - 1)
    return f"{off:+.2%}", abs(off) < 0.01


def against_peft() -> tuple[str, bool]:
    """Each user's loss in a mixed batch against PEFT alone, in bf16."""
    users = Users(SMALL, 3, DEVICE, True)
    torch.manual_seed(0)
    plain, worst = new_model(SMALL, VOCABULARY).eval().to(DEVICE), 0.0
    with torch.autocast(DEVICE.type, torch.bfloat16), torch.no_grad():
        users.lora.activate(users.lora.rows)
        ours = row_nll(users.model, users.batch)[0].view(3, ROWS).sum(1)
        for number in range(3):
            own = Seq2SeqBatch(*(part[number * ROWS : (number + 1) * ROWS] for part in users.batch))
            alone: PeftModel = get_peft_model(copy.deepcopy(plain), LoraConfig(**PEFT))
            set_peft_model_state_dict(alone, users.lora.to_peft(users.lora.rows[number]))
            theirs = row_nll(alone.eval().base_model.model, own)[0].sum()
            worst = max(worst, abs(float(ours[number] / theirs - 1)))
    return f"{worst:.1e}", worst < 5e-3


def launches() -> tuple[str, bool]:
    """Operators of a step of 8 users."""
    users = Users(BASE, 8, DEVICE, True)
    users.step()
    with torch.profiler.profile() as profile:
        users.step()
    on_device = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    count = len(on_device) or sum(event.count for event in profile.key_averages())
    return f"{count:,}", count < 10_000 or not HAS_GPU


def speed(num_users: int) -> tuple[str, bool]:
    """Training steps with this number of users in a batch."""
    users = Users(BASE, num_users, DEVICE, True)
    rate = 1 / seconds_of(users.step, 20 if HAS_GPU else 1)
    return f"{rate:.2f} steps/s, {rate * num_users * ROWS:,.0f} rows/s", True


def pretraining_memory() -> tuple[str, bool]:
    """A step of 32,768 tokens: peak memory and pairs a second."""
    num_rows = 32_768 // (INPUT + LABELS) if HAS_GPU else 8
    torch.manual_seed(0)
    model, batch = new_model(BASE, VOCABULARY).train().to(DEVICE), batch_of(num_rows).to(DEVICE)
    optimizer = torch.optim.Adafactor(model.parameters(), lr=1e-2)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16):
            nll = summed_nll(model, reply_states(model, batch), batch.labels)
        (nll / (num_rows * LABELS)).backward()
        optimizer.step()

    seconds = seconds_of(step, 5 if HAS_GPU else 1)
    peak = torch.cuda.max_memory_allocated() / 2**30 if HAS_GPU else 0.0
    return f"{peak:.1f} GiB, {num_rows / seconds:,.0f} pairs/s", peak < 40


def replies() -> tuple[str, bool]:
    """Sampled replies to a mixed batch."""
    users = Users(BASE, 8, DEVICE, True)
    decoding = Decoding(max_new_tokens=32 if HAS_GPU else 4)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        users.lora.activate(users.lora.rows)
        seconds = seconds_of(lambda: generate(users.model, users.batch, decoding), 3 if HAS_GPU else 1)
    return f"{8 * ROWS / seconds:,.1f} replies/s", True


CHECKS: dict[str, Callable[[], tuple[str, bool]]] = {
    "first weights, device and CPU": first_weights,
    "loss and gradient, device and CPU, fp32": against_the_cpu,
    "training loss in bf16 against fp32": loss_in_bf16,
    "mixed batch against PEFT, bf16": against_peft,
    "operators of a step, 8 users (below 10,000)": launches,
    **{f"step of {number} users": lambda number=number: speed(number) for number in NUM_USERS},
    "pre-training, 32,768 tokens (below 40 GiB)": pretraining_memory,
    "replies, 8 users": replies,
}


def main() -> None:
    """Prints the table; exit code 1 if something is wrong."""
    name = torch.cuda.get_device_name() if HAS_GPU else "no GPU here: the smallest model on the CPU instead"
    print(f"{name}; torch {torch.__version__}", flush=True)
    began, rows = time.monotonic(), []
    for title, check in CHECKS.items():
        if time.monotonic() - began > LIMIT:
            rows.append((title, "", "skipped: no time left"))
            continue
        try:
            value, is_right = check()
        except (RuntimeError, ValueError) as error:  # the others are still worth knowing
            value, is_right = str(error).splitlines()[0], False
        rows.append((title, value, "ok" if is_right else "WRONG"))
        print(f"{time.monotonic() - began:5.0f} s  {': '.join(rows[-1])}", flush=True)
    print(table(("check", "measured", "result"), rows))
    if any(result == "WRONG" for *_, result in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
