"""T5 in three sizes: the paper's, and two that are about what they promise."""

import pytest
import torch
from transformers import T5ForConditionalGeneration

from lightning_modules.backbones.t5 import new_config, new_model


@pytest.mark.parametrize(
    ("size", "vocabulary_size", "low", "high"),
    [("tiny", 400, 2e4, 1e5), ("small", 8000, 4.5e6, 6e6), ("base", 32_128, 222_903_552, 222_903_552)],
)
def test_sizes(size, vocabulary_size, low, high):
    with torch.device("meta"):
        model = T5ForConditionalGeneration(new_config(size, vocabulary_size, dropout=0.0))
    assert low <= sum(parameter.numel() for parameter in model.parameters()) <= high


def test_dropout_is_the_one_asked_for():
    assert new_model("tiny", 40, dropout=0.25).config.dropout_rate == 0.25


def test_random_weights_are_the_same_on_every_device():
    """Lightning builds a model in the context of its device."""
    models = []
    for device in ("cpu", "meta"):
        torch.manual_seed(3)
        with torch.device(device):
            models.append(new_model("tiny", 40).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
