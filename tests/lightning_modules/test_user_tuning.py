"""Every method trains one user, is saved, and gives the same again when it is loaded."""

import json

import pytest
import torch
from lightning import Callback, Trainer
from transformers import AutoModelForSeq2SeqLM

from callbacks import ResumeCheckpoint, TunedExport
from datamodules import UserSets
from lightning_modules import UserTuning
from lightning_modules.generation import Decoding
from lightning_modules.schedules import WarmupLinear

SEQ2SEQ = {"task_type": "SEQ_2_SEQ_LM"}
METHODS = {
    "dora": {"peft_type": "LORA", "r": 4, "use_dora": True, "target_modules": ["q", "v"], **SEQ2SEQ},
    "ia3": {"peft_type": "IA3", "target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"], **SEQ2SEQ},
    "prefix": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, **SEQ2SEQ},
    "full": None,
}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


class Stopped(Exception):
    """Stands for the end of the process."""


class StopAt(ResumeCheckpoint):
    """Saves a checkpoint after each step and ends the process at this one."""

    def __init__(self, path, step):
        super().__init__(path, every=0)
        self.step = step

    def on_train_batch_end(self, trainer, *rest):
        super().on_train_batch_end(trainer, *rest)
        if trainer.global_step == self.step:
            raise Stopped


@pytest.fixture
def make(preparation, tiny_backbone, tmp_path):
    """Builds trainer, module and data of one user's run."""

    def build(method, callbacks=(), users="ben", **trainer):
        torch.manual_seed(0)
        module = UserTuning(
            init_from=tiny_backbone,
            method=METHODS[method] if isinstance(method, str) else method,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
            lr_scheduler=WarmupLinear,
            decoding=Decoding(sample=False, max_new_tokens=6),
        )
        given = {"max_epochs": 2, "enable_checkpointing": False, **trainer}
        fitting = Trainer(default_root_dir=tmp_path / "run", callbacks=[TunedExport(), *callbacks], **QUIET, **given)
        return fitting, module, UserSets(preparation, users=users, rows_per_user=4)

    return build


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_is_saved_and_gives_the_same_again(make, preparation, tiny_backbone, tmp_path, method):
    trainer, module, data = make(method)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 24  # two epochs of 48 turns, four at a time
    trained = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    before = AutoModelForSeq2SeqLM.from_pretrained(tiny_backbone).state_dict()
    kept = [any(torch.equal(tensor, now) for now in trained.values()) for tensor in before.values()]
    assert not any(kept) if method == "full" else all(kept)  # all weights are tuned, or none of the backbone's
    directory = tmp_path / "run" / ("model" if method == "full" else "adapters/ben")
    card = json.loads((directory / "card.json").read_text())
    assert (card["user"], card["method"]) == ("ben", METHODS[method])
    assert sorted(path.name for path in directory.parent.iterdir()) == [directory.name]

    trainer, loaded, data = make(method)
    (logged,) = trainer.validate(loaded, datamodule=data, verbose=False)
    assert logged["val/loss"] == pytest.approx(card["validation_loss"], rel=1e-5)
    if card["step"] == 24:
        assert_same_logits(module.model, loaded.model)
    (tested,) = trainer.test(loaded, datamodule=data, verbose=False)
    assert tested["test/loss"] < base_loss(tiny_backbone, preparation) - 0.01
    (first, *_) = trainer.predict(loaded, datamodule=data)
    assert first.candidates.shape[1] == 1
    assert first.tokens.sum() > 0


def assert_same_logits(ours, theirs):
    batch = {"input_ids": torch.tensor([[9, 10, 11, 1]]), "labels": torch.tensor([[12, 13, 1]])}
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(**batch).logits, theirs.eval()(**batch).logits, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def base_loss(backbone, preparation):
    """Test loss of the backbone as it is."""
    model = AutoModelForSeq2SeqLM.from_pretrained(backbone).eval()
    data = UserSets(preparation, users="ben", rows_per_user=4)
    data.setup("test")
    nll = tokens = 0
    for batch in data.test_dataloader():
        count = int((batch.labels >= 0).sum())
        output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)
        nll, tokens = nll + output.loss.item() * count, tokens + count
    return nll / tokens


@pytest.mark.parametrize("step", [5, 12, 17])
def test_a_stopped_run_goes_on_bit_for_bit(make, tmp_path, step):
    undisturbed = make("dora")
    undisturbed[0].fit(undisturbed[1], datamodule=undisturbed[2])
    with pytest.raises(Stopped):
        trainer, module, data = make("dora", [StopAt(tmp_path / "last.ckpt", step)], enable_checkpointing=True)
        trainer.fit(module, datamodule=data)
    trainer, module, data = make("dora")
    trainer.fit(module, datamodule=data, ckpt_path=tmp_path / "last.ckpt")
    assert trainer.global_step == 24
    theirs = undisturbed[1].state_dict()
    assert not [name for name, tensor in module.state_dict().items() if not torch.equal(tensor, theirs[name])]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "dora", "users": ["ada", "ben"]}, "UserTuning takes one user per fit, got 2; choose one with"),
        ({"method": {**METHODS["dora"], "target_modules": ["q", "wi_0"]}}, r"target_modules \['wi_0'\] match nothing"),
        ({"method": {**METHODS["dora"], "r": 0}}, "`r` should be a positive integer"),
    ],
)
def test_what_cannot_be_is_refused(make, given, message):
    trainer, module, data = make(**given)
    with pytest.raises(ValueError, match=message):
        trainer.fit(module, datamodule=data)


def test_without_tuned_weights_it_says_how_to_get_them(make):
    trainer, module, data = make("dora")
    with pytest.raises(FileNotFoundError, match="no tuned weights of 'ben' in .*; make them with: lightning fit"):
        trainer.test(module, datamodule=data)


def test_weights_tuned_from_another_backbone_are_refused(make, tmp_path):
    trainer, module, data = make("full", max_epochs=1)
    trainer.fit(module, datamodule=data)
    path = tmp_path / "run" / "model" / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "backbone": "f00"}))
    trainer, module, data = make("full")
    with pytest.raises(ValueError, match="was tuned from backbone f00, but model.init_from is backbone"):
        trainer.test(module, datamodule=data)


def test_the_best_epoch_is_kept(make, tmp_path):
    trainer, module, data = make("full", [Worse(module_epoch=1)], max_epochs=3)
    trainer.fit(module, datamodule=data)
    assert json.loads((tmp_path / "run" / "model" / "card.json").read_text())["step"] == 12


class Worse(Callback):
    """Spoils the weights from this epoch on."""

    def __init__(self, module_epoch):
        self.epoch = module_epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch >= self.epoch:
            for parameter in pl_module.parameters():
                parameter.data.mul_(3)
