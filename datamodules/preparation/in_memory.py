"""Preparation of dialogues: all of them held in memory, which is good for some millions of turns.

In: the settings of a `Preparation` and its corpus. Out: the files of a prepared corpus, in a directory that is not
finished yet.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from artefacts.manifest import MANIFEST_VERSION, write_manifest
from datamodules.corpora.records import OPTED_OUT, Dialogue, Drops

from .opt_out import names_fingerprint
from .pairs import reply_pairs
from .shards import schema, shard_row, write_shards
from .splits import split_dialogues, stable_hash
from .tokenizer import convert, copy_tokenizer, save_tokenizer, tokenizer_fingerprint, train_sentencepiece

if TYPE_CHECKING:
    from .settings import Preparation


class DialoguePreparation:
    """Prepares dialogues in a directory that is not finished yet; what an earlier one left there goes.

    Args:
        preparation: the settings.
        directory: where everything is written.
    """

    def __init__(self, preparation: Preparation, directory: Path) -> None:
        self.preparation = preparation
        self.directory = directory

    def write(self) -> dict[str, Any]:
        """Writes everything; returns the manifest, which is written last.

        Raises:
            ValueError: too many dialogues are dropped, or none is left.
        """
        settings, directory = self.preparation, self.directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        drops = Drops()
        print("reading dialogues ...")
        dialogues = list(settings.dialogues(drops))
        print(f"{len(dialogues):,} of {drops.num_seen:,} dialogues are used; dropped:\n{drops}")
        drops.stop_above(settings.max_dropped)
        if not dialogues:
            raise ValueError(f"{', '.join(str(path) for path in settings.corpus.files)}: not one usable dialogue")
        targets, splits = split_dialogues(dialogues, settings.splits)
        tokenizer = self._make_tokenizer(splits)
        fingerprint = tokenizer_fingerprint(directory / "tokenizer")
        columns = schema(tokenizer.get_vocab_size(), fingerprint)
        counts: Counter[str] = Counter()
        parts = {}
        for name, members in splits.items():
            print(f"writing {name} ...")
            rows = (row for dialogue, author in members for row in self._rows(dialogue, author, tokenizer, counts))
            if name == "pretrain/train":  # shuffled once and for all, so that a window of it is a fair sample
                rows = iter(sorted(rows, key=lambda row: stable_hash(settings.splits.seed, row["pair_id"])))
            parts[name] = write_shards(rows, directory / name, columns)
        manifest = {
            "version": MANIFEST_VERSION,
            "settings": settings.settings(),
            "source_fingerprint": settings.corpus.fingerprint(),
            "tokenizer_fingerprint": fingerprint,
            "vocabulary_size": tokenizer.get_vocab_size(),
            "target_users": targets,
            "opted_out": names_fingerprint(settings.opted_out),
            "num_dialogues": len(dialogues),
            "dropped": {**drops.reasons, **({OPTED_OUT: drops.num_opted_out} if drops.num_opted_out else {})},
            "turns_cut": counts["turns cut"],
            "profiles": self._write_profiles(directory / "profiles.parquet"),
            "splits": parts,
        }
        write_manifest(directory, manifest)
        return manifest

    def _make_tokenizer(self, splits: dict[str, list[tuple[Dialogue, str | None]]]) -> Tokenizer:
        """Learns it, or takes another corpus' or backbone's; it is written too."""
        directory = self.directory / "tokenizer"
        if self.preparation.tokenizer is not None:
            return copy_tokenizer(self.preparation.tokenizer, directory)
        print("training the tokenizer ...")
        # Where every person is a target user there is no pre-training split; then their training turns serve.
        learnt_from = splits["pretrain/train"] or splits["users/train"]
        texts = (turn.text for dialogue, _ in learnt_from for turn in dialogue.turns)
        tokenizer = convert(train_sentencepiece(texts, self.preparation.vocabulary_size))
        save_tokenizer(tokenizer, directory)
        return tokenizer

    def _rows(
        self, dialogue: Dialogue, author: str | None, tokenizer: Tokenizer, counts: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        encodings = tokenizer.encode_batch([turn.text for turn in dialogue.turns])
        counts["turns cut"] += sum(len(encoding.ids) > self.preparation.max_turn_tokens for encoding in encodings)
        ids = [encoding.ids[: self.preparation.max_turn_tokens] for encoding in encodings]
        speakers = [turn.speaker for turn in dialogue.turns]
        for pair in reply_pairs(dialogue, author, self.preparation.max_context_turns):
            yield shard_row(pair, ids, speakers)

    def _write_profiles(self, path: Path) -> int:
        rows = [
            {
                "user": profile.user,
                "attribute": attribute,
                "value": self.preparation.normalised_text(value),
                "origin": profile.origin,
            }
            for profile in self.preparation.profiles()
            for attribute, value in profile.attributes.items()
        ]
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), path)
        return len({row["user"] for row in rows})
