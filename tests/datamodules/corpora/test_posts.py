"""Posts from files: every format, every cut, every way of being broken; all people and texts are invented."""

import gzip
import json
import pickle
import random
from collections import Counter
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.corpora import POSTS, Cleaning, Fields, Posts
from datamodules.corpora.posts import files as post_files
from datamodules.corpora.posts import raw_posts as post_records

TIME = datetime(2024, 5, 1, 7, 30, tzinfo=UTC)


def record(number, **other):
    """A post as a file has it; only odd ones answer another."""
    reply = {"in_reply_to": str(number - 1)} if number % 2 else {}
    text = f"hello {number}" if number % 3 else f"おはよう {number}"
    post = {"id": str(number), "author": f"p{number % 5}", "text": text, "time": "2024-05-01T07:30:00Z"}
    return {**post, **reply, **other}


def expected(number):
    """The post of such a record."""
    return {"in_reply_to": None, **record(number), "time": TIME}


def lines(records):
    return "".join(json.dumps(one, ensure_ascii=number % 2 == 0) + "\n" for number, one in enumerate(records)).encode()


def everything(posts):
    """All posts and all counts, over all units; each block has the layout that it should have."""
    rows, counts = [], Counter()
    for unit in posts.units():
        for table, reasons in posts.read(pickle.loads(pickle.dumps(unit))):
            assert table.schema == POSTS
            table.validate(full=True)
            rows.extend(table.to_pylist())
            counts.update(reasons)
    return rows, dict(counts)


