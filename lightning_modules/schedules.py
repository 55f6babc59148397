"""Learning-rate schedules that get the number of steps from the module, as torch's `CosineAnnealingLR` does."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from artefacts.ranges import SHARE, require


def warmup_linear(step: int, num_steps: int, warmup_share: float) -> float:
    """Factor on the learning rate: up over the first `warmup_share` of the steps, then down to 0 after the last."""
    warmup = warmup_share * num_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (num_steps - step) / max(1.0, num_steps - warmup))


class WarmupLinear(LambdaLR):
    """Linear warm-up, then linear decay to zero (not stated in the paper).

    Args:
        optimizer: whose learning rate is scheduled.
        num_steps: optimizer steps of the whole training.
        warmup_share: share of them in which the rate rises.
    """

    def __init__(self, optimizer: Optimizer, num_steps: int, warmup_share: float = 0.04) -> None:
        require({"warmup_share": warmup_share}, warmup_share=SHARE)
        super().__init__(optimizer, lambda step: warmup_linear(step, num_steps, warmup_share))
