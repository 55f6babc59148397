"""`lightning prepare --preview`: pairs written out by hand, as the model will see them."""

import json
import re

import pytest
from tokenizers import Tokenizer

from commands.prepare import PrepareAndPreview, preview
from datamodules.corpora import Drops
from datamodules.preparation import shards
from datamodules.preparation.splits import SplitRule
from datamodules.preparation.tokenizer import save_tokenizer, tokenizer_fingerprint
from datamodules.prompts.loading import load_prompts
from datamodules.prompts.rendering import Prompts
from datamodules.prompts.template import PromptTemplate

MARKS = re.compile(r"<\|(?:speaker|partner)(?: profile)?\|>|</s>")


@pytest.fixture
def by_hand(tmp_path, word_tokenizer):
    """Two pairs, ids as in conftest: of ben to ada (7 hi, 8 tea, 13 please, 14 thanks), and of cleo to ada."""
    directory = tmp_path / "by_hand"
    save_tokenizer(word_tokenizer, directory / "tokenizer")
    rows = [
        {
            "pair_id": 100 + number, "dialogue_id": "d", "position": 1, "speaker": speaker, "partner": "ada",
            "context_ids": context, "context_lengths": lengths, "context_speakers": authors,
            "response_ids": response, "time": None,
        }
        for number, (speaker, context, lengths, authors, response) in enumerate(
            [("ben", [7, 8, 13], [1, 2], [0, 1], [14]), ("cleo", [9], [1], [1], [11, 11])]
        )
    ]  # fmt: skip
    columns = shards.schema(word_tokenizer.get_vocab_size(), tokenizer_fingerprint(directory / "tokenizer"))
    parts = {"pretrain/train": [], "users/train": shards.write_shards(rows, directory / "users/train", columns)}
    (directory / "manifest.json").write_text(json.dumps({"splits": parts}))
    return directory


def test_pairs_by_hand(by_hand, word_tokenizer):
    prompts = Prompts(PromptTemplate("ppp"), word_tokenizer, {"ada": {"city": "osaka"}, "ben": {"age": "old"}})
    assert list(preview(by_hand, 5, prompts, max_context_tokens=64)) == [
        "pair 100, row 1 of users/train",
        "  prompt:   <|speaker profile|> age : old <|partner profile|> city : osaka",
        "  context:  <|speaker|> hi <|partner|> tea please </s>",
        "  response: thanks </s>",
        "  input ids: 5 15 17 19 6 16 17 21 3 7 4 8 13 1",
        "  label ids: 14 1",
        "pair 101, row 2 of users/train",
        "  prompt:   <|partner profile|> city : osaka",
        "  context:  <|partner|> coffee </s>",
        "  response: no no </s>",
        "  input ids: 6 16 17 21 4 9 1",
        "  label ids: 11 11 1",
    ]


def test_what_is_cut_off_is_not_shown(by_hand, word_tokenizer):
    lines = list(preview(by_hand, 1, Prompts(PromptTemplate(), word_tokenizer), max_context_tokens=2))
    assert lines[1:3] == ["  prompt:   (none)", "  context:  <|partner|> please </s>"]
    assert lines[-2:] == ["  input ids: 4 13 1", "  label ids: 14 1"]
    assert len(lines) == 6


def test_a_corpus_is_prepared_first_and_then_only_looked_at(tmp_path, invented_corpus, split_rule, capsys):
    output = tmp_path / "invented"
    settings = {"corpus": invented_corpus, "output": output, "splits": split_rule, "vocabulary_size": 400}
    PrepareAndPreview(preview=3, **settings).run()
    said = capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    PrepareAndPreview(preview=3, **settings).run()
    again = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert "is prepared already" in again
    shown = said[said.index("pair ") :]
    assert shown == again[again.index("pair ") :]
    written = {turn.text for dialogue in invented_corpus.dialogues(Drops()) for turn in dialogue.turns}
    responses = re.findall(r"^  response: *(.*)$", shown, flags=re.M)
    assert len(responses) == 3 and {MARKS.sub("", text).strip() for text in responses} <= written
    tokenizer = Tokenizer.from_file(str(output / "tokenizer" / "tokenizer.json"))
    for text, ids in zip(responses, re.findall(r"label ids: ([\d ]+)", shown), strict=True):
        assert tokenizer.decode([int(id) for id in ids.split()]) == MARKS.sub("", text).strip()


def test_more_pairs_than_a_row_group_has(in_small_groups):
    directory = in_small_groups.output
    lines = list(preview(directory, 45, load_prompts(PromptTemplate(), directory, None), 64))
    assert sum(line.startswith("pair ") for line in lines) == 45  # a group has 20


def test_nothing_to_look_at(tmp_path, invented_corpus, by_hand, word_tokenizer):
    manifest = json.loads((by_hand / "manifest.json").read_text())
    manifest["splits"]["users/train"] = []
    (by_hand / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="has no reply pair in pretrain/train or users/train"):
        next(preview(by_hand, 1, Prompts(PromptTemplate(), word_tokenizer), 64))
    with pytest.raises(ValueError, match="preview must be 0 or more reply pairs, got -1"):
        PrepareAndPreview(preview=-1, corpus=invented_corpus, output=tmp_path / "no", splits=SplitRule())
