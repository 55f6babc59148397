"""`lightning prepare --preview`: pairs as the model sees them."""

import json

import pytest

from datamodules.corpora import Jsonl
from datamodules.preparation.splits import SplitRule
from datamodules.preparation.tokenizer import load_tokenizer
from datamodules.preview import PrepareAndPreview
from datamodules.prompts import PromptTemplate


@pytest.fixture
def preparation(tmp_path):
    dialogue = {
        "id": "1",
        "turns": [
            {"speaker": "ann", "text": "tea?"},
            {"speaker": "ben", "text": "yes please"},
            {"speaker": "ann", "text": "here"},
        ],
    }
    (tmp_path / "talk.jsonl").write_text(json.dumps(dialogue) + "\n")
    profile = {"user": "ben", "attributes": {"age": "20"}}
    (tmp_path / "profiles.jsonl").write_text(json.dumps(profile) + "\n")
    corpus = Jsonl(tmp_path / "talk.jsonl", tmp_path / "profiles.jsonl")
    rule = SplitRule(num_target_users=0, pretrain_validation_share=0.0)
    return PrepareAndPreview(corpus, tmp_path / "out", rule, vocabulary_size=300)


def test_a_pair_is_shown_as_the_model_sees_it(preparation, capsys):
    preparation.preview, preparation.prompt = 5, PromptTemplate(style="psp")
    preparation.run()
    shown = capsys.readouterr().out.split("pretrain/train, pair ")[1:]
    by_speaker = {pair.splitlines()[0].split(": ")[1]: pair.splitlines()[1:] for pair in shown}
    assert by_speaker.keys() == {"ben answers ann", "ann answers ben"}
    of_ben = [line.split(maxsplit=1) for line in by_speaker["ben answers ann"]]
    assert of_ben[0] == ["input", "<|speaker profile|> age: 20<|partner|> tea?</s>"]
    assert of_ben[1] == ["response", "yes please</s>"]
    ids = json.loads(by_speaker["ben answers ann"][3].split("ids")[1])
    assert load_tokenizer(preparation.output / "tokenizer").decode(ids) == "yes please"
    assert by_speaker["ann answers ben"][0].strip() == "input     <|partner|> yes please</s>".replace(
        "<|partner|> yes", "<|speaker|> tea?<|partner|> yes"
    )


def test_nothing_is_shown_unless_asked_for(preparation, capsys):
    preparation.run()
    assert "answers" not in capsys.readouterr().out


def test_it_does_not_change_the_settings(preparation):
    before = preparation.settings()
    preparation.preview, preparation.max_context_tokens = 3, 9
    assert preparation.settings() == before


def test_profiles_that_nobody_has(preparation):
    preparation.preview, preparation.prompt = 1, PromptTemplate(style="psp", attributes=("height",))
    with pytest.raises(ValueError, match="nobody has"):
        preparation.run()
