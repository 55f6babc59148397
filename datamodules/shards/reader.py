"""Reads token shards: a few row groups at a time, straight from Parquet into flat arrays. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artefacts.described import require_same
from artefacts.layout import MANIFEST, TOKENIZER
from artefacts.manifest import read_manifest, split_fingerprint
from datamodules.preparation.shards import FINGERPRINT_KEY
from datamodules.preparation.tokenizer import tokenizer_fingerprint
from datamodules.shards.ragged import Ragged

COLUMNS = ["pair_id", "speaker", "partner", "context_ids", "context_lengths", "context_speakers", "response_ids"]


@dataclass(frozen=True)
class TokenPairs:
    """Reply pairs as arrays, a row a pair."""

    pair_id: np.ndarray  # (rows,) int64
    speakers: list[str]  # names that `speaker` counts in
    speaker: np.ndarray  # (rows,)
    partners: list[str]  # names that `partner` counts in
    partner: np.ndarray  # (rows,)
    context: Ragged
    context_lengths: Ragged
    context_speakers: Ragged
    response: Ragged

    def __len__(self) -> int:
        return len(self.pair_id)


class ShardReader:
    """The row groups of one split, opened when they are read.

    That every part is there and that the first is right is seen at once, the inside of each other part when it is
    first read: looking into all of them took most of the time to open a large corpus.

    Raises:
        FileNotFoundError: no prepared corpus, or a part of it is missing.
        ValueError: the split does not exist, a shard is not the one of the manifest, or it was made with another
            tokenizer.
    """

    def __init__(self, directory: Path, split: str) -> None:
        self.directory = directory
        manifest = read_manifest(directory)
        if split not in manifest["splits"]:
            raise ValueError(f"{directory} has no split {split!r}; it has {sorted(manifest['splits'])}")
        self.target_users = frozenset(manifest.get("target_users", ()))
        self.content = split_fingerprint(manifest, split)
        self.fingerprint = tokenizer_fingerprint(directory / TOKENIZER)
        self.groups: list[tuple[Path, int]] = []
        self.group_sizes: list[int] = []
        self._sha256_of: dict[Path, str] = {}
        self._checked: set[Path] = set()
        for part in manifest["splits"][split]:
            path = directory / split / part["file"]
            if not path.is_file():
                raise FileNotFoundError(f"{path} is named in the manifest but missing; {self._mend}")
            self._sha256_of[path] = part["sha256"]
            self.groups += [(path, number) for number in range(len(part["row_groups"]))]
            self.group_sizes += [group[0] for group in part["row_groups"]]
        if self.groups:
            self._open(self.groups[0][0])

    def _open(self, path: Path) -> pq.ParquetFile:
        """Opens a part; the first time it is compared with the manifest."""
        if path in self._checked:
            return pq.ParquetFile(path)
        require_same(path, self._sha256_of[path], self.directory / MANIFEST, self._mend)
        file = pq.ParquetFile(path)
        theirs = (file.metadata.metadata or {}).get(FINGERPRINT_KEY, b"none").decode()
        if theirs != self.fingerprint:
            raise ValueError(
                f"{path} was made with tokenizer {theirs}, but {self.directory / TOKENIZER} is {self.fingerprint}; "
                f"{self._mend}"
            )
        self._checked.add(path)
        return file

    @property
    def _mend(self) -> str:
        return f"delete {self.directory} and prepare it anew"

    def table(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a row group."""
        path, number = self.groups[group]
        return self._open(path).read_row_group(number, columns=list(columns))

    def read(self, groups: Sequence[int]) -> TokenPairs:
        """Reads these row groups, in this order."""
        table = pa.concat_tables([self.table(group, COLUMNS) for group in groups])
        speaker = table["speaker"].combine_chunks().dictionary_encode()
        partner = table["partner"].combine_chunks().dictionary_encode()
        return TokenPairs(
            pair_id=table["pair_id"].to_numpy(),
            speakers=speaker.dictionary.to_pylist(),
            speaker=speaker.indices.to_numpy(),
            partners=partner.dictionary.to_pylist(),
            partner=partner.indices.to_numpy(),
            context=Ragged.from_arrow(table["context_ids"]),
            context_lengths=Ragged.from_arrow(table["context_lengths"]),
            context_speakers=Ragged.from_arrow(table["context_speakers"]),
            response=Ragged.from_arrow(table["response_ids"]),
        )
