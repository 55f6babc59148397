"""Token shards: what is written, and that a reader gets it back or says what is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.corpora import Corpus, Drops
from datamodules.preparation import shards
from datamodules.preparation.settings import Preparation
from datamodules.preparation.shards import schema, write_shards
from datamodules.preparation.tokenizer import load_tokenizer
from datamodules.shards.reader import ShardReader
from datamodules.users.user_rows import UserSplit


@pytest.mark.parametrize(("vocabulary_size", "ids"), [(65_536, pa.uint16()), (65_537, pa.uint32())])
def test_ids_take_two_bytes_where_the_vocabulary_allows(vocabulary_size: int, ids: pa.DataType) -> None:
    columns = schema(vocabulary_size, "abc")
    assert columns.field("context_ids").type == columns.field("response_ids").type == pa.list_(ids)


def test_columns_and_types_of_a_written_shard(prepared: Path) -> None:
    written = pq.read_schema(prepared / "users/train/part-00000.parquet")
    assert {field.name: str(field.type).replace("element", "item") for field in written} == {
        "pair_id": "int64",
        "dialogue_id": "string",
        "position": "int32",
        "speaker": "string",
        "partner": "string",
        "context_ids": "list<item: uint16>",
        "context_lengths": "list<item: uint16>",
        "context_speakers": "list<item: uint8>",
        "response_ids": "list<item: uint16>",
        "time": "timestamp[ms, tz=UTC]",
    }
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert written.metadata[b"tokenizer_fingerprint"].decode() == manifest["tokenizer_fingerprint"]


def test_a_shard_decodes_to_the_dialogues_it_was_made_of(prepared: Path, invented_corpus: Corpus) -> None:
    tokenizer = load_tokenizer(prepared / "tokenizer")
    dialogues = {dialogue.id: dialogue for dialogue in invented_corpus.dialogues(Drops())}
    rows = pq.read_table(prepared / "users/test").to_pylist()
    assert {row["speaker"] for row in rows} == {"ada", "ben", "cleo", "dan"}
    for row in rows:
        turns = dialogues[row["dialogue_id"]].turns
        response = turns[row["position"]]
        assert tokenizer.decode(row["response_ids"]) == response.text
        assert (row["speaker"], row["time"]) == (response.speaker, response.time)
        assert row["partner"] == turns[row["position"] - 1].speaker
        context = turns[max(0, row["position"] - 4) : row["position"]]
        ends = np.cumsum(row["context_lengths"])
        texts = [
            tokenizer.decode(row["context_ids"][end - n : end])
            for end, n in zip(ends, row["context_lengths"], strict=True)
        ]
        assert texts == [turn.text for turn in context]
        assert row["context_speakers"] == [int(turn.speaker != response.speaker) for turn in context]


def test_row_groups_and_parts_are_full_and_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(shards, "ROWS_PER_PART", 8)
    empty = {name: [] for name in ("context_lengths", "context_speakers")}
    strings = dict.fromkeys(("dialogue_id", "speaker", "partner"), "x")
    rows = [
        {"pair_id": n, "position": 1, "context_ids": [7] * n, "response_ids": [8], "time": None, **strings, **empty}
        for n in range(10)
    ]
    parts = write_shards(iter(rows), tmp_path / "split", schema(100, "abc"))
    assert [(part["file"], part["row_groups"]) for part in parts] == [
        ("part-00000.parquet", [[4, 0 + 1 + 2 + 3, 4], [4, 4 + 5 + 6 + 7, 4]]),
        ("part-00001.parquet", [[2, 8 + 9, 2]]),
    ]
    assert pq.read_table(tmp_path / "split")["pair_id"].to_pylist() == list(range(10))
    assert pq.read_metadata(tmp_path / "split/part-00000.parquet").num_row_groups == 2
    assert write_shards(iter([]), tmp_path / "none", schema(100, "abc")) == []


# ---- reading


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "copy")


def test_reading_gives_what_pyarrow_reads(prepared: Path) -> None:
    reader = ShardReader(prepared, "users/train")
    pairs = reader.read([0])
    rows = pq.read_table(prepared / "users/train").to_pylist()
    assert reader.group_sizes == [len(pairs)] == [192]
    assert [pairs.speakers[index] for index in pairs.speaker] == [row["speaker"] for row in rows]
    assert [pairs.partners[index] for index in pairs.partner] == [row["partner"] for row in rows]
    assert pairs.pair_id.tolist() == [row["pair_id"] for row in rows]
    for name, ragged in (
        ("context_ids", pairs.context),
        ("context_lengths", pairs.context_lengths),
        ("context_speakers", pairs.context_speakers),
        ("response_ids", pairs.response),
    ):
        pieces = [
            ragged.values[start:end].tolist() for start, end in zip(ragged.offsets, ragged.offsets[1:], strict=False)
        ]
        assert pieces == [row[name] for row in rows]


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    pq.write_table(change(pq.read_table(path)), path, **options)


def test_no_prepared_corpus_and_an_unknown_split(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no prepared corpus in {tmp_path}; make it with: lightning prepare"):
        ShardReader(tmp_path, "users/train")
    with pytest.raises(ValueError, match="has no split 'users/dev'; it has .*'users/validation'"):
        ShardReader(prepared, "users/dev")


def keep(share: float) -> Callable[[Path], None]:
    def truncate(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return truncate


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        *map(keep, (0, 1e-4, 0.5, 0.999)),
        flip,
        lambda path: shutil.copy(path.parents[1] / "test" / path.name, path),  # another one, whole
        lambda path: rewrite(path, lambda table: table, row_group_size=50),
    ],
)
def test_a_damaged_or_exchanged_shard_is_an_error(copy: Path, damage: Callable[[Path], None]) -> None:
    damage(copy / "users/train/part-00000.parquet")
    message = "part-00000.parquet is not the file that .*manifest.json describes.*; delete .* prepare it anew"
    with pytest.raises(ValueError, match=message):
        ShardReader(copy, "users/train")


def test_an_edited_list_of_target_users_is_an_error(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["target_users"].remove("ben")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="users/train has turns of 'ben', who is not among the target_users of"):
        UserSplit(copy, "users/train")


def test_a_tokenizer_that_was_exchanged(copy: Path) -> None:
    path = copy / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ValueError, match="was made with tokenizer .*, but .*tokenizer is"):
        ShardReader(copy, "users/train")


def test_later_parts_are_looked_at_when_they_are_read(in_small_groups: Preparation, tmp_path: Path) -> None:
    copy = shutil.copytree(in_small_groups.output, tmp_path / "copy") / "pretrain/train"
    (copy / "part-00001.parquet").write_bytes(b"PAR1")
    reader = ShardReader(tmp_path / "copy", "pretrain/train")
    assert len(reader.read([0, 4])) == 40
    with pytest.raises(ValueError, match=r"part-00001.parquet is not the file that .*; delete .* prepare it anew"):
        reader.read([4, 5])
    (copy / "part-00003.parquet").unlink()  # seen at once
    with pytest.raises(FileNotFoundError, match="part-00003.parquet is named in the manifest but missing; delete"):
        ShardReader(tmp_path / "copy", "pretrain/train")
