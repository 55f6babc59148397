"""Summed log-likelihoods against one unpadded row at a time through Hugging Face's own forward."""

import copy

import pytest
import torch

from datamodules.batches import IGNORED
from lightning_modules.backbones import likelihood
from lightning_modules.backbones.likelihood import reply_states, row_nll, summed_nll, token_nll, user_nll

VOCABULARY = 40
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


@pytest.mark.parametrize("logits_at_once", [2**27, 200], ids=["one product", "chunks"])
def test_on_other_devices_labels_cost_the_same(tiny_model, batch, monkeypatch, logits_at_once):
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", logits_at_once)
    states = reply_states(tiny_model, batch).detach().requires_grad_()
    weight = tiny_model.lm_head.weight
    ours = token_nll(states, weight, batch.labels).view(3, -1).sum(1)
    theirs = user_nll(tiny_model, states, batch.labels, 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    scale = torch.tensor([1.0, 2.0, 3.0])  # users have different mean token counts
    wanted = [states, weight]
    gradients = zip(*(torch.autograd.grad((nll * scale).sum(), wanted) for nll in (ours, theirs)), strict=True)
    for own, other in gradients:
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_one_product_needs_few_operators(tiny_model):
    """8 users with 160 label tokens each; in CUDA's own chunks, of 1 to 4 tokens, it was 11,020 operators."""
    states = torch.randn(8, 160, tiny_model.config.d_model, requires_grad=True)
    labels = torch.randint(VOCABULARY, (8, 160))
    with torch.profiler.profile() as profile:
        token_nll(states, tiny_model.lm_head.weight.detach(), labels).view(8, -1).sum(1).sum().backward()
    assert (
        sum(event.count for event in profile.key_averages()) < 100
    )  # with calls of calls: 71, and 45,900 in chunks of 2


def test_losses_in_bf16_are_added_up_in_fp32(tiny_model):
    """Added up in bf16, as `linear_cross_entropy` does, 11,000 tokens came out 3 % low."""
    torch.manual_seed(0)
    states, weight = torch.randn(1, 3000, 32), tiny_model.lm_head.weight.detach()
    labels = torch.randint(VOCABULARY, (1, 3000))
    exact = token_nll(states, weight, labels).sum()
    nll = token_nll(states.bfloat16(), weight, labels).sum()
    assert nll.dtype == torch.float32
    assert float(nll) == pytest.approx(float(exact), rel=2e-3)
