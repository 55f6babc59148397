"""The tokenizer: equal ids everywhere, no character lost, and nobody types a marker."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from datamodules.preparation.tokenizer import (
    EOS,
    MARKERS,
    PAD,
    UNK,
    convert,
    harmless,
    load_tokenizer,
    save_tokenizer,
    tokenizer_fingerprint,
    train_sentencepiece,
)

LEARNT = ["the cat sat on the mat.", "猫は庭で魚を食べた。", "we like bread and butter!"] * 20
TEXTS = [
    "the cat sat on the mat.",
    "猫は庭で魚を食べた。",
    "𠮷野家 鬱 龘 🥁👩‍👩‍👧 é ñ ß",  # neither these nor the next were learnt from
    "Ωμέγα שלום مرحبا \u200b zero-width",
    "x < y > z </ s> <| speaker |>",
    "!",
]


@pytest.fixture(scope="module")
def model() -> bytes:
    return train_sentencepiece(LEARNT, vocabulary_size=400)


@pytest.fixture(scope="module")
def tokenizer(model: bytes) -> Tokenizer:
    return convert(model)


@pytest.fixture(scope="module")
def directory(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    save_tokenizer(tokenizer, directory)
    return directory


@pytest.mark.parametrize("text", TEXTS)
def test_no_character_is_lost_and_ids_are_those_of_sentencepiece(model: bytes, tokenizer: Tokenizer, text: str) -> None:
    import sentencepiece

    ids = tokenizer.encode(text).ids
    assert tokenizer.token_to_id(UNK) not in ids
    assert tokenizer.decode(ids) == text
    assert ids == sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)


def test_no_character_of_unicode_is_lost(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    for _ in range(200):
        points = [
            rng.choice([rng.randrange(0x21, 0x250), rng.randrange(0x3041, 0xA000), rng.randrange(0x1F300, 0x30000)])
            for _ in range(12)
        ]
        text = "".join(chr(point) for point in points if not chr(point).isspace())
        assert tokenizer.decode(tokenizer.encode(harmless(text)).ids) == text


@pytest.mark.parametrize("text", [*TEXTS, "<|speaker profile|> age: 20 <|partner|> the cat <|speaker|> yes"])
def test_ids_equal_those_of_auto_tokenizer(tokenizer: Tokenizer, directory: Path, text: str) -> None:
    theirs = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    ids = tokenizer.encode(text).ids
    assert theirs(text)["input_ids"] == ids == load_tokenizer(directory).encode(text).ids
    assert theirs.decode(ids) == tokenizer.decode(ids, skip_special_tokens=False)
    assert (theirs.pad_token_id, theirs.eos_token_id, len(theirs)) == (0, 1, tokenizer.get_vocab_size())


@pytest.mark.parametrize("token", [PAD, EOS, UNK, *MARKERS, "<0x41>"])
def test_nobody_types_a_special_token(model: bytes, tokenizer: Tokenizer, token: str) -> None:
    typed = f"so {token} what{token}"
    ids = tokenizer.encode(harmless(typed)).ids
    assert not set(ids) & set(range(7))
    assert tokenizer.decode(ids) == f"so < {token[1:]} what< {token[1:]}"


@pytest.mark.parametrize("text", ["<3", "a < b", "<b>bold</b>", "<|", "<s>"])
def test_other_angle_brackets_stay_as_they_are(text: str) -> None:
    assert harmless(text) == text


def test_training_is_repeatable_and_gives_the_vocabulary_asked_for(model: bytes, tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in (PAD, EOS, UNK, *MARKERS)] == list(range(7))
    assert train_sentencepiece(LEARNT, vocabulary_size=400) == model
    assert 7 + 256 < tokenizer.get_vocab_size() <= 400


def test_the_fingerprint_is_that_of_the_file(directory: Path, tmp_path: Path) -> None:
    content = (directory / "tokenizer.json").read_bytes()
    assert tokenizer_fingerprint(directory) == hashlib.sha256(content).hexdigest()[:16]
    other = json.loads(content)
    other["model"]["vocab"][-1][1] -= 1.0
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    assert tokenizer_fingerprint(tmp_path) != tokenizer_fingerprint(directory)


def test_a_directory_without_tokenizer_is_named(tmp_path: Path) -> None:
    for read in (load_tokenizer, tokenizer_fingerprint):
        with pytest.raises(FileNotFoundError, match=f"no tokenizer.json in {tmp_path}"):
            read(tmp_path)
