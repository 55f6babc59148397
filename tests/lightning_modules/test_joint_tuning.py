"""One model for all target users: from the backbone's weights, the best ones kept, with and without a number."""

import json
import math

import pytest
import torch
from fitting import QUIET
from lightning import Callback, Trainer

from callbacks import BackboneExport, PredictionWriter
from datamodules import ReplyPairs
from datamodules.prompts.template import PromptTemplate
from evaluation.results.predictions import read_predictions
from lightning_modules import JointTuning
from lightning_modules.backbones.files import load_backbone, save_backbone
from lightning_modules.backbones.generation import Decoding

NUMBERS = PromptTemplate("user", attribute_format="{value}")


@pytest.fixture
def make(preparation, tiny_backbone, tmp_path):
    """Builds trainer, module and data of a run."""

    def build(prompt=None, callbacks=(), init_from=tiny_backbone, max_epochs=2):
        module = JointTuning(
            init_from=init_from,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
            decoding=Decoding(sample=False, max_new_tokens=4),
        )
        splits = {"train_split": "users/train", "validation_split": "users/validation"}
        data = ReplyPairs(preparation, prompt, tokens_per_batch=512, **splits)
        settings = {**QUIET, "enable_checkpointing": False, "num_sanity_val_steps": 0}
        exported = [BackboneExport(best=True), PredictionWriter(), *callbacks]
        return Trainer(default_root_dir=tmp_path, callbacks=exported, max_epochs=max_epochs, **settings), module, data

    return build


class Spoilt(Callback):
    """Spoils the weights before each validation but the first, and keeps the losses."""

    def __init__(self):
        self.losses = []

    def on_validation_start(self, trainer, pl_module):
        if self.losses:
            for parameter in pl_module.parameters():
                parameter.data.mul_(3)

    def on_validation_end(self, trainer, pl_module):
        self.losses.append(float(trainer.callback_metrics["val/loss"]))


@pytest.mark.parametrize("prompt", [None, NUMBERS], ids=["none", "user"])
def test_it_begins_with_the_backbone_and_predicts_with_what_it_has_trained(make, tiny_backbone, tmp_path, prompt):
    trainer, module, data = make(prompt)
    trainer.fit(module, datamodule=data)
    before, after = load_backbone(tiny_backbone), load_backbone(tmp_path / "backbone")
    assert module.backbone_fingerprint == before.fingerprint  # what it was tuned from
    assert after.prompt == (prompt or PromptTemplate())
    moved = max((a - b).abs().max() for a, b in zip(after.model.parameters(), before.model.parameters(), strict=True))
    assert 0 < moved < 0.5  # steps of 0.01 lead no further; other random weights would be some units off
    trainer, module, data = make(prompt)
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    trainer.predict(module, datamodule=data)
    predictions = read_predictions(tmp_path / "predictions.jsonl")
    assert {one.user for one in predictions} == {"ada", "ben", "cleo", "dan"}
    loss = sum(one.nll for one in predictions) / sum(one.tokens for one in predictions)
    assert tested["test/loss"] == pytest.approx(loss, rel=1e-5)
    assert loss < math.log(data.prompts.tokenizer.get_vocab_size()) - 0.5  # better than all tokens equally likely
    if prompt:
        trainer, module, data = make()
        with pytest.raises(ValueError, match="trained with another prompt: style was 'user', now 'none'"):
            trainer.test(module, datamodule=data)
    card = json.loads((tmp_path / "predictions.card.json").read_text())
    assert card["backbone"] == after.fingerprint
    assert card.get("data") == ({"profiles": "a number for each user", "control": None} if prompt else None)


def test_the_best_weights_are_kept(make, tmp_path):
    spoilt = Spoilt()
    trainer, module, data = make(callbacks=[spoilt], max_epochs=3)
    trainer.fit(module, datamodule=data)
    manifest = json.loads((tmp_path / "backbone" / "manifest.json").read_text())
    assert spoilt.losses[0] == min(spoilt.losses) == manifest["validation_loss"]
    assert manifest["steps"] * 3 == trainer.global_step
    assert not (tmp_path / "backbone.best").exists()
    trainer, module, data = make()
    (validated,) = trainer.validate(module, datamodule=data, verbose=False)
    assert validated["val/loss"] == pytest.approx(spoilt.losses[0], rel=1e-5)


def test_without_a_validation_there_are_no_best_weights(make, tmp_path):
    trainer, module, data = make()
    trainer.limit_val_batches = 0
    with pytest.raises(ValueError, match="no validation loss was ever measured"):
        trainer.fit(module, datamodule=data)


def test_the_backbone_itself_is_never_taken_for_what_was_tuned(make):
    trainer, module, data = make()
    with pytest.raises(ValueError, match="nothing to predict: this run has trained no backbone"):
        trainer.predict(module, datamodule=data)


def test_only_a_backbone_without_prompt_gets_another_one(make, preparation, tiny_backbone, tmp_path):
    model = load_backbone(tiny_backbone).model
    save_backbone(model, preparation.output / "tokenizer", PromptTemplate("psp"), tmp_path / "psp")
    trainer, module, data = make(NUMBERS, init_from=tmp_path / "psp")
    with pytest.raises(ValueError, match="trained with another prompt: style was 'psp', now 'user'"):
        trainer.fit(module, datamodule=data)
