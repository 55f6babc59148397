"""AdamW for a matrix in which every row is one user's adapter.

A step moves only the rows of the users in the batch. The moments and weights of other users do not decay and their
steps are not counted: each row fares as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class PerUserAdamW(Optimizer):
    """Decoupled weight decay (Loshchilov and Hutter 2019) of a matrix, (slots, numbers of an adapter), row by row."""

    def __init__(self, rows: Tensor, weight_decay: float = 0.0) -> None:
        # Lightning wants to see a learning rate; each user's own comes with each step.
        super().__init__([rows], {"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": weight_decay})
        self.state[rows] = {
            "steps": torch.zeros(len(rows), device=rows.device),
            "exp_avg": torch.zeros_like(rows),
            "exp_avg_sq": torch.zeros_like(rows),
        }

    def forget(self, slot: int) -> None:
        """Clears the moments and steps of a slot, for the next user in it."""
        (rows,) = self.param_groups[0]["params"]
        for tensor in self.state[rows].values():
            tensor[slot] = 0

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, slots: Tensor, gradient: Tensor, learning_rates: Tensor
    ) -> Any:
        """Moves the rows at `slots` (u,) by their gradient (u, p), each with its own learning rate (u,)."""
        result = closure() if closure is not None else None
        (group,) = self.param_groups
        (rows,) = group["params"]
        state = self.state[rows]
        beta1, beta2 = group["betas"]
        steps = state["steps"][slots] + 1
        first = state["exp_avg"][slots].lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"][slots].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        state["steps"][slots], state["exp_avg"][slots], state["exp_avg_sq"][slots] = steps, first, second
        # In fp64, because 1 - 0.999 has lost half its digits in fp32.
        correction1, correction2 = ((1 - beta ** steps.double()).to(rows)[:, None] for beta in (beta1, beta2))
        rate = learning_rates[:, None]
        denominator = (second / correction2).sqrt_().add_(group["eps"])
        kept = rows[slots] * (1 - rate * group["weight_decay"])
        rows[slots] = kept - rate * (first / correction1) / denominator
        return result
