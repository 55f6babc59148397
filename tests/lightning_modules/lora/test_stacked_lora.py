"""Adapters of many users in one matrix against PEFT itself, one user at a time, through PEFT's own files."""

import copy
import math

import pytest
import torch
from fitting import logits_of, loss_of, strip
from peft import LoraConfig, PeftModel

from lightning_modules.backbones.generation import Decoding, generate
from lightning_modules.lora.adapter_files import TrainedAdapter, load_adapter, save_adapter
from lightning_modules.lora.stacked_lora import StackedLora, target_names

USERS = ["ann", "ann.b", "ann/b"]
EVERYTHING = ["q", "k", "v", "o", "wi", "wo"]


def lora_config(**changes):
    return LoraConfig(**{"r": 3, "lora_alpha": 12, "target_modules": EVERYTHING, "task_type": "SEQ_2_SEQ_LM"} | changes)


def stacked(model, **changes):
    """Stacked adapters of three users on a copy of the model, with weights that are not zero."""
    model = copy.deepcopy(model)
    lora = StackedLora(model, lora_config(**changes), num_slots=3)
    lora.rows.data = torch.randn(lora.rows.shape, generator=torch.Generator().manual_seed(5)) * 0.3
    return model, lora


def rows_of(batch, number):
    return type(batch)(*(tensor[2 * number : 2 * number + 2] for tensor in batch))


@pytest.fixture
def in_peft(tiny_model, tmp_path):
    """Exports a user's adapter and loads it with PEFT alone."""

    def load(lora, number, **changes):
        adapter = TrainedAdapter(USERS[number], lora.to_peft(lora.rows[number]), {"backbone": "b"})
        directory = save_adapter(tmp_path, lora_config(**changes), adapter)
        assert torch.equal(lora.from_peft(load_adapter(tmp_path, USERS[number], "b", {})), lora.rows[number])
        return PeftModel.from_pretrained(copy.deepcopy(tiny_model), str(directory)).eval()

    return load


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"r": 1, "lora_alpha": 0.5, "target_modules": ["q"]},
        {"target_modules": r"decoder\..*\.(q|wo)"},
        {"target_modules": ["EncDecAttention.v", "wi"]},
    ],
    ids=["plain", "rslora", "rank 1", "regular expression", "longer names"],
)
def test_every_user_gets_the_logits_of_peft(tiny_model, batch, in_peft, changes):
    model, lora = stacked(tiny_model, **changes)
    lora.activate(lora.rows.data)
    grouped = logits_of(model, batch)
    bare = logits_of(tiny_model, batch)
    for number in range(3):
        expected = logits_of(in_peft(lora, number, **changes), rows_of(batch, number))
        torch.testing.assert_close(grouped[2 * number : 2 * number + 2], expected, rtol=1e-4, atol=1e-5)
        assert (expected - bare[2 * number : 2 * number + 2]).abs().max() > 1e-3


def test_without_adapters_and_with_new_ones_it_is_the_base_model(tiny_model, batch):
    model, lora = stacked(tiny_model)
    assert torch.equal(logits_of(model, batch), logits_of(tiny_model, batch))
    for rows in (None, torch.stack([lora.initial_row(seed) for seed in range(3)])):
        lora.activate(lora.rows.data)
        assert not torch.allclose(logits_of(model, batch), logits_of(tiny_model, batch))
        lora.activate(rows)
        assert torch.equal(logits_of(model, batch), logits_of(tiny_model, batch))


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(sample=False, max_new_tokens=8),
        Decoding(sample=False, num_beams=3, num_candidates=2, max_new_tokens=8),
    ],
    ids=["greedy", "beams"],
)
def test_replies_of_a_mixed_batch_are_those_of_each_user_alone(tiny_model, batch, in_peft, decoding):
    model, lora = stacked(tiny_model)
    lora.activate(lora.rows.data)
    grouped = generate(model, batch, decoding).flatten(0, 1).tolist()
    alone = [
        reply
        for number in range(3)
        for reply in generate(in_peft(lora, number), rows_of(batch, number), decoding).flatten(0, 1).tolist()
    ]
    assert [strip(ids) for ids in grouped] == [strip(ids) for ids in alone]
    lora.activate(None)
    assert [strip(ids) for ids in generate(model, batch, decoding).flatten(0, 1).tolist()] != [
        strip(ids) for ids in grouped
    ]