def examples(posts, reason):
    return [one for unit in posts.units() for _, found in posts.read(unit) for one in found.examples.get(reason, [])]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few lines, so that small files have many."""
    monkeypatch.setattr(post_files, "BLOCK_BYTES", 700)
    monkeypatch.setattr(post_files, "MAX_LINE_BYTES", 2000)


def compressed(kind, data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, kind) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.txt", "two.gz", "two.zst"])
def test_every_format_gives_the_same_posts(tmp_path, name, small_blocks):
    records = [record(number) for number in range(40)]
    data, half = lines(records), lines(records[:20])
    content = {"gz": gzip.compress, "zst": lambda data: compressed("zstd", data)}.get(name.rpartition(".")[2], bytes)
    if name.endswith("parquet"):
        columns = {key: [one.get(key) for one in records] for key in records[1]}
        pq.write_table(pa.table(columns), tmp_path / name, row_group_size=7)
    elif name.startswith("two"):  # files that were put behind one another
        (tmp_path / name).write_bytes(content(half) + content(data[len(half) :]))
    else:
        (tmp_path / name).write_bytes(content(data))
    posts = Posts(str(tmp_path / name))
    assert everything(posts) == ([expected(number) for number in range(40)], {})
    assert everything(pickle.loads(pickle.dumps(posts)))[0] == everything(posts)[0]


def test_addresses_globs_and_directories(tmp_path):
    (tmp_path / "deep").mkdir()
    for number, name in enumerate(["a.jsonl", "deep/b.jsonl", "c.jsonl", "deep/notes.md", "deep/.d.jsonl"]):
        (tmp_path / name).write_bytes(lines([record(number, in_reply_to=None)]))

    def ids(files):
        return [row["id"] for row in everything(Posts(files))[0]]

    assert ids(str(tmp_path)) == ["0", "2", "1"]
    assert ids(str(tmp_path / "*.jsonl")) == ["0", "2"]
    assert ids([str(tmp_path / "c.jsonl"), f"file://{tmp_path}/a.jsonl", str(tmp_path / "*.jsonl")]) == ["0", "2"]
    with pytest.raises(FileNotFoundError, match=r"nothing\*.*no file of posts"):
        ids(str(tmp_path / "nothing*"))


def test_files_in_memory_are_addresses_too():
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/posts/a.jsonl", lines([record(number) for number in range(30)]))
    try:
        assert everything(Posts("memory://posts/*.jsonl", unit_bytes=100))[0] == [expected(n) for n in range(30)]
    finally:
        fs.rm("/posts", recursive=True)


@pytest.mark.parametrize("seed", range(3))
def test_no_cut_changes_anything(tmp_path, seed, monkeypatch):
    """Blank lines, broken ones, `\\r\\n`, numbers among strings, and no end of line at the end."""
    rng = random.Random(seed)
    kinds = [
        lambda n: lines([record(n)]),
        lambda n: lines([record(n, id=n, in_reply_to=None)]),
        lambda n: lines([record(n, time=1714548600 + n)]),
        lambda n: lines([record(n, time="Wed May 01 07:30:00 +0000 2024")]),
        lambda n: lines([record(n, repost=bool(n % 2))]),
        lambda n: lines([record(n)]).rstrip() + b" \r\n",
        lambda n: b"\n \r\n",
        lambda n: b'{"id": "x", "author": ' + b"\n",
        lambda n: b'{"id": "\xff"}\n',
        lambda n: lines([record(n)]).rstrip() + b" " + lines([record(n)]),
        lambda n: b'{"id": "a", "author": {"b": {}\n',
        lambda n: b'[{"id": "a"}]\n',
        lambda n: lines([record(n, time="yesterday")]),
        lambda n: lines([record(n, text=None)]),
        lambda n: lines([record(n, text=5)]),
        lambda n: b"\x00\n",
    ]
    weights = [12] + [1] * (len(kinds) - 1)
    data = b"".join(rng.choices(kinds, weights)[0](number) for number in range(120)).rstrip(b"\n")
    (tmp_path / "a.jsonl").write_bytes(data)
    fields = Fields(repost="repost")
    monkeypatch.setattr(Posts, "_check_fields", lambda self, paths: None)
    whole = everything(Posts(str(tmp_path / "a.jsonl"), fields))
    assert len(whole[0]) > 50 and len(whole[1]) >= 5
    for unit_bytes in (97, 1000, rng.randrange(100, 5000)):
        assert everything(Posts(str(tmp_path / "a.jsonl"), fields, unit_bytes=unit_bytes)) == whole, unit_bytes
    monkeypatch.setattr(post_files, "BLOCK_BYTES", 300)
    assert everything(Posts(str(tmp_path / "a.jsonl"), fields, unit_bytes=2000)) == whole
    monkeypatch.setattr(post_records.JsonLines, "_at_once", lambda self, data: None)  # Python's parser alone
    assert everything(Posts(str(tmp_path / "a.jsonl"), fields)) == whole


def test_units_of_one_byte(tmp_path):
    data = lines([record(number) for number in range(4)])
    (tmp_path / "a.jsonl").write_bytes(data)
    posts = Posts(str(tmp_path / "a.jsonl"), unit_bytes=1)
    assert len(posts.units()) == len(data)
    assert everything(posts) == ([expected(number) for number in range(4)], {})


def test_most_lines_do_not_need_the_slow_way(tmp_path, monkeypatch):
    """Numbers instead of strings are parsed at once as well; around a broken line few are parsed one by one."""
    slow = []
    row = post_records.JsonLines._row
    monkeypatch.setattr(post_records.JsonLines, "_row", lambda self, line: slow.append(line) or row(self, line))
    numbers = [record(n, id=n, author=n % 5, in_reply_to=max(n - 1, 0), time=1714548600) for n in range(2000)]
    (tmp_path / "a.jsonl").write_bytes(lines(numbers) + b"{broken\n" + lines(numbers))
    rows, counts = everything(Posts(str(tmp_path / "a.jsonl")))
    assert (len(rows), counts) == (4000, {"not JSON": 1})
    assert rows[7] == {"id": "7", "author": "2", "text": "hello 7", "time": TIME, "in_reply_to": "6"}
    assert 0 < len(slow) <= post_records.FEW_LINES


def test_broken_lines_are_counted_with_their_place(tmp_path):
    good = lines([record(1)])
    broken = {
        b'{"id": "2", "author"\n': "not JSON",
        b'{"id": "2", "author": "p", "text": "caf\xe9"}\n': "not UTF-8",
        b'{"id": "2", "author": "p", "text": "\\ud83d"}\n': "not UTF-8",
        b'["2", "p", "hello"]\n': "wrong type",
        b'{"id": ["2"], "author": "p", "text": "hello"}\n': "wrong type",
        b'{"id": true, "author": "p", "text": "hello"}\n': "wrong type",
        b'{"id": 2.5, "author": "p", "text": "hello"}\n': "wrong type",
        b'{"id": "2", "author": "p", "text": 7}\n': "wrong type",
        b'{"id": "2", "author": "p", "text": "hello", "time": true}\n': "wrong type",
        b'{"id": "2", "author": "p", "text": "hello", "time": "2024-02-30T00:00:00Z"}\n': "bad time",
        b'{"id": "2", "author": "p", "text": "hello", "time": 1e300}\n': "bad time",
        b'{"author": "p", "text": "hello"}\n': "no id",
        b'{"id": "", "author": "p", "text": "hello"}\n': "no id",
        b'{"id": "2", "author": null, "text": "hello"}\n': "no author",
        b'{"id": "2", "author": "p"}\n': "no text",
        b"[" * 100_000 + b"\n": "not JSON",
    }
    for line, reason in broken.items():
        (tmp_path / "a.jsonl").write_bytes(good + line + good)
        posts = Posts(str(tmp_path / "a.jsonl"))
        rows, counts = everything(posts)
        assert (len(rows), counts) == (2, {reason: 1}), line[:60]
        if reason in ("not JSON", "not UTF-8", "wrong type"):
            (place,) = examples(posts, reason)
            assert f"a.jsonl: byte {len(good)}: got" in place and "hello" not in place


def test_fields_have_other_names(tmp_path):
    tweet = {
        "id_str": "7",
        "user": {"id_str": "42", "name": "x"},
        "full_text": "hello",
        "created_at": "Wed Oct 10 20:19:24 +0000 2018",
        "in_reply_to_status_id_str": None,
        "retweeted_status": {"id_str": "3"},
        "lang": "en",
    }
    fields = Fields("id_str", "user.id_str", "full_text", "created_at", "in_reply_to_status_id_str")
    (tmp_path / "a.jsonl").write_bytes(lines([tweet, {**tweet, "user": None}, {**tweet, "user": "42"}]))
    pq.write_table(pa.Table.from_pylist([tweet, {**tweet, "user": None}]), tmp_path / "a.parquet")
    time = datetime(2018, 10, 10, 20, 19, 24, tzinfo=UTC)
    row = {"id": "7", "author": "42", "text": "hello", "time": time, "in_reply_to": None}
    assert everything(Posts(str(tmp_path / "a.jsonl"), fields)) == ([row], {"no author": 1, "wrong type": 1})
    assert everything(Posts(str(tmp_path / "a.parquet"), fields)) == ([row], {"no author": 1})
    marked = Fields("id_str", "user.id_str", "full_text", None, None, repost="retweeted_status.id_str")
    assert everything(Posts(str(tmp_path / "a.jsonl"), marked))[1] == {"no author": 1, "wrong type": 1, "repost": 1}


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_field_that_no_record_has_is_an_error(tmp_path, name):
    records = [{"id": "1", "who": {"name": "p", "city": "x"}, "text": "hello"}]
    if name == "a.jsonl":
        (tmp_path / name).write_bytes(lines(records))
    else:
        pq.write_table(pa.Table.from_pylist(records), tmp_path / name)
    with pytest.raises(ValueError) as error:
        Posts(str(tmp_path / name), Fields(in_reply_to=None)).units()
    assert "author: author, time: time; there are id, text, who.city, who.name." in str(error.value)
    right = Fields(author="who.name", time=None, in_reply_to=None)
    assert everything(Posts(str(tmp_path / name), right))[0][0]["author"] == "p"
    with pytest.raises(ValueError, match="who cannot be both"):
        Fields(author="who", text="who.name")


def test_columns_of_parquet_have_many_types(tmp_path):
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.uint64()),
            "author": pa.array(["p", "q"]).dictionary_encode(),
            "text": pa.array(["hello", "hello"], pa.large_string()),
            "time": pa.array([1714548600_999_999, -1], pa.timestamp("us")),
            "in_reply_to": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows, counts = everything(Posts(str(tmp_path / "a.parquet")))
    assert [(row["id"], row["author"], row["in_reply_to"]) for row in rows] == [("1", "p", None), ("2", "q", None)]
    before_1970 = datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    assert [row["time"] for row in rows] == [TIME.replace(microsecond=999_000), before_1970]
    pq.write_table(table.set_column(2, "text", pa.array([1.5, 2.5])), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="column text: got double"):
        everything(Posts(str(tmp_path / "b.parquet")))


def test_parquet_with_wrong_encoding_and_cuts(tmp_path):
    text = pa.array([b"hello", b"caf\xe9", b"hi"] * 20, pa.binary()).view(pa.string())
    table = pa.table({"id": [str(n) for n in range(60)], "author": ["p"] * 60, "text": text})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=9)
    fields = Fields(time=None, in_reply_to=None)
    for unit_bytes, num_units in ((1, 7), (1 << 20, 1)):
        posts = Posts(str(tmp_path / "a.parquet"), fields, unit_bytes=unit_bytes)
        assert len(posts.units()) == num_units
        rows, counts = everything(posts)
        assert [row["id"] for row in rows] == [str(n) for n in range(60) if n % 3 != 1]
        assert counts == {"not UTF-8": 20}
    assert examples(posts, "not UTF-8")[0].endswith("a.parquet: row 1")


def test_empty_files_are_counted_and_all_empty_is_an_error(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="all 1 files are empty"):
        Posts(str(tmp_path)).units()
    (tmp_path / "b.jsonl").write_bytes(lines([record(1)]))
    (tmp_path / "c.parquet").write_bytes(b"")
    assert everything(Posts(str(tmp_path))) == ([expected(1)], {"empty file": 2})
    assert "2 of 3 files are empty" in capsys.readouterr().out
    (tmp_path / "a.jsonl").write_bytes(b"no posts\n")
    with pytest.raises(ValueError, match=r"a\.jsonl: got no JSON object"):
        Posts(str(tmp_path)).units()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_file_that_is_cut_off_is_an_error(tmp_path, name):
    data = lines([record(number, text=str(random.Random(number).random())) for number in range(3000)])
    if name == "a.parquet":
        pq.write_table(pa.table({"id": ["1"], "author": ["p"], "text": ["hello"]}), tmp_path / name)
        data = (tmp_path / name).read_bytes()
    else:
        data = gzip.compress(data) if name.endswith("gz") else compressed("zstd", data)
    (tmp_path / name).write_bytes(data[:-9])
    with pytest.raises(ValueError, match=rf"{name}: got .*replace it"):
        everything(Posts(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, name, small_blocks, monkeypatch):
    long, allowed = lines([record(1, text="x" * 1950)]), lines([record(2, note="x" * 1880)])
    assert len(long) > 2000 >= len(allowed) > 1900
    data = lines([record(0)]) + long + allowed + long + lines([record(3)]) + long.rstrip()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    monkeypatch.setattr(Posts, "_check_fields", lambda self, paths: None)
    for unit_bytes in (50, 1999, 5000, 1 << 20):
        posts = Posts(str(tmp_path / name), unit_bytes=unit_bytes)
        rows, counts = everything(posts)
        assert ([row["id"] for row in rows], counts) == (["0", "2", "3"], {"line too long": 3})
    assert f"byte {len(lines([record(0)]))}: got more than 2000 bytes" in examples(posts, "line too long")[0]


def test_a_byte_order_mark_is_no_text(tmp_path):
    for name, wrap in (("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress)):
        (tmp_path / name).write_bytes(wrap(b"\xef\xbb\xbf" + lines([record(1), record(2)])))
        assert everything(Posts(str(tmp_path / name), unit_bytes=20)) == ([expected(1), expected(2)], {})


def test_opted_out_people_are_a_number(tmp_path):
    records = [*map(record, range(10)), record(10, author="p1", text="RT @a b")]
    (tmp_path / "a.jsonl").write_bytes(lines(records))
    posts = Posts(str(tmp_path / "a.jsonl"))
    blocks = [block for unit in posts.units() for block in posts.read(unit, frozenset({"p1", "p3", "nobody"}))]
    assert {author for table, _ in blocks for author in table["author"].to_pylist()} == {"p0", "p2", "p4"}
    assert sum((Counter(reasons) for _, reasons in blocks), Counter()) == {"opted out": 5}
    assert not any(reasons.examples.get("opted out") for _, reasons in blocks)


def test_the_fingerprint_sees_content(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines([record(1)]))
    found = {Posts(str(tmp_path / "a.jsonl")).fingerprint()}
    assert Posts(str(tmp_path / "*.jsonl"), unit_bytes=5).fingerprint() in found
    (tmp_path / "a.jsonl").write_bytes(lines([record(2)]))
    assert Posts(str(tmp_path / "a.jsonl")).fingerprint() not in found


def test_settings_are_what_decides_the_posts(tmp_path):
    changed = (Posts("a"), Posts("a", Fields(time=None)), Posts("a", cleaning=Cleaning(max_characters=9)))
    found = [posts.settings() for posts in changed]
    assert all(one != other for number, one in enumerate(found) for other in found[:number])
    assert Posts("b", unit_bytes=5).settings() == found[0]


def test_ids_of_authors_are_written_one_way_before_anything_else(tmp_path):
    spellings = ["ann", "ann ", "Jose\u0301", "\u200eJosé", "花", None]
    posts = [{"id": str(n), "author": author, "text": f"hello {n}"} for n, author in enumerate(spellings)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(post) for post in posts))
    corpus = Posts(str(tmp_path / "a.jsonl"), Fields(time=None, in_reply_to=None))
    opted_out = frozenset({"José", "Bob"})
    tables, reasons = zip(*(read for unit in corpus.units() for read in corpus.read(unit, opted_out)), strict=True)
    assert [author for table in tables for author in table["author"].to_pylist()] == ["ann", "ann", "花"]
    assert sum(reasons, Counter()) == {"opted out": 2, "no author": 1}
    assert sum(one.num_respelled for one in reasons) == 3
    assert set().union(*(one.opted_out for one in reasons)) == {"José"}
