"""The result equals training each user alone: against plain PEFT, torch's AdamW and a loop written out here.

Training is in 32 bits without dropout. Sums are added up in another order in a batch of several users, so weights
agree to float tolerance; where the same process is only stopped and continued, they agree bit for bit.
"""

import copy
import csv
import math
import shutil

import pytest
import torch
from fitting import QUIET, ROUNDS, StopAt, Stopped, loss_of, summed
from lightning import Trainer
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from artefacts.layout import user_directory
from artefacts.run_card import read_run_card
from callbacks import AdapterCheckpoint, RunCard
from datamodules import UserSets
from datamodules.prompts.template import PromptTemplate
from lightning_modules import UserLora
from lightning_modules.backbones.generation import Decoding
from lightning_modules.lora.adapter_files import read_card
from lightning_modules.lora.user_rounds import seed_of

SETTINGS = {
    "rank": 3,
    "alpha": 6,
    "target_modules": ["v", "o", "wi", "wo"],
    "learning_rate": 0.01,
    "warmup_share": 0.1,
    "weight_decay": 0.3,
    "max_grad_norm": 0.3,
    "max_epochs": 3,
    "patience": 1,
    "seed": 3,
}
USERS = ("ada", "ben", "cleo", "dan")
SPOIL = 5.0


@pytest.fixture
def run(preparation, tiny_backbone, tmp_path, once):
    """Trains in `tmp_path/<name>` and returns the module and its adapters' weights."""

    def fit(name, users=None, callbacks=(), ckpt_path=None, data=None, trainer=None, **changes):
        module = UserLora(init_from=tiny_backbone, **{**SETTINGS, **changes})
        fitting = Trainer(
            default_root_dir=tmp_path / name,
            callbacks=[AdapterCheckpoint(), *callbacks],
            **{**ROUNDS, **(trainer or {})},
        )
        fitting.fit(
            module,
            datamodule=UserSets(preparation, users=users, **{"rows_per_user": 4, "users_per_batch": 3, **(data or {})}),
            ckpt_path=ckpt_path,
        )
        return module, weights_in(tmp_path / name)

    def fit_once(**settings):
        """The weights of a run that nothing disturbs, trained only by the first test that asks for them."""
        if str(settings) not in once:
            once[str(settings)] = fit("once", **settings)[1]
        return once[str(settings)]

    fit.once = fit_once
    return fit


@pytest.fixture(scope="module")
def once():
    """Settings and the weights that they gave."""
    return {}


def weights_in(run_directory):
    """Each user's weights in one row, from the files."""
    found = {}
    for user in USERS:
        path = user_directory(run_directory / "adapters", user) / "adapter_model.safetensors"
        if path.is_file():
            state = load_file(path)
            found[user] = torch.cat([state[key].flatten() for key in sorted(state)])
    return found


def assert_close(ours, theirs):
    """Equal to float tolerance: AdamW magnifies the last digits of a gradient that is almost zero, so a single number
    may differ by more; as a whole the difference is below a thousandth of the weights."""
    for user in theirs:
        assert (ours[user] - theirs[user]).norm() < 1e-3 * theirs[user].norm(), user


def train_alone(data, backbone, first_weights, user, settings, worse_from):
    """One user through PEFT, `torch.optim.AdamW` and `clip_grad_norm_`: weights, epochs, best epoch, best loss."""
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        target_modules=settings["target_modules"],
        use_rslora=settings["use_rslora"],
        task_type="SEQ_2_SEQ_LM",
    )
    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(backbone), config).double()
    set_peft_model_state_dict(model, first_weights)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings["weight_decay"])
    num_steps = settings["max_epochs"] * math.ceil(data.splits["train"].num_turns[user] / data.rows_per_user)
    warmup = settings["warmup_share"] * num_steps
    first = [(batch.labels != -100).sum().item() for batch in data.train_dataloader()]
    mean_tokens = sum(first) / len(first)
    step, best, best_epoch, best_loss = 0, None, 0, math.inf
    for epoch in range(settings["max_epochs"]):
        data.next_round({user: epoch})
        model.train()
        for batch in data.train_dataloader():
            count = (batch.labels != -100).sum()
            (loss_of(model, batch) * count / mean_tokens).backward()  # Hugging Face's loss is the batch's mean
            torch.nn.utils.clip_grad_norm_(parameters, settings["max_grad_norm"])
            rate = (step + 1) / (warmup + 1) if step < warmup else (num_steps - step) / (num_steps - warmup)
            if settings["schedule"] == "constant" and step >= warmup:
                rate = 1.0
            optimizer.param_groups[0]["lr"] = settings["learning_rate"] * rate
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        model.eval()
        nll, tokens = summed(model, data.val_dataloader())
        loss = nll / tokens + SPOIL * (epoch >= worse_from.get(user, math.inf))
        if loss >= best_loss:
            break  # patience 1
        best, best_epoch, best_loss = copy.deepcopy(get_peft_model_state_dict(model)), epoch + 1, loss
    return torch.cat([best[key].flatten() for key in sorted(best)]), epoch + 1, best_epoch, best_loss


