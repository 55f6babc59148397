"""A declared table behind the interface of inferred profiles. All people are invented."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.corpora.posts.profile_sources import PROFILES, DeclaredProfiles

ROWS = [
    {"user": "bob", "attribute": "gender", "value": "male"},
    {"user": "ann", "attribute": "home", "value": "Osaka", "origin": "distant"},
    {"user": "eve", "attribute": "gender", "value": "female"},
    {"user": "ann", "attribute": "age", "value": "20s", "origin": "declared"},
]


def table(path: Path, rows=ROWS) -> DeclaredProfiles:
    """The table in the format that the path's suffix says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    elif path.suffix:
        pq.write_table(pa.Table.from_pylist(rows, schema(rows, pa.large_string())), path)
    else:
        path.mkdir()
        for number, row in enumerate(rows):
            pq.write_table(pa.Table.from_pylist([row], schema(rows, pa.string())), path / f"{number}.parquet")
    return DeclaredProfiles(path)


def schema(rows, kind) -> pa.Schema:
    return pa.schema({name: kind for row in rows for name in row})


def posts(*authors: str) -> pa.Table:
    return pa.table({"author": pa.array(authors, pa.string())})


@pytest.fixture(params=["people.parquet", "people.jsonl", "people"])
def path(request, tmp_path) -> Path:
    return tmp_path / request.param


def test_the_authors_of_a_bucket_get_what_they_declared(path):
    found = table(path).infer(posts("bob", "ann", "bob", "dan"))
    assert found.schema == PROFILES
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("ann", "age", "20s", 1.0, 0, False, "declared"),
        ("ann", "home", "Osaka", 1.0, 0, False, "distant"),
        ("bob", "gender", "male", 1.0, 0, False, "declared"),
    ]
    assert DeclaredProfiles(path).infer(posts()).equals(PROFILES.empty_table())


def test_there_need_be_no_origin(path):
    found = table(path, [{name: row[name] for name in ("user", "attribute", "value")} for row in ROWS])
    assert set(found.infer(posts("ann", "bob", "eve"))["origin"].to_pylist()) == {"declared"}


def test_two_values_of_one_attribute_are_refused(path):
    source = table(path, [*ROWS, {"user": "ann", "attribute": "age", "value": "30s"}])
    with pytest.raises(ValueError, match="people.* has age of 'ann' more than once"):
        source.infer(posts("ann"))
    assert len(source.infer(posts("bob"))) == 1


def test_the_fingerprint_is_of_the_content(path, tmp_path):
    before = table(path).fingerprint()
    assert DeclaredProfiles(path).fingerprint() == before
    (tmp_path / "other").mkdir()
    assert table(tmp_path / "other" / path.name, ROWS[:3]).fingerprint() != before


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no declared profiles in .*none\.parquet"):
        DeclaredProfiles(tmp_path / "none.parquet").check()
    with pytest.raises(ValueError, match=r"lacks the columns \['value'\]; it has \['user', 'attribute'\]"):
        table(tmp_path / "short.parquet", [{"user": "ann", "attribute": "age"}]).check()
    (tmp_path / "broken.parquet").write_text("user,attribute,value\n")
    with pytest.raises(ValueError, match=r"broken\.parquet is neither Parquet nor \.jsonl, or is damaged"):
        DeclaredProfiles(tmp_path / "broken.parquet").check()
    (tmp_path / "cut.jsonl").write_text('{"user": "ann", "attribute": "age", "value": "20s"}\n{"user": "b')
    with pytest.raises(ValueError, match=r"cut\.jsonl, line 2: got 'Unterminated string"):
        DeclaredProfiles(tmp_path / "cut.jsonl").infer(posts("ann"))
    lists = table(tmp_path / "lists.jsonl", [{"user": "ann", "attributes": {"age": "20s"}}])
    with pytest.raises(ValueError, match=r"lists\.jsonl, line 1: got no key attribute, expected a string"):
        lists.check()
