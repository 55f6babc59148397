"""Accelerated proximal gradient: minimises a smooth convex loss plus an L1 penalty, which makes many weights zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ProximalGradient(Optimizer):
    """FISTA with backtracking (Beck and Teboulle 2009) and restarts by the gradient (O'Donoghue and Candès 2015).

    One step is one accepted move; the step size halves until the loss bends no more than it allows, and
    grows a little after each move. A parameter group may have its own `l1`, the weight of its sum of absolute values,
    and a `metric`: for each of its parameters a positive tensor of that shape, how strongly the loss bends along each
    coordinate. Steps are divided by it, so that what occurs seldom moves as fast as what occurs everywhere.
    """

    def __init__(self, params: Iterable[Any], l1: float = 0.0) -> None:
        super().__init__(params, {"lr": 1.0, "l1": l1})  # all groups move with one step size

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One move; returns the smooth loss before it, from a closure that also leaves its gradients."""
        closure = torch.enable_grad()(closure)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        penalties = [group["l1"] for group in self.param_groups for _ in group["params"]]
        metrics = [metric for group in self.param_groups for metric in _metrics(group)]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {"last": parameter.clone(), "momentum": torch.ones(())}
        # `parameter` is the extrapolated point y; `last` is x, where the previous move ended.
        loss = closure()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {float(loss)}; there is nothing to minimise")
        points = [parameter.clone() for parameter in parameters]
        gradients = [parameter.grad.clone() for parameter in parameters]
        while True:
            rate = self.param_groups[0]["lr"]
            moved = zip(parameters, points, gradients, penalties, metrics, strict=True)
            for parameter, point, gradient, l1, metric in moved:
                parameter.copy_(_shrink(point - rate / metric * gradient, rate / metric * l1))
            closure()
            moves = [parameter - point for parameter, point in zip(parameters, points, strict=True)]
            turns = [parameter.grad - gradient for parameter, gradient in zip(parameters, gradients, strict=True)]
            # The loss has at most this curvature along the move. Gradients tell it where, close to the minimum,
            # the difference of two losses would be all rounding (Becker, Candès and Grant 2011, section 5.3).
            if rate * _inner(turns, moves) <= _inner(moves, moves, metrics):
                break
            self._scale_rate(0.5)
        self._extrapolate(parameters, moves, metrics)
        self._scale_rate(1.2)
        return loss

    def _scale_rate(self, factor: float) -> None:
        for group in self.param_groups:
            group["lr"] *= factor

    def _extrapolate(self, parameters: list[Tensor], moves: list[Tensor], metrics: list[Tensor]) -> None:
        """Moves on in the direction of the last two points, unless that leads uphill."""
        steps = [parameter - self.state[parameter]["last"] for parameter in parameters]
        uphill = _inner(moves, steps, metrics) < 0
        for parameter, step in zip(parameters, steps, strict=True):
            state = self.state[parameter]
            state["last"] = parameter.clone()
            old = torch.ones(()) if uphill else state["momentum"]
            state["momentum"] = (1 + (1 + 4 * old**2).sqrt()) / 2
            if not uphill:
                parameter.add_(step, alpha=float((old - 1) / state["momentum"]))

    @torch.no_grad()
    def settle(self) -> None:
        """Puts the parameters where the last move ended, instead of ahead of it; call when all steps are done."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if self.state[parameter]:
                    parameter.copy_(self.state[parameter]["last"])


def _inner(left: list[Tensor], right: list[Tensor], metrics: list[Tensor] | None = None) -> Tensor:
    """Inner product over all parameters, in these metrics."""
    if metrics is not None:
        left = [metric * tensor for metric, tensor in zip(metrics, left, strict=True)]
    return sum((one * other).sum() for one, other in zip(left, right, strict=True))


def _metrics(group: dict[str, Any]) -> list[Tensor]:
    return group.get("metric") or [torch.ones((), dtype=parameter.dtype) for parameter in group["params"]]


def _shrink(values: Tensor, threshold: Tensor) -> Tensor:
    return values.sign() * (values.abs() - threshold).clamp(min=0)