def test_gradients_reach_every_adapter_and_nothing_else(tiny_model, batch):
    model, lora = stacked(tiny_model)
    rows = lora.rows.detach().clone().requires_grad_()
    lora.activate(rows)
    loss_of(model, batch).backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    for row in rows.grad:
        assert all(tensor.abs().max() > 0 for tensor in lora.to_peft(row).values())


def test_size_and_scaling(tiny_model):
    # 32 wide, 4 heads of 8, 64 in the feed-forward: q, k, v, o are (32, 32) and there are three attentions of them;
    # two feed-forwards of (32, 64) and (64, 32). r (d_in + d_out) each.
    _, lora = stacked(tiny_model)
    assert lora.rows.shape[1] == 3 * (12 * 64 + 4 * 96)
    assert lora.scaling == 12 / 3
    assert stacked(tiny_model, use_rslora=True)[1].scaling == pytest.approx(12 / math.sqrt(3))


def test_first_weights_are_those_that_peft_draws_from_the_seed_alone(tiny_model):
    _, lora = stacked(tiny_model)
    state = lora.to_peft(lora.initial_row(1))
    assert all(tensor.abs().max() == 0 for name, tensor in state.items() if "lora_B" in name)
    name = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"
    assert state[name].abs().max() <= 1 / math.sqrt(32)  # Kaiming uniform with a = sqrt(5): bound 1 / sqrt(d_in)
    drawn = torch.cat([tensor.flatten() for key, tensor in state.items() if "lora_A" in key and tensor.shape[1] == 32])
    assert drawn.std().item() == pytest.approx(1 / math.sqrt(3 * 32), rel=0.05)
    assert torch.equal(lora.initial_row(1), lora.initial_row(1))
    assert not torch.equal(lora.initial_row(1), lora.initial_row(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": ["q", "wi_0"]}, r"target_modules \['wi_0'\] match nothing .* called \['k', .*'wi', 'wo'\]"),
        ({"target_modules": "decoder"}, r"target_modules \['decoder'\] match nothing"),
        ({"target_modules": ["ttention.q"]}, "match nothing"),
        ({"target_modules": ["lm_head"]}, "lm_head shares its weights with the embedding"),
        ({"use_dora": True}, r"\['use_dora'\] cannot be trained for many users at once; use UserTuning"),
        ({"lora_dropout": 0.1, "bias": "all"}, r"\['lora_dropout', 'bias'\]"),
        ({"r": 0}, "rank must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_is_refused(tiny_model, changes, message):
    config = lora_config()
    vars(config).update(changes)  # afterwards, because PEFT itself would reject some of them
    with pytest.raises(ValueError, match=message):
        StackedLora(tiny_model, config, 1)


def test_targets_are_found_as_peft_finds_them(tiny_model):
    for targets in (["q", "EncDecAttention.v"], ["wi"], r".*\.(q|wo)"):
        peft = PeftModel(copy.deepcopy(tiny_model), lora_config(target_modules=targets))
        expected = [
            name.removeprefix("base_model.model.") for name, module in peft.named_modules() if hasattr(module, "lora_A")
        ]
        assert target_names(tiny_model, targets) == expected


def test_first_weights_are_drawn_on_the_cpu_whatever_the_device(tiny_model):
    """Lightning builds a model in the context of its device."""
    _, lora = stacked(tiny_model)
    with torch.device("meta"):
        row = lora.initial_row(7)
    assert row.device.type == "cpu"
    assert torch.equal(row, lora.initial_row(7))
