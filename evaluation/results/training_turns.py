"""What every target user wrote in training, as text: for scores that ask whether a model repeats a person."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tokenizers import Tokenizer

from artefacts.described import require_same
from artefacts.layout import MANIFEST, TOKENIZER, TOKENIZER_FILE
from artefacts.manifest import read_manifest, split_fingerprint


def training_turns(prepared: Path) -> dict[str, list[str]]:
    """The training responses of every target user of a prepared corpus, users by name, responses in the order of time.

    They are decoded by the tokenizer that predictions are decoded by, so that equal turns are equal strings.

    Raises:
        FileNotFoundError: If there is no prepared corpus, or a file of it is missing.
        ValueError: If a file is not the one that the manifest names, or there are no training turns.
    """
    prepared = Path(prepared)
    manifest = read_manifest(prepared)
    path = prepared / TOKENIZER / TOKENIZER_FILE
    mend = f"delete {prepared} and prepare it again"
    require_same(path, manifest["tokenizer_fingerprint"], prepared / MANIFEST, mend)
    tokenizer = Tokenizer.from_file(str(path))
    turns: dict[str, list[str]] = {}
    for part in manifest["splits"]["users/train"]:  # the parts, and the rows in them, come in the order of time
        path = prepared / "users" / "train" / part["file"]
        require_same(path, part["sha256"], prepared / MANIFEST, mend)
        table = pq.read_table(path, columns=["speaker", "response_ids"])
        texts = tokenizer.decode_batch(table["response_ids"].to_pylist())
        for user, text in zip(table["speaker"].to_pylist(), texts, strict=True):
            turns.setdefault(user, []).append(text)
    if not turns:
        raise ValueError(f"{prepared}: the split users/train is empty; the corpus was prepared without target users")
    return dict(sorted(turns.items()))


def check_corpus(name: str, card: dict[str, Any], prepared: Path) -> None:
    """Checks that predictions are of this corpus: their card's `split`, if any, is the fingerprint of its test split.

    Raises:
        FileNotFoundError: If there is no prepared corpus.
        ValueError: Names both fingerprints.
    """
    theirs = card.get("split")
    ours = split_fingerprint(read_manifest(Path(prepared)), "users/test")
    if theirs and theirs != ours:
        raise ValueError(
            f"system {name!r} predicted the test split {theirs}, but that of {prepared} is {ours}: its training turns "
            "are not those of this corpus. Give the corpus that it was predicted on, or predict anew."
        )
