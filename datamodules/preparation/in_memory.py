"""Preparation of dialogues, all held in memory: enough for some millions of turns."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from artefacts.layout import PROFILES, TOKENIZER
from artefacts.manifest import write_manifest
from datamodules.corpora.people import People, some
from datamodules.corpora.records import Dialogue, Drops

from .fit_of_tokens import FitOfTokens
from .pairs import reply_pairs
from .settings import Preparation
from .shards import schema, write_shards
from .splits import PRETRAIN_SPLITS, SplitDialogues, num_shared_test_turns, split_dialogues, stable_hash
from .tokenizer import convert, copy_tokenizer, save_tokenizer, tokenizer_fingerprint, train_sentencepiece


class DialoguePreparation:
    """Prepares dialogues in an unfinished directory; what an earlier preparation left in it is deleted."""

    fit: FitOfTokens

    def __init__(self, preparation: Preparation, directory: Path) -> None:
        self.preparation = preparation
        self.directory = directory

    def write(self) -> dict[str, Any]:
        """Writes everything; returns the manifest, which is written last."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        drops = Drops()
        dialogues = self._read(drops)
        target_users, splits = split_dialogues(dialogues, self.preparation.splits)
        if not (splits["pretrain/train"] or splits["users/train"]):
            raise ValueError(
                f"{len(dialogues)} dialogues leave nothing to train on: give more, or hold out less of them"
            )
        num_shared = num_shared_test_turns(splits)
        parts = self._write_splits(splits, self._make_tokenizer(splits))
        num_profiles = self._write_profiles(drops.people)
        manifest = self.preparation.manifest(
            self.directory,
            target_users,
            num_dialogues=len(dialogues),
            dropped=drops.reasons,
            turns_cut=self.fit.total["cut"],
            byte_ids=self.fit.total["bytes"],
            shared_test_turns=num_shared,
            profiles=num_profiles,
            splits=parts,
        )
        write_manifest(self.directory, manifest)
        return manifest

    def _read(self, drops: Drops) -> list[Dialogue]:
        print("reading dialogues ...")
        dialogues = list(self.preparation.dialogues(drops))
        print(f"{len(dialogues):,} of {drops.num_seen:,} dialogues are used; dropped:\n{drops.reasons.table()}")
        for line in (*drops.people.report(), *self._matched(drops.people)):
            print(line)
        drops.stop_above(self.preparation.max_dropped)
        if not dialogues:
            files = ", ".join(str(path) for path in self.preparation.corpus.files)
            raise ValueError(f"{files}: not one usable dialogue")
        return dialogues

    def _matched(self, people: People) -> Iterator[str]:
        """Yields how many of those who opted out are in the corpus, and who is not."""
        if self.preparation.opt_out is not None:
            ids, missing = self.preparation.opted_out, people.missing(self.preparation.opted_out)
            nobody = f"; nobody in this corpus: {some(missing)}" if missing else ""
            yield f"{self.preparation.opt_out}: {len(ids):,} ids, {len(ids) - len(missing):,} matched{nobody}"

    def _make_tokenizer(self, splits: SplitDialogues) -> Tokenizer:
        """Trains the tokenizer, or copies that of another corpus or a backbone."""
        directory = self.directory / TOKENIZER
        if self.preparation.tokenizer is not None:
            return copy_tokenizer(self.preparation.tokenizer, directory)
        print("training the tokenizer ...")
        # If all people are target users, there is no pre-training split: then their training turns are used.
        sources = splits["pretrain/train"] or splits["users/train"]
        texts = (turn.text for dialogue, _ in sources for turn in dialogue.turns)
        tokenizer = convert(train_sentencepiece(texts, self.preparation.vocabulary_size))
        save_tokenizer(tokenizer, directory)
        return tokenizer

    def _write_splits(self, splits: SplitDialogues, tokenizer: Tokenizer) -> dict[str, list[dict[str, Any]]]:
        columns = schema(tokenizer.get_vocab_size(), tokenizer_fingerprint(self.directory / TOKENIZER))
        parts = {}
        self.fit = FitOfTokens(tokenizer, self.preparation.max_turn_tokens)
        for name, members in splits.items():
            print(f"writing {name} ...")
            rows = (row for dialogue, author in members for row in self._rows(dialogue, author, tokenizer))
            if name == PRETRAIN_SPLITS[0]:  # shuffled once, so that a window of it is a fair sample
                seed = self.preparation.splits.seed
                rows = iter(sorted(rows, key=lambda row: stable_hash(seed, row["pair_id"])))
            parts[name] = write_shards(rows, self.directory / name, columns)
        print("\n".join(self.fit.report()))
        return parts

    def _rows(self, dialogue: Dialogue, author: str | None, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
        max_tokens = self.preparation.max_turn_tokens
        encodings = tokenizer.encode_batch([turn.text for turn in dialogue.turns], add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        self.fit.add((turn.speaker for turn in dialogue.turns), ids)
        return reply_pairs(dialogue, [turn[:max_tokens] for turn in ids], author, self.preparation.max_context_turns)

    def _write_profiles(self, people: People) -> int:
        normalised = self.preparation.normalised_text
        rows = [
            {"user": profile.user, "attribute": name, "value": normalised(value), "origin": profile.origin}
            for profile in self.preparation.profiles()
            for name, value in profile.attributes.items()
        ]
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), self.directory / PROFILES)
        users = {row["user"] for row in rows}
        if missing := people.missing(users):
            print(f"{len(missing):,} of {len(users):,} profiles are of nobody in the dialogues: {some(missing)}")
        return len(users)
