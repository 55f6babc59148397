"""The tokenizer: SentencePiece unigram, trained once, kept as a directory that `AutoTokenizer.from_pretrained` loads.

SentencePiece trains five times faster and in a fifth of the memory of `tokenizers`, and only it can learn with byte
fallback; the converted file gives the same ids. The class `T5Tokenizer` is avoided: it switches byte fallback off.
Neither tokenizer nor vocabulary is stated in the paper.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from artefacts.files import write_text
from artefacts.fingerprints import fingerprint_of
from artefacts.layout import TOKENIZER_CONFIG, TOKENIZER_FILE

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
SPEAKER, PARTNER = "<|speaker|>", "<|partner|>"
SPEAKER_PROFILE, PARTNER_PROFILE = "<|speaker profile|>", "<|partner profile|>"
MARKERS = (SPEAKER, PARTNER, SPEAKER_PROFILE, PARTNER_PROFILE)

# What `tokenizers` would take for one of our pieces, and SentencePiece would not: special tokens and bytes.
LOOKS_SPECIAL = re.compile(
    f"<(?={'|'.join(re.escape(token[1:]) for token in (PAD, EOS, UNK, *MARKERS))}|0x[0-9A-F]{{2}}>)"
)

MIN_VOCABULARY = 256 + 3 + len(MARKERS) + 1  # bytes, special tokens and a piece of text
NUM_TRAINING_THREADS = 4  # part of the recipe: they share the sums of SentencePiece
MODEL_FILE = "sentencepiece.model"


def train_sentencepiece(texts: Iterable[str], vocabulary_size: int) -> bytes:
    """Trains a unigram model with byte fallback and serialises it; ids 0, 1, 2 are padding, end and unknown as in T5.

    The vocabulary includes markers and the 256 bytes; it is smaller where the texts give fewer pieces.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocabulary_size,
        hard_vocab_limit=False,
        model_type="unigram",
        byte_fallback=True,
        character_coverage=0.9995,
        normalization_rule_name="identity",  # texts are normalised before they come here
        control_symbols=list(MARKERS),
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece=PAD,
        eos_piece=EOS,
        unk_piece=UNK,
        input_sentence_size=2_000_000,
        shuffle_input_sentence=True,
        num_threads=NUM_TRAINING_THREADS,
        minloglevel=2,
    )
    return model.getvalue()


def harmless(text: str) -> str:
    """The text with a space after each `<` that would begin a marker: a typed `</s>` ends nothing."""
    return LOOKS_SPECIAL.sub("< ", text) if "<" in text else text


def convert(model: bytes) -> Tokenizer:
    """The same tokenizer in the format of `tokenizers`: same pieces, same scores, same ids."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [(processor.id_to_piece(id), processor.get_score(id)) for id in range(processor.get_piece_size())]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=processor.unk_id(), byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (PAD, EOS, UNK, *MARKERS)])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Writes `tokenizer.json` and the configuration with which `AutoTokenizer` loads it as it is."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / TOKENIZER_FILE))
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": EOS,
        "unk_token": UNK,
        "extra_special_tokens": list(MARKERS),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
    }
    write_text(directory / TOKENIZER_CONFIG, json.dumps(configuration, indent=2) + "\n")


def fast_encoder(directory: Path) -> Callable[[list[str]], list[list[int]]]:
    """Texts → their ids, by SentencePiece if its model is kept beside `tokenizer.json`: measured ten times faster.

    Both agree except for about one text in two thousand, which has two equally likely segmentations.
    """
    model = directory / MODEL_FILE
    if not model.is_file():
        tokenizer = load_tokenizer(directory)
        return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    return lambda texts: processor.encode(texts, num_threads=1)


def copy_tokenizer(source: Path, directory: Path) -> Tokenizer:
    """Takes over a tokenizer as it is, so that its fingerprint stays; ValueError if this project has not made it."""
    tokenizer = load_tokenizer(source)
    wanted = (PAD, EOS, UNK, *MARKERS)
    found = {token: tokenizer.token_to_id(token) for token in wanted}
    if None in found.values() or [found[token] for token in wanted[:3]] != [0, 1, 2]:
        raise ValueError(
            f"the tokenizer in {source} has the special tokens {found}; all of them are needed, and ids 0, 1 and 2 for "
            "the first three: give the directory of a backbone, or tokenizer/ of a prepared corpus"
        )
    directory.mkdir(parents=True, exist_ok=True)
    for name in (TOKENIZER_FILE, TOKENIZER_CONFIG, MODEL_FILE):
        if name != MODEL_FILE or (source / name).is_file():  # only a preparation from posts keeps it
            shutil.copyfile(source / name, directory / name)
    return tokenizer


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a prepared corpus or of a backbone; FileNotFoundError if missing, ValueError if damaged."""
    path = _file_of(directory)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(
            f"{path} is damaged ({error}); copy it again, or delete {directory} and make it again"
        ) from None


def tokenizer_fingerprint(directory: Path) -> str:
    """The fingerprint of `tokenizer.json`: what shards, backbones and adapters carry."""
    return fingerprint_of(_file_of(directory))


def _file_of(directory: Path) -> Path:
    path = directory / TOKENIZER_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no {TOKENIZER_FILE} in {directory}")
    return path
