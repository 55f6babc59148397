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


def of_tokenizer(fingerprint: bytes | None) -> Callable[[Path], None]:
    metadata = {b"tokenizer_fingerprint": fingerprint} if fingerprint else None
    return lambda path: rewrite(path, lambda table: table.replace_schema_metadata(metadata))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *[(keep(share), "is damaged or truncated .*; delete .* prepare it anew") for share in (0, 1e-4, 0.5, 0.999)],
        (
            lambda path: rewrite(path, lambda table: table.drop_columns(["partner", "context_ids"])),
            r"lacks the columns \['context_ids', 'partner'\]; delete",
        ),
        (
            of_tokenizer(b"0123456789abcdef"),
            "made with tokenizer 0123456789abcdef, but .*tokenizer is OURS; delete",
        ),
        (of_tokenizer(None), "made with tokenizer none, but .*tokenizer is OURS; delete"),
        (
            lambda path: rewrite(path, lambda table: table, row_group_size=50),
            "has 4 row groups, the manifest says 1; delete",
        ),
    ],
)
def test_a_damaged_shard_is_an_error(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy / "users/train/part-00000.parquet")
    ours = json.loads((copy / "manifest.json").read_text())["tokenizer_fingerprint"]
    with pytest.raises(ValueError, match=f"part-00000.parquet.* {message}".replace("OURS", ours)):
        ShardReader(copy, "users/train")


def test_a_tokenizer_that_was_exchanged(copy: Path) -> None:
    path = copy / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ValueError, match="was made with tokenizer .*, but .*tokenizer is"):
        ShardReader(copy, "users/train")


def test_damage_inside_a_shard_is_named_when_it_is_read(copy: Path) -> None:
    path = copy / "users/train/part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)  # the footer stays
    path.write_bytes(content)
    reader = ShardReader(copy, "users/train")
    with pytest.raises(ValueError, match=r"(?s)part-00000.parquet, row group 0, cannot be read .*; delete"):
        reader.read([0])


def test_later_parts_are_looked_at_when_they_are_read(in_small_groups: Preparation, tmp_path: Path) -> None:
    copy = shutil.copytree(in_small_groups.output, tmp_path / "copy") / "pretrain/train"
    (copy / "part-00001.parquet").write_bytes(b"PAR1")
    rewrite(copy / "part-00002.parquet", lambda table: table.drop_columns(["partner"]))
    reader = ShardReader(tmp_path / "copy", "pretrain/train")
    assert len(reader.read([0, 4])) == 40
    with pytest.raises(ValueError, match=r"part-00001.parquet is damaged or truncated .*; delete .* prepare it anew"):
        reader.read([4, 5])
    with pytest.raises(ValueError, match=r"part-00002.parquet lacks the columns \['partner'\]; delete"):
        reader.read([10])
    (copy / "part-00003.parquet").unlink()  # seen at once
    with pytest.raises(FileNotFoundError, match="part-00003.parquet is named in the manifest but missing; delete"):
        ShardReader(tmp_path / "copy", "pretrain/train")
