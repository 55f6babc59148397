"""Every method tunes a user, is saved, and gives the same again; many users in one fit are tuned as each alone."""

import json
import shutil

import pytest
import torch
from fitting import ROUNDS, StopAt, Stopped, summed
from lightning import Callback, Trainer
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from callbacks import TunedExport
from datamodules import UserSets
from lightning_modules import UserTuning
from lightning_modules.backbones.generation import Decoding
from lightning_modules.schedules import WarmupLinear

SEQ2SEQ = {"task_type": "SEQ_2_SEQ_LM"}
METHODS = {
    "dora": {"peft_type": "LORA", "r": 4, "use_dora": True, "target_modules": ["q", "v"], **SEQ2SEQ},
    "ia3": {"peft_type": "IA3", "target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"], **SEQ2SEQ},
    "prefix": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, **SEQ2SEQ},
    "full": None,
}


@pytest.fixture
def make(preparation, tiny_backbone, tmp_path):
    """Builds trainer, module and data of a run."""

    def build(method, callbacks=(), users="ben", run="run", max_epochs=2, patience=2, **trainer):
        module = UserTuning(
            init_from=tiny_backbone,
            method=METHODS[method] if isinstance(method, str) else method,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
            lr_scheduler=WarmupLinear,
            max_epochs=max_epochs,
            patience=patience,
            decoding=Decoding(sample=False, max_new_tokens=6),
        )
        settings = {**ROUNDS, **trainer}
        fitting = Trainer(default_root_dir=tmp_path / run, callbacks=[TunedExport(), *callbacks], **settings)
        return fitting, module, UserSets(preparation, users=users, rows_per_user=4, users_per_batch=1)

    return build


@pytest.fixture
def fit(make):
    """Tunes with these settings; gives trainer and module back."""

    def run(*arguments, ckpt_path=None, **settings):
        trainer, module, data = make(*arguments, **settings)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
        return trainer, module

    return run


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_is_saved_and_gives_the_same_again(make, fit, preparation, tiny_backbone, tmp_path, method):
    trainer, module = fit(method)
    assert trainer.global_step == 24  # two epochs of 48 turns, four at a time
    trained = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    before = AutoModelForSeq2SeqLM.from_pretrained(tiny_backbone).state_dict()
    kept = [any(torch.equal(tensor, now) for now in trained.values()) for tensor in before.values()]
    assert not any(kept) if method == "full" else all(kept)  # all weights are tuned, or none of the backbone's
    directory = tmp_path / "run" / ("models" if method == "full" else "adapters") / "ben"
    card = json.loads((directory / "card.json").read_text())
    assert (card["user"], card["settings"]["method"]) == ("ben", METHODS[method])
    assert sorted(path.name for path in directory.parent.iterdir()) == [directory.name]

    trainer, loaded, data = make(method)
    (logged,) = trainer.validate(loaded, datamodule=data, verbose=False)
    assert logged["val/loss"] == pytest.approx(card["validation_loss"], rel=1e-5)
    if card["best_epoch"] == 2:
        batch = {"input_ids": torch.tensor([[9, 10, 11, 1]]), "labels": torch.tensor([[12, 13, 1]])}
        ours, theirs = (one.model.eval()(**batch).logits for one in (module, loaded))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    (tested,) = trainer.test(loaded, datamodule=data, verbose=False)
    assert tested["test/loss"] < base_loss(tiny_backbone, preparation) - 0.01
    (first, *_) = trainer.predict(loaded, datamodule=data)
    assert first.candidates.shape[1] == 1
    assert first.tokens.sum() > 0


def base_loss(backbone, preparation):
    """Test loss of the backbone as it is."""
    model = AutoModelForSeq2SeqLM.from_pretrained(backbone).eval()
    data = UserSets(preparation, users="ben", rows_per_user=4)
    data.setup("test")
    nll, tokens = summed(model, data.test_dataloader())
    return nll / tokens


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": {**METHODS["dora"], "target_modules": ["q", "wi_0"]}}, r"target_modules \['wi_0'\] match nothing"),
        ({"method": {**METHODS["dora"], "r": 0}}, "`r` should be a positive integer"),
        ({"data": {"users_per_batch": 2}}, "batches have up to 2: set data.users_per_batch=1, or use UserLora"),
    ],
)
def test_what_cannot_be_is_refused(make, given, message):
    trainer, module, data = make(given.get("method", "dora"), users=["ada", "ben"])
    vars(data).update(given.get("data", {}))
    with pytest.raises(ValueError, match=message):
        trainer.fit(module, datamodule=data)


