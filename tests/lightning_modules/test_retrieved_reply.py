"""What somebody replied to the most similar context comes back, never what is held out or somebody else's."""

import json

import pyarrow.parquet as pq
import pytest
from fitting import QUIET
from lightning import Trainer

from callbacks import PredictionWriter
from datamodules import UserSets
from evaluation.results.predictions import read_predictions
from lightning_modules import RetrievedReply
from lightning_modules.retrieved_reply import Retrieval


@pytest.fixture
def predict(preparation, tmp_path):
    def run(num_candidates=1):
        module = RetrievedReply(Retrieval(num_candidates))
        trainer = Trainer(default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
        trainer.predict(module, datamodule=UserSets(preparation))
        return module

    return run


def test_replies_of_test_turns_are_the_users_own_training_replies(predict, preparation, tmp_path):
    module = predict(num_candidates=3)
    predictions = read_predictions(tmp_path / "predictions.jsonl")
    test = pq.read_table(preparation.output / "users/test").to_pylist()
    assert sorted(one.pair_id for one in predictions) == sorted(row["pair_id"] for row in test)
    decode = module.trainer.datamodule.prompts.tokenizer.decode
    train = pq.read_table(preparation.output / "users/train").to_pylist()
    said = {(row["speaker"], decode(row["response_ids"])) for row in train}
    for one in predictions:
        assert len(one.candidates) == 3
        assert {(one.user, text) for text in one.candidates} <= said
        assert (one.nll, one.tokens) == (None, None)
    card = json.loads((tmp_path / "predictions.card.json").read_text())
    assert (card["system"], card["backbone"], card["decoding"]) == ("RetrievedReply", None, {"num_candidates": 3})


def test_a_context_of_training_finds_its_own_reply(predict):
    module = predict()
    pairs = module.trainer.datamodule.training_replies("ben")
    texts = [" ".join(text for _, text in context) for context, _ in pairs]
    unique = [number for number, text in enumerate(texts) if texts.count(text) == 1]
    assert len(unique) > 30
    assert [module.replies("ben", pairs[number][0]) for number in unique] == [[pairs[number][1]] for number in unique]


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="num_candidates must be 1 or more, got 0"):
        Retrieval(num_candidates=0)
