"""Shuffle files and the hashes that decide where a row goes."""

import random

import numpy as np
import pyarrow as pa
import pytest

from datamodules.preparation.at_scale import shuffle
from datamodules.preparation.at_scale.shuffle import hash_of_both, hash_strings, read_bucket, share_of, shuffle_file

SCHEMA = pa.schema({"name": pa.string(), "ids": pa.list_(pa.uint16())})
MASK = 2**64 - 1


def mix(value):
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def hash_by_hand(text, seed=0):
    salt = mix(seed + 1)
    total = sum((byte + 1) * (mix((place + 1 + salt) & MASK) | 1) for place, byte in enumerate(text.encode()))
    return mix((total + len(text.encode()) * 0x9E3779B97F4A7C15 + salt) & MASK)


@pytest.mark.parametrize("seed", [0, 7])
def test_hashes_are_those_of_plain_integers(seed):
    texts = ["", "a", "b", "ab", "ba", "おはよう", "", "a" * 100]
    assert hash_strings(pa.array(texts), seed).tolist() == [hash_by_hand(text, seed) for text in texts]


def test_a_hash_never_changes():
    # What is prepared, and who is held out, must be the same in every later version.
    assert hash_strings(pa.array(["ann"])).tolist() == [11326920834522066655]


def test_hashes_of_slices_and_chunks():
    texts = [f"user {number}" for number in range(100)]
    whole = hash_strings(pa.array(texts))
    chunks = pa.chunked_array([pa.array(texts[:30]), pa.array([], type=pa.string()), pa.array(["x", *texts[30:]])[1:]])
    assert (hash_strings(chunks) == whole).all()
    assert len(set(whole.tolist())) == 100


def test_nulls_have_no_hash():
    with pytest.raises(ValueError, match="1 of 2 strings are null"):
        hash_strings(pa.array(["a", None]))


def test_a_hash_of_both_does_not_know_who_is_who():
    one, other, third = hash_strings(pa.array(["ann", "ben", "cat"]))[:, None]
    assert hash_of_both(one, other) == hash_of_both(other, one)
    assert hash_of_both(one, other) != hash_of_both(one, third)


def test_shares_are_equal_and_in_order():
    hashes = hash_strings(pa.array([str(number) for number in range(30_000)]))
    shares = share_of(np.sort(hashes), 7)
    assert (np.diff(shares) >= 0).all()
    assert np.bincount(shares, minlength=7) == pytest.approx(30_000 / 7, rel=0.06)
    assert share_of(np.array([0, MASK], dtype=np.uint64), 7).tolist() == [0, 6]


def rows(number, seed=0):
    draw = random.Random(seed)
    return pa.Table.from_pylist(
        [{"name": f"{seed}/{place}", "ids": [place] * draw.randint(0, 3)} for place in range(number)], schema=SCHEMA
    )


@pytest.mark.parametrize("round", [1, 10**9])
def test_every_row_comes_back_in_its_bucket(tmp_path, monkeypatch, round):
    monkeypatch.setattr(shuffle, "BYTES_PER_ROUND", round)
    expected = {bucket: [] for bucket in range(5)}
    for number in range(3):
        with shuffle_file(tmp_path / f"{number}.arrow", SCHEMA, 5) as writer:
            for block in range(2):
                table = rows(40, seed=10 * number + block)
                buckets = np.random.default_rng(number).choice([0, 1, 2, 4], size=40)  # nothing for bucket 3
                writer.write(table, buckets)
                for row, bucket in zip(table.to_pylist(), buckets.tolist(), strict=True):
                    expected[bucket].append(row)
    paths = sorted(tmp_path.glob("*.arrow"))
    for bucket in range(5):
        assert read_bucket(paths, bucket, 5, SCHEMA).to_pylist() == expected[bucket]


def test_a_file_of_nothing(tmp_path):
    with shuffle_file(tmp_path / "0.arrow", SCHEMA, 3):
        pass
    assert read_bucket([tmp_path / "0.arrow"], 1, 3, SCHEMA).num_rows == 0


def test_what_fails_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), shuffle_file(tmp_path / "0.arrow", SCHEMA, 3) as writer:
        writer.write(rows(10), np.zeros(10, dtype=np.int64))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "0.arrow"
    with shuffle_file(path, SCHEMA, 1) as writer:
        writer.write(rows(100), np.zeros(100, dtype=np.int64))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"0\.arrow is damaged or truncated"):
        read_bucket([path], 0, 1, SCHEMA)