def spoilt(row_nll, worse_from):
    """As `row_nll`, and `SPOIL` nats per token more for these users from this epoch of theirs on."""

    def spoilt_row_nll(module, batch):
        nll, tokens = row_nll(module, batch)
        epochs = {progress.user: progress.epoch for progress in module.rounds.active.values()}
        users = [USERS[index] for index in batch.user_index.tolist()]
        worse = torch.tensor([epochs[user] >= worse_from.get(user, math.inf) for user in users])
        return nll + SPOIL * worse * tokens, tokens

    return spoilt_row_nll


@pytest.mark.parametrize(
    ("changes", "rows_per_user", "stops_early"),
    [
        ({}, 4, False),
        ({"schedule": "constant", "use_rslora": True}, 4, False),
        ({"max_epochs": 4}, 12, True),
    ],
    ids=["linear", "constant", "early stopping"],
)
def test_each_user_gets_the_weights_of_training_alone(
    run, preparation, tiny_backbone, tmp_path, monkeypatch, changes, rows_per_user, stops_early
):
    worse_from = {"ada": 1, "cleo": 2} if stops_early else {}  # epochs from which on validation is made to look bad
    monkeypatch.setattr(UserLora, "row_nll", spoilt(UserLora.row_nll, worse_from))
    settings = {**SETTINGS, "schedule": "linear", "use_rslora": False, **changes}
    in_double = {"precision": "64-true"}  # where rounding cannot hide a difference, nor make one
    module, ours = run("together", data={"rows_per_user": rows_per_user}, trainer=in_double, **changes)
    epochs = set()
    for user in USERS:
        first = module.lora.to_peft(module.lora.initial_row(seed_of(SETTINGS["seed"], user)))
        data = UserSets(preparation, users=user, rows_per_user=rows_per_user)
        data.setup("fit")
        expected, num_epochs, best_epoch, loss = train_alone(data, tiny_backbone, first, user, settings, worse_from)
        card = read_card(tmp_path / "together" / "adapters", user)
        assert (card["user"], card["epochs"], card["best_epoch"]) == (user, num_epochs, best_epoch)
        assert card["validation_loss"] == pytest.approx(loss, rel=1e-6)
        torch.testing.assert_close(ours[user], expected, rtol=1e-9, atol=1e-9)
        epochs.add(num_epochs)
    assert (min(epochs) < settings["max_epochs"]) == stops_early, epochs


@pytest.mark.parametrize(
    "changes",
    [
        {"users": ["ben", "dan"]},
        {"users": "cleo"},
        {"data": {"users_per_batch": 1}},
        {"data": {"users_per_batch": 4}},
        {"max_users_at_once": 1},
        {"max_users_at_once": 2},
        {"max_users_at_once": 3, "data": {"users_per_batch": 2}},
    ],
    ids=str,
)
def test_company_and_turn_change_nothing(run, changes):
    module, ours = run("other company", **changes)
    assert len(module.lora.rows) == min(changes.get("max_users_at_once", 4), len(ours))
    wanted = changes.get("users", USERS)
    assert set(ours) == set([wanted] if isinstance(wanted, str) else wanted)
    undisturbed = run.once()
    assert_close(ours, {user: undisturbed[user] for user in ours})


