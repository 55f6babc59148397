"""Summed log-likelihoods against one unpadded row at a time through Hugging Face's own forward."""

import copy

import pytest
import torch

from datamodules.batches import IGNORED
from lightning_modules.backbones.likelihood import reply_states, row_nll, summed_nll

INPUTS = [[5, 6, 7, 1], [8, 1], [9, 10, 11, 12, 13, 1]]
LABELS = [[20, 21, 1], [22, 23, 24, 25, 1], [1]]


def nll_alone(model, inputs, labels):
    """What a row costs without padding, from the logits."""
    logits = model(input_ids=torch.tensor([inputs]), labels=torch.tensor([labels])).logits[0]
    return -logits.log_softmax(-1)[range(len(labels)), labels].sum()


def test_rows_cost_what_they_cost_alone(tiny_model, make_batch):
    nll, tokens = row_nll(tiny_model, make_batch(INPUTS, LABELS))
    expected = torch.stack([nll_alone(tiny_model, *row) for row in zip(INPUTS, LABELS, strict=True)])
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)
    assert tokens.tolist() == [3, 5, 1]
    assert nll.dtype == torch.float32


def test_gradients_are_those_of_plain_cross_entropy(tiny_model, make_batch):
    plain = copy.deepcopy(tiny_model)
    batch = make_batch(INPUTS, LABELS)
    (summed_nll(tiny_model, reply_states(tiny_model, batch), batch.labels) / 9).backward()
    output = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)
    output.loss.backward()  # Hugging Face: the mean over 9 label tokens
    for (name, ours), (_, theirs) in zip(tiny_model.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_padding_and_empty_rows_count_nothing(tiny_model, make_batch):
    batch = make_batch([*INPUTS, [0]], [*LABELS, []])
    nll, tokens = row_nll(tiny_model, batch)
    assert (nll[3], tokens[3]) == (0, 0)
    wider = batch._replace(labels=torch.nn.functional.pad(batch.labels, (0, 4), value=IGNORED))
    wider = wider._replace(
        input_ids=torch.nn.functional.pad(batch.input_ids, (0, 4), value=7),  # whatever is masked
        attention_mask=torch.nn.functional.pad(batch.attention_mask, (0, 4)),
    )
    torch.testing.assert_close(row_nll(tiny_model, wider)[0], nll)
    torch.testing.assert_close(
        summed_nll(tiny_model, reply_states(tiny_model, wider), wider.labels), nll.sum(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("precise", [True, False], ids=["evaluation", "training"])
def test_evaluation_projects_in_32_bits_under_autocast(tiny_model, make_batch, precise):
    batch = make_batch(INPUTS, LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = reply_states(tiny_model, batch)
        value = row_nll(tiny_model, batch)[0].sum() if precise else summed_nll(tiny_model, states, batch.labels)
    known = batch.labels != IGNORED
    exact = torch.nn.functional.cross_entropy(
        states[known].double() @ tiny_model.lm_head.weight.double().T, batch.labels[known], reduction="sum"
    )
    assert (abs(value.double() - exact) < 1e-4 * exact).item() == precise
