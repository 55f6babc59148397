"""Every row fares as if `torch.optim.AdamW` moved it alone."""

import pytest
import torch

from lightning_modules.lora.per_user_adamw import PerUserAdamW

STEPS = [[0, 1, 2], [2, 0], [1], [2, 1, 0], [0], [2]]  # who is in the batch, in which order


def gradient_and_rate(slot, step):
    """Invented; another one for each row and each of its steps."""
    random = torch.Generator().manual_seed(100 * slot + step)
    return torch.randn(7, generator=random), 0.1 / (1 + slot + step)


@pytest.fixture
def start():
    return torch.randn(3, 7, generator=torch.Generator().manual_seed(1))


def alone(start, slot, num_steps, weight_decay):
    """One row through torch's own AdamW."""
    row = torch.nn.Parameter(start[slot].clone())
    optimizer = torch.optim.AdamW([row], weight_decay=weight_decay)
    for step in range(num_steps):
        row.grad, optimizer.param_groups[0]["lr"] = gradient_and_rate(slot, step)
        optimizer.step()
    return row.detach()


def run(optimizer, rows, steps, taken):
    """Takes these steps; `taken` counts the steps of each row."""
    for slots in steps:
        given = [gradient_and_rate(slot, taken[slot]) for slot in slots]
        optimizer.step(
            slots=torch.tensor(slots),
            gradient=torch.stack([gradient for gradient, _ in given]),
            learning_rates=torch.tensor([rate for _, rate in given]),
        )
        for slot in slots:
            taken[slot] += 1
    return taken


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_rows_that_miss_steps_equal_rows_trained_alone(start, weight_decay):
    rows = torch.nn.Parameter(start.clone())
    taken = run(PerUserAdamW(rows, weight_decay=weight_decay), rows, STEPS, [0, 0, 0])
    assert taken == [4, 3, 4]
    expected = torch.stack([alone(start, slot, taken[slot], weight_decay) for slot in range(3)])
    torch.testing.assert_close(rows.detach(), expected, rtol=1e-6, atol=1e-7)


def test_a_forgotten_slot_starts_anew_and_the_others_do_not(start):
    rows = torch.nn.Parameter(start.clone())
    optimizer = PerUserAdamW(rows)
    taken = run(optimizer, rows, STEPS, [0, 0, 0])
    optimizer.forget(1)
    with torch.no_grad():
        rows[1] = start[1]
    run(optimizer, rows, [[0, 1], [1]], [taken[0], 0, taken[2]])
    torch.testing.assert_close(rows[1].detach(), alone(start, 1, 2, 0.0), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(rows[0].detach(), alone(start, 0, 5, 0.0), rtol=1e-6, atol=1e-7)


def test_a_stopped_optimizer_goes_on_bit_for_bit(start, tmp_path):
    undisturbed = torch.nn.Parameter(start.clone())
    run(PerUserAdamW(undisturbed), undisturbed, STEPS, [0, 0, 0])
    rows = torch.nn.Parameter(start.clone())
    optimizer = PerUserAdamW(rows)
    taken = run(optimizer, rows, STEPS[:3], [0, 0, 0])
    torch.save(optimizer.state_dict(), tmp_path / "state")
    rows = torch.nn.Parameter(rows.detach().clone())
    optimizer = PerUserAdamW(rows)
    optimizer.load_state_dict(torch.load(tmp_path / "state"))
    run(optimizer, rows, STEPS[3:], taken)
    assert torch.equal(rows, undisturbed)