def test_what_depends_on_the_seed(run):
    module, _ = run("seeded", max_epochs=1)
    assert seed_of(0, "ada") != seed_of(1, "ada") != seed_of(1, "ben")
    assert not torch.allclose(run("reseeded", seed=4)[1]["ada"], run.once()["ada"], atol=1e-3)


def test_the_base_never_changes_and_every_adapter_tensor_does(run, tiny_backbone, tmp_path):
    module, _ = run("run")
    now = module.model.state_dict()
    before = AutoModelForSeq2SeqLM.from_pretrained(tiny_backbone).state_dict()
    for name, tensor in before.items():
        head, _, last = name.rpartition(".")
        assert torch.equal(now[name if name in now else f"{head}.base.{last}"], tensor), name
    for user in USERS:
        first = module.lora.to_peft(module.lora.initial_row(seed_of(3, user)))
        last = load_file(tmp_path / "run" / "adapters" / user / "adapter_model.safetensors")
        assert first.keys() == last.keys()
        assert not [name for name in first if torch.equal(first[name], last[name])]


def test_finished_users_are_skipped(run, tmp_path, capsys):
    run("run")
    marker = tmp_path / "run" / "adapters" / "ben" / "marker"
    marker.touch()
    shutil.rmtree(tmp_path / "run" / "adapters" / "dan")
    module, ours = run("run")
    assert "3 of 4 users are trained already" in capsys.readouterr().out
    assert len(module.lora.rows) == 1
    assert marker.is_file()
    assert_close(ours, run.once())
    run("run")
    assert "4 of 4 users are trained already" in capsys.readouterr().out


@pytest.mark.parametrize("step", [5, 12, 13, 24, 36, 37, 70])
def test_a_stopped_run_goes_on_bit_for_bit(run, tmp_path, step):
    """Mid-round, behind the last batch of a round (every 12 steps) before its validation, and in others' slots."""
    settings = {"max_users_at_once": 2, "data": {"users_per_batch": 1, "rows_per_user": 8}}
    undisturbed = run.once(**settings)
    checkpoint = tmp_path / "last.ckpt"
    with pytest.raises(Stopped):
        run("stopped", callbacks=[StopAt(checkpoint, step)], **settings)
    module, ours = run("stopped", ckpt_path=checkpoint, **settings)
    assert module.trainer.global_step == 72  # two pairs of users, three epochs each, six batches each
    assert set(ours) == set(USERS)
    assert not [user for user in USERS if not torch.equal(ours[user], undisturbed[user])]


def test_users_who_finished_behind_the_checkpoint_come_out_the_same(run, tmp_path):
    settings = {"max_users_at_once": 2, "max_epochs": 2}
    undisturbed = run("whole", **settings)[1]
    checkpoint = tmp_path / "last.ckpt"
    with pytest.raises(Stopped):
        run("stopped", callbacks=[StopAt(checkpoint, 5, stop_at=40)], **settings)
    assert 0 < len(weights_in(tmp_path / "stopped")) < 4
    ours = run("stopped", ckpt_path=checkpoint, **settings)[1]
    assert not [user for user in USERS if not torch.equal(ours[user], undisturbed[user])]


def test_a_checkpoint_holds_the_adapters_and_never_the_backbone_which_must_be_the_same(run, tmp_path):
    path = tmp_path / "last.ckpt"
    with pytest.raises(Stopped):
        run("stopped", callbacks=[StopAt(path, 3)])
    checkpoint = torch.load(path, weights_only=False)
    assert set(checkpoint["state_dict"]) == {"best_rows", "lora.rows"}
    checkpoint["roster"]["backbone"] = "f00"
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="the checkpoint was made on backbone f00, init_from is"):
        run("stopped", ckpt_path=path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank must be 1 or more, got 0"),
        ({"target_modules": ["q", "wi_0"]}, r"target_modules \['wi_0'\] match nothing"),
        ({"users": ["ada", "eve"]}, r"unknown users \['eve'\]"),
        ({"data": {"min_train_turns": 100}}, "too few training turns"),
        ({"trainer": {"max_epochs": 3}}, "UserLora ends when every user is done: set trainer.max_epochs=-1"),
        ({"trainer": {"reload_dataloaders_every_n_epochs": 0}}, "set trainer.reload_dataloaders_every_n_epochs=1"),
        ({"data": {"prompt": PromptTemplate("psp")}}, "another prompt: style was 'none', now 'psp'; set data.prompt"),
    ],
)
def test_what_cannot_be_is_refused(run, changes, message):
    with pytest.raises(ValueError, match=message):
        run("refused", **changes)


