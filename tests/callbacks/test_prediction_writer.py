"""The prediction file, written out by hand."""

import json
from types import SimpleNamespace

import pytest
import torch

from callbacks import PredictionWriter
from datamodules.batches import Seq2SeqBatch
from datamodules.prompts.rendering import Prompts
from datamodules.prompts.template import PromptTemplate
from evaluation.results.cards import card_facts, read_card
from evaluation.results.predictions import read_predictions
from lightning_modules.backbones.generation import Decoding
from lightning_modules.reply_module import Predictions

# 0 <pad>, 1 </s>, 3 speaker, 4 partner, 5 the speaker's profile; 7 hi, 8 tea, 9 coffee, 10 yes, 11 no, 15 age, 19 old
BATCH = Seq2SeqBatch(
    input_ids=torch.tensor([[5, 15, 19, 4, 7, 8, 3, 10, 1], [4, 9, 1, 0, 0, 0, 0, 0, 0], [4, 9, 1, 0, 0, 0, 0, 0, 0]]),
    attention_mask=torch.tensor([[1] * 9, [1] * 3 + [0] * 6, [1] + [0] * 8]),
    labels=torch.tensor([[8, 10, 1, -100], [11, 1, -100, -100], [-100] * 4]),
    user_index=torch.tensor([1, 0, 0]),
    pair_id=torch.tensor([7000000000000000001, 5, -1]),
)
OUTPUTS = Predictions(
    candidates=torch.tensor([[[0, 8, 1, 0], [0, 10, 10, 1]], [[0, 1, 0, 0], [0, 11, 1, 0]], [[0, 1, 0, 0]] * 2]),
    nll=torch.tensor([2.5, 0.75, 0.0]),
    tokens=torch.tensor([3, 2, 0]),
)
FIELDS = ("user", "pair_id", "context", "reference", "candidates", "nll", "tokens")
ROWS = [
    ("ben", "7000000000000000001", [["partner", "hi tea"], ["speaker", "yes"]], "tea yes", ["tea", "yes yes"], 2.5, 3),
    ("あん", "5", [["partner", "coffee"]], "no", ["", "no"], 0.75, 2),
]


@pytest.fixture
def trainer(tmp_path, word_tokenizer):
    """As much of a trainer as the callback looks at."""
    data = SimpleNamespace(
        retrieved=None,
        users=["あん", "ben"],
        prompts=Prompts(PromptTemplate(), word_tokenizer),
        splits={"test": SimpleNamespace(reader=SimpleNamespace(content="5b117"))},
    )
    return SimpleNamespace(default_root_dir=str(tmp_path / "run"), datamodule=data, fast_dev_run=False)


@pytest.fixture
def module():
    return SimpleNamespace(backbone_fingerprint="bb", decoding=Decoding(num_candidates=2))


def begun(trainer, module, outputs=OUTPUTS):
    """A writer that has written a batch."""
    writer = PredictionWriter()
    writer.on_predict_start(trainer, module)
    writer.on_predict_batch_end(trainer, module, outputs, BATCH, 0)
    return writer


def test_the_file_is_what_it_should_be(trainer, module, tmp_path):
    writer = begun(trainer, module)
    assert not (tmp_path / "run" / "predictions.jsonl").exists()
    writer.on_predict_end(trainer, module)
    text = (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == [dict(zip(FIELDS, row, strict=True)) for row in ROWS]
    assert "あん" in text
    first, second = read_predictions(tmp_path / "run" / "predictions.jsonl")
    assert (first.user, first.context[0], second.candidates) == ("ben", ("partner", "hi tea"), ("", "no"))
    card = read_card(tmp_path / "run" / "predictions.jsonl")
    assert (card["backbone"], card["decoding"]["num_candidates"]) == ("bb", 2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["predictions.card.json", "predictions.jsonl"]
    (tmp_path / "run" / "predictions.jsonl").write_text(text[: text.index("\n") + 1])  # cut at a line end
    with pytest.raises(ValueError, match=r"predictions.jsonl is not the file that .*card.json describes.*predict"):
        read_card(tmp_path / "run" / "predictions.jsonl")


def test_what_was_interrupted_does_not_replace_what_is_there(trainer, module, tmp_path):
    (tmp_path / "run").mkdir()
    earlier = {"predictions.jsonl": "earlier\n", "predictions.card.json": "{}"}
    for name, text in earlier.items():
        (tmp_path / "run" / name).write_text(text)
    writer = begun(trainer, module)
    assert {name: (tmp_path / "run" / name).read_text() for name in earlier} == earlier
    trainer.fast_dev_run = 1
    writer.on_predict_end(trainer, module)
    assert {path.name: path.read_text() for path in (tmp_path / "run").iterdir()} == earlier


def test_texts_without_likelihoods(trainer, tmp_path):
    module = SimpleNamespace(decoding=Decoding(), card={"model": "m at 127.0.0.1", "prompt": "8 retrieved"})
    outputs = Predictions([["お茶", ""], ["no"], []], None, None)
    begun(trainer, module, outputs).on_predict_end(trainer, module)
    first, second = read_predictions(tmp_path / "run" / "predictions.jsonl")
    assert (first.candidates, second.candidates) == (("お茶", ""), ("no",))
    assert [(one.reference, one.nll, one.tokens) for one in (first, second)] == [
        ("tea yes", None, None),
        ("no", None, None),
    ]
    card = read_card(tmp_path / "run" / "predictions.jsonl")
    assert card["backbone"] is None
    assert card_facts(card)[1:3] == ["model m at 127.0.0.1", "prompt 8 retrieved"]
