"""What a test leaves of each kind of module, against sums made here through the exported weights alone."""

import csv
import json

import pytest
import torch
from fitting import ROUNDS, summed
from lightning import Trainer
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM

from callbacks import AdapterCheckpoint, TunedExport
from datamodules import UserSets
from lightning_modules import ProfileSeq2Seq, UserLora, UserTuning

USERS = ("ada", "ben", "cleo", "dan")
LOOKED_AT = {"test_train_turns": 7, "test_general_pairs": 10}


def sums(model, batches):
    """Nats and label tokens through the model's own forward."""
    nll, tokens = summed(model, batches)
    return pytest.approx(nll, rel=1e-4), tokens


def read(path):
    return list(csv.DictReader(path.open()))


def found(row, kind):
    return float(row[f"{kind}_nll"]), int(row[f"{kind}_tokens"])


@pytest.fixture
def turns_of(preparation):
    """The batches of one user alone that a test looks at: own, train, general."""

    def turns(user):
        data = UserSets(preparation, users=user, rows_per_user=4, **LOOKED_AT)
        data.setup("test")
        return [list(loader) for loader in data.test_dataloader()]

    return turns


def test_adapters_on_training_turns_general_pairs_and_each_other(preparation, tiny_backbone, turns_of, tmp_path):
    def make():
        data = UserSets(preparation, rows_per_user=4, users_per_batch=3, **LOOKED_AT)
        return UserLora(tiny_backbone, rank=2, learning_rate=0.05, max_epochs=1, num_swaps=None), data

    for step in ("fit", "test"):
        trainer = Trainer(default_root_dir=tmp_path, callbacks=[AdapterCheckpoint()], **ROUNDS)
        getattr(trainer, step)(*make())
    rows, swaps = read(tmp_path / "test_users.csv"), read(tmp_path / "swaps.csv")
    assert [row["user"] for row in rows] == list(USERS)
    assert [(row["user"], row["adapter"]) for row in swaps] == [(a, b) for a in USERS for b in USERS]
    of_pair = {(row["user"], row["adapter"]): (float(row["nll"]), int(row["tokens"])) for row in swaps}
    for row in rows:
        user = row["user"]
        own, train, general = turns_of(user)
        assert sum(int((batch.pair_id >= 0).sum()) for batch in train) == 7
        for other in USERS:
            model = PeftModel.from_pretrained(
                AutoModelForSeq2SeqLM.from_pretrained(tiny_backbone), str(tmp_path / "adapters" / other)
            ).eval()
            assert of_pair[user, other] == sums(model, own)
            if other == user:
                assert found(row, "own") == of_pair[user, user]
                assert found(row, "train") == sums(model, train)
                assert found(row, "general") == sums(model, general)
        others = [of_pair[user, other] for other in USERS if other != user]
        assert found(row, "other") == (pytest.approx(sum(nll for nll, _ in others)), sum(n for _, n in others))
    card = json.loads((tmp_path / "test_users.card.json").read_text())
    assert (card["system"], card["train_turns"], card["general_pairs"]) == ("UserLora", 7, 10)
    trainer = Trainer(default_root_dir=tmp_path, **ROUNDS)
    trainer.test(UserLora(tiny_backbone, rank=2, num_swaps=1), UserSets(preparation), verbose=False)
    assert not (tmp_path / "swaps.csv").exists()  # of a test that does not make it, none is left
    assert "general_nll" not in read(tmp_path / "test_users.csv")[0]


def test_all_weights_of_a_user_are_tested_on_the_same_general_pairs(preparation, tiny_backbone, turns_of, tmp_path):
    for step in ("fit", "test"):
        module = UserTuning(
            tiny_backbone, optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01), max_epochs=1
        )
        data = UserSets(preparation, users=["ada", "ben"], rows_per_user=4, users_per_batch=1, **LOOKED_AT)
        getattr(Trainer(default_root_dir=tmp_path, callbacks=[TunedExport()], **ROUNDS), step)(module, data)
    rows = read(tmp_path / "test_users.csv")
    assert [row["user"] for row in rows] == ["ada", "ben"]
    for row in rows:
        model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "models" / row["user"]).eval()
        expected = [sums(model, batches) for batches in turns_of(row["user"])]
        assert [found(row, kind) for kind in ("own", "train", "general")] == expected
    assert found(rows[0], "general")[0] != pytest.approx(found(rows[1], "general")[0], rel=1e-3)


def test_one_model_has_one_figure_of_general_pairs(preparation, tiny_backbone, turns_of, tmp_path):
    data = UserSets(preparation, **LOOKED_AT)
    trainer = Trainer(default_root_dir=tmp_path, **ROUNDS)
    (logged, *_) = trainer.test(ProfileSeq2Seq(init_from=tiny_backbone), data, verbose=False)
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_backbone).eval()
    rows = read(tmp_path / "test_users.csv")
    own = [turns_of(user)[0] for user in USERS]
    assert {found(row, "general") for row in rows} == {found(rows[0], "general")}
    assert found(rows[0], "general") == sums(model, turns_of("ada")[2])
    nll, tokens = sums(model, [batch for batches in own for batch in batches])
    assert sum(found(row, "own")[1] for row in rows) == tokens
    assert sum(found(row, "own")[0] for row in rows) == nll
    assert logged["test/general_perplexity"] > 1