def test_without_tuned_weights_it_says_how_to_get_them(make):
    trainer, module, data = make("dora")
    with pytest.raises(FileNotFoundError, match="no weights of user 'ben' in .*; train them with: lightning fit"):
        trainer.test(module, datamodule=data)


def test_the_best_epoch_is_kept(fit, tmp_path):
    trainer, _ = fit("full", [Worse(from_epoch=1)], max_epochs=5)
    assert json.loads((tmp_path / "run" / "models" / "ben" / "card.json").read_text())["best_epoch"] == 1
    assert trainer.current_epoch == 3  # and two without a gain were the last ones


class Worse(Callback):
    """Spoils the weights from this epoch on."""

    def __init__(self, from_epoch):
        self.epoch = from_epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch >= self.epoch:
            for parameter in pl_module.parameters():
                parameter.data.mul_(3)


DROPPING = {**METHODS["dora"], "lora_dropout": 0.2}
"""With random numbers both in the first weights and in the steps."""


def weights_in(directory):
    """User → name → tensor."""
    found = directory.glob("*/*/*.safetensors")
    return {path.parent.name: load_file(path) for path in found if path.parent.suffix != ".best"}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for user, tensors in theirs.items():
        assert not [name for name in tensors if not torch.equal(ours[user][name], tensors[name])], user


@pytest.mark.parametrize("method", ["full", DROPPING, "prefix"], ids=["full", "dropout", "prefix"])
def test_many_users_are_tuned_as_each_alone(fit, tmp_path, method):
    for run, users in (("together", ["ada", "ben", "cleo"]), ("ben", "ben"), ("cleo", "cleo")):
        fit(method, users=users, run=run, gradient_clip_val=0.5)
    together = weights_in(tmp_path / "together")
    assert together.keys() == {"ada", "ben", "cleo"}
    assert_same({"ben": together["ben"]}, weights_in(tmp_path / "ben"))
    assert_same({"cleo": together["cleo"]}, weights_in(tmp_path / "cleo"))
    assert not any(torch.equal(tensor, together["ben"][name]) for name, tensor in together["ada"].items())


@pytest.mark.parametrize("method", ["full", "dora"])
def test_everyone_is_tested_with_their_own_weights(make, fit, method):
    users = ["ada", "ben", "cleo"]
    fit(method, users=users)
    trainer, module, data = make(method, users=users)
    by_user = {user: [0.0, 0] for user in users}
    order = []
    for predictions, batch in zip(trainer.predict(module, datamodule=data), data.predict_dataloader(), strict=True):
        (index,) = batch.user_index.unique().tolist()
        order += [users[index]] if order[-1:] != [users[index]] else []
        by_user[users[index]][0] += predictions.nll.sum().item()
        by_user[users[index]][1] += predictions.tokens.sum().item()
    assert order == users  # weights are read once for each
    for user, (nll, tokens) in by_user.items():
        trainer, module, data = make(method, users=user)
        (logged,) = trainer.test(module, datamodule=data, verbose=False)
        assert logged["test/loss"] == pytest.approx(nll / tokens, rel=1e-5)


@pytest.mark.parametrize("step", [24, 29])  # a user has 24, in two epochs
def test_a_run_of_many_that_was_stopped_goes_on_bit_for_bit(fit, tmp_path, step):
    users = ["ada", "ben", "cleo"]
    fit(DROPPING, users=users, run="undisturbed")
    with pytest.raises(Stopped):
        fit(DROPPING, [StopAt(tmp_path / "last.ckpt", step)], users=users, run="stopped")
    assert weights_in(tmp_path / "stopped").keys() < set(users)
    fit(DROPPING, users=users, run="stopped", ckpt_path=tmp_path / "last.ckpt")
    assert_same(weights_in(tmp_path / "stopped"), weights_in(tmp_path / "undisturbed"))


def test_who_is_done_is_not_tuned_again(fit, tmp_path, capsys):
    fit("dora", users=["ada", "ben"])
    before = weights_in(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "adapters" / "ben")
    trainer, _ = fit("dora", users=["ada", "ben"])
    assert trainer.global_step == 24
    assert "1 of 2 users are trained already" in capsys.readouterr().out
    assert_same(weights_in(tmp_path / "run"), before)
    trainer, _ = fit("dora", users=["ada", "ben"])
    assert trainer.global_step == 0
    with pytest.raises(ValueError, match="has weights of 'ada' that were trained with other settings"):
        fit("dora", users=["ada", "ben"], max_epochs=3)


def test_users_without_validation_turns_are_refused(make):
    trainer, module, data = make("dora", users=["ada", "ben"])
    data.setup("fit")
    del data.splits["validation"].num_turns["ben"]
    with pytest.raises(ValueError, match=r"\['ben'\] have no validation turns"):
        trainer.fit(module, datamodule=data)