@pytest.fixture
def trained(run, preparation, tiny_backbone, tmp_path):
    """Trained adapters, and a trainer, module and data to use them."""
    run("run")
    module = UserLora(init_from=tiny_backbone, **SETTINGS, num_swaps=2)
    trainer = Trainer(default_root_dir=tmp_path / "run", enable_checkpointing=False, **QUIET)
    return trainer, module, UserSets(preparation, rows_per_user=4, users_per_batch=3)


def turns_of(preparation, user):
    """The batches of one user alone."""
    data = UserSets(preparation, users=user, rows_per_user=4)
    data.setup("test")
    return list(data.test_dataloader())


def nll_in_peft(backbone, adapter, batches):
    """Summed NLL and tokens of batches of one user, through PEFT alone; without an adapter where None is given."""
    model = AutoModelForSeq2SeqLM.from_pretrained(backbone)
    return summed((PeftModel.from_pretrained(model, str(adapter)) if adapter else model).eval(), batches)


def test_test_compares_base_own_and_other_adapters(trained, preparation, tiny_backbone, tmp_path):
    trainer, module, data = trained
    (logged,) = trainer.test(module, datamodule=data, verbose=False)
    rows = {row["user"]: row for row in csv.DictReader((tmp_path / "run" / "test_users.csv").open())}
    adapters = tmp_path / "run" / "adapters"
    # Two swaps among four users: those 1 and 1 + 1 * 3 // 2 = 2 places further on.
    others = {user: [USERS[(place + shift) % 4] for shift in (1, 2)] for place, user in enumerate(USERS)}
    total = dict.fromkeys(("base", "own", "other"), (0.0, 0))
    for user in USERS:
        batches = turns_of(preparation, user)
        expected = {
            "base": nll_in_peft(tiny_backbone, None, batches),
            "own": nll_in_peft(tiny_backbone, adapters / user, batches),
        }
        swapped = [nll_in_peft(tiny_backbone, adapters / other, batches) for other in others[user]]
        expected["other"] = tuple(map(sum, zip(*swapped, strict=True)))
        for kind, (nll, tokens) in expected.items():
            assert float(rows[user][f"{kind}_nll"]) == pytest.approx(nll, rel=1e-4)
            assert int(rows[user][f"{kind}_tokens"]) == tokens
            total[kind] = (total[kind][0] + nll, total[kind][1] + tokens)
    for kind, (nll, tokens) in total.items():
        assert logged[f"test/{kind}_perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    better = sum(float(row["own_nll"]) < float(row["base_nll"]) for row in rows.values())
    assert logged["test/users_better_than_base"] == better


def test_validate_uses_the_finished_adapters(trained, preparation, tiny_backbone, tmp_path):
    trainer, module, data = trained
    (logged,) = trainer.validate(module, datamodule=data, verbose=False)
    losses = [read_card(tmp_path / "run" / "adapters", user)["validation_loss"] for user in USERS]
    assert logged["val/macro_perplexity"] == pytest.approx(sum(map(math.exp, losses)) / 4, rel=1e-4)


def test_in_full_batches_everybody_is_answered_the_same(trained, tmp_path, preparation):
    """A batch has a user's rows several times, and in turn with others'."""
    trainer, module, data = trained
    module.decoding = Decoding(sample=False, max_new_tokens=6)
    found, repeated = {}, False
    for given in (data, UserSets(preparation, rows_per_user=4, users_per_batch=3, predict_rows=40)):
        replies = found.setdefault(given.predict_rows, {})
        predictions = trainer.predict(module, datamodule=given)
        for batch, output in zip(given.predict_dataloader(), predictions, strict=True):
            users = batch.user_index.view(-1, 4)[:, 0].tolist()
            repeated = repeated or len(set(users)) < len(users)
            for row, pair in enumerate(batch.pair_id.tolist()):
                ids = [one for one in output.candidates[row, 0].tolist() if one]
                if pair >= 0:
                    replies[pair] = ids, pytest.approx(float(output.nll[row]), rel=1e-4)
    assert repeated
    assert found[None] == found[40]
    assert len({tuple(ids) for ids, _ in found[40].values()}) > 4


def test_predictions_cost_what_they_cost_in_peft(trained, preparation, tiny_backbone, tmp_path):
    trainer, module, data = trained
    found = dict.fromkeys(USERS, 0.0)
    predictions = trainer.predict(module, datamodule=data)
    for batch, output in zip(data.predict_dataloader(), predictions, strict=True):
        assert output.candidates.shape[:2] == (len(batch.pair_id), 1)
        for row, pair in enumerate(batch.pair_id.tolist()):
            assert (pair < 0) == (int(output.tokens[row]) == 0)
            found[USERS[int(batch.user_index[row])]] += float(output.nll[row])
    for user in USERS:
        nll, _ = nll_in_peft(tiny_backbone, tmp_path / "run" / "adapters" / user, turns_of(preparation, user))
        assert found[user] == pytest.approx(nll, rel=1e-4)


def test_somebody_without_validation_turns_is_trained_to_the_end(run, tmp_path, monkeypatch):
    loader = UserSets.val_dataloader

    def without_ada(self):
        with monkeypatch.context() as patch:
            patch.setattr(self, "_epochs", {user: epoch for user, epoch in self._epochs.items() if user != "ada"})
            return loader(self)

    monkeypatch.setattr(UserSets, "val_dataloader", without_ada)
    run("run", max_epochs=2, users=["ada", "ben"])
    card = read_card(tmp_path / "run" / "adapters", "ada")
    assert (card["epochs"], card["best_epoch"], card["validation_loss"]) == (2, 2, None)


def test_a_user_whose_training_diverges_fails_alone_and_is_tried_again(run, tmp_path, monkeypatch, capsys):
    row_nll = UserLora.row_nll

    def without_ben(module, batch):
        nll, tokens = row_nll(module, batch)
        return torch.where(batch.user_index == USERS.index("ben"), torch.nan, nll), tokens

    with monkeypatch.context() as patch:
        patch.setattr(UserLora, "row_nll", without_ben)
        card = RunCard({})
        with pytest.raises(ValueError, match="1 users have no weights, .*: 'ben': the validation loss is nan"):
            run("run", callbacks=[card])
    card = read_run_card(tmp_path / "run", "fit")
    assert (card["status"], list(card["failed_users"])) == ("failed", ["ben"])
    assert sorted(weights_in(tmp_path / "run")) == ["ada", "cleo", "dan"]
    assert_close(weights_in(tmp_path / "run"), {user: run.once()[user] for user in ("ada", "cleo", "dan")})
    _, ours = run("run")
    assert "3 of 4 users are trained already" in capsys.readouterr().out
    assert_close(ours, run.once())


def test_an_adapter_that_is_not_finite_is_not_saved(run, tmp_path, monkeypatch):
    """Also where no validation has shown it."""
    monkeypatch.setattr(UserLora, "validation_step", lambda *_: None)
    begin = UserLora.begin

    def spoilt_begin(module, slot, user):
        begin(module, slot, user)
        module.lora.rows.data[slot, 0] = torch.nan if user == "ada" else 0.0

    monkeypatch.setattr(UserLora, "begin", spoilt_begin)
    with pytest.raises(ValueError, match="'ada': the adapter has numbers that are not finite after epoch 1"):
        run("run", max_epochs=1)
    assert sorted(weights_in(tmp_path / "run")) == ["ben", "cleo", "dan"]


def test_the_dropout_of_the_backbone_is_off(run, monkeypatch):
    """A mask would depend on who shares the batch, and the result with it."""
    modes = []
    step = UserLora.training_step
    monkeypatch.setattr(
        UserLora, "training_step", lambda self, *rest: (modes.append(self.model.training), step(self, *rest))[1]
    )
    run("run", max_epochs=2, users="ada")
    assert set(modes) == {False}
