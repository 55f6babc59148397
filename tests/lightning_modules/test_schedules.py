"""The warm-up schedule, worked out by hand, alone and inside an optimizer."""

import pytest
import torch

from lightning_modules.schedules import WarmupLinear, warmup_linear


@pytest.mark.parametrize(
    ("num_steps", "share", "expected"),
    [
        (5, 0.4, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0]),
        (4, 0.0, [1, 3 / 4, 1 / 2, 1 / 4, 0]),
        (1, 0.06, [1 / 1.06, 0]),
        (2, 1.0, [1 / 3, 2 / 3, 0]),
    ],
)
def test_the_rate_rises_then_falls_to_zero(num_steps, share, expected):
    factors = [warmup_linear(step, num_steps, share) for step in range(num_steps + 1)]
    assert factors == pytest.approx(expected)


def test_an_optimizer_gets_these_rates():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    schedule = WarmupLinear(optimizer, 5, warmup_share=0.4)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1, 2, 3, 2, 1])
