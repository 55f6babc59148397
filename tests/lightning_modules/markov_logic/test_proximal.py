"""Proximal gradient against closed forms and against scikit-learn's solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.markov_logic.proximal import ProximalGradient


def minimise(parameters, loss_of, steps: int, first_step: float = 1.0, l1: float = 0.0) -> None:
    optimizer = ProximalGradient(parameters, l1)
    for group in optimizer.param_groups:
        group["lr"] = first_step

    def closure():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    optimizer.settle()


def test_a_quadratic_with_l1_is_shrunk_towards_zero():
    """min (w - t)^2 / 2 + l |w| is t shrunk by l."""
    target = torch.tensor([3.0, -2.0, 0.5, -0.1])
    weight = torch.nn.Parameter(torch.zeros(4))
    minimise([weight], lambda: ((weight - target) ** 2).sum() / 2, 60, l1=0.7, first_step=10.0)
    torch.testing.assert_close(weight.data, torch.tensor([2.3, -1.3, 0.0, 0.0]), atol=1e-5, rtol=0)
    assert (weight.data[2:] == 0).all()


def test_each_group_has_its_own_penalty():
    free, bound = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    groups = [{"params": [free], "l1": 0.0}, {"params": [bound], "l1": 1.0}]
    minimise(groups, lambda: ((free - 2) ** 2).sum() / 2 + ((bound - 2) ** 2).sum() / 2, 60)
    torch.testing.assert_close(free.data, torch.full((2,), 2.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(bound.data, torch.full((2,), 1.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_logistic_regression_equals_scikit_learns(ratio):
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 12))
    truth = (inputs @ random.normal(size=12) + random.normal(size=200) > 0).astype(int)
    reference = LogisticRegression(
        C=0.1, l1_ratio=ratio, solver="saga", fit_intercept=False, tol=1e-10, max_iter=100_000
    ).fit(inputs, truth)
    x, y = torch.from_numpy(inputs), torch.from_numpy(truth).double()
    weight = torch.nn.Parameter(torch.zeros(12, dtype=torch.float64))

    def loss():
        nll = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight, y, reduction="sum")
        return nll + (1 - ratio) * 10 * (weight**2).sum() / 2

    minimise([weight], loss, 400, l1=ratio * 10)
    np.testing.assert_allclose(weight.detach().numpy(), reference.coef_[0], atol=1e-4)
