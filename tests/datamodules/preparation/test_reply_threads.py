"""Replies joined to what they answer, and chains of two people: held against a walk through dictionaries."""

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from datamodules.preparation.at_scale.reply_threads import (
    PAIR_ID_SEED,
    edge_columns,
    first_of_each,
    join_replies,
    list_column,
    reply_rows,
    token_columns,
)
from datamodules.preparation.at_scale.shuffle import hash_strings

COLUMNS = token_columns(1000)
START = datetime(2026, 1, 1, tzinfo=UTC)


def posts(*rows):
    """(id, author, minute, ids, in_reply_to)"""
    ids, authors, minutes, *others = zip(*rows, strict=True)
    times = [None if minute is None else START + timedelta(minutes=minute) for minute in minutes]
    return pa.table([ids, authors, times, *others], schema=COLUMNS)


def edges_of(table):
    replies = table.filter(pa.array([to is not None for to in table["in_reply_to"].to_pylist()]))
    return join_replies(table.drop_columns("in_reply_to"), replies)


def by_response(rows):
    return {row["response"]: row for row in rows.to_pylist()}


def test_two_people_take_turns():
    table = posts(
        ("1", "ann", 0, [10, 11], None),
        ("2", "ben", 1, [20], "1"),
        ("3", "ann", 2, [30], "2"),
        ("4", "ben", 3, [40, 41, 42], "3"),
    )
    edges, drops = edges_of(table)
    assert not drops
    rows, drops = reply_rows(edges, max_context_turns=2)
    assert not drops
    last = by_response(rows)["4"]
    assert last["dialogue_id"] == "1"
    assert last["position"] == 3
    assert (last["speaker"], last["partner"]) == ("ben", "ann")
    assert last["context_ids"] == [20, 30]  # two turns are kept, the older one first
    assert last["context_lengths"] == [1, 1]
    assert last["context_speakers"] == [0, 1]  # ben's own, ann's
    assert last["response_ids"] == [40, 41, 42]
    assert last["pair_id"] == int(hash_strings(pa.array(["4"]), PAIR_ID_SEED)[0] >> np.uint64(1))
    first = by_response(rows)["2"]
    assert (first["position"], first["context_ids"], first["context_lengths"]) == (1, [10, 11], [2])


def test_a_third_person_ends_the_context():
    table = posts(
        ("1", "ann", 0, [1], None), ("2", "ben", 1, [2], "1"), ("3", "cat", 2, [3], "2"), ("4", "ben", 3, [4], "3")
    )
    rows, _ = reply_rows(edges_of(table)[0], max_context_turns=4)
    found = by_response(rows)
    assert (found["3"]["dialogue_id"], found["3"]["context_ids"]) == ("2", [2])
    assert (found["4"]["dialogue_id"], found["4"]["context_ids"], found["4"]["position"]) == ("2", [2, 3], 2)


def test_replies_that_make_no_edge_are_counted():
    table = posts(
        ("1", "ann", 5, [1], None),
        ("2", "ann", 6, [2], "1"),  # to herself
        ("3", "ben", 4, [3], "1"),  # before it
        ("4", "ben", 7, [4], "nowhere"),
        ("5", "ben", 7, [5], "5"),  # to itself
        ("6", "ben", None, [6], "1"),  # at an unknown time
    )
    edges, drops = edges_of(table)
    assert edges["id"].to_pylist() == ["6"]
    assert drops == {"reply to oneself": 2, "reply before what it answers": 1, "reply to a post that is not there": 1}


def test_of_an_id_used_twice_the_earlier_post_is_answered():
    table = posts(("1", "ann", 3, [1], None), ("1", "cat", 2, [9], None), ("2", "ben", 4, [2], "1"))
    edges, drops = edges_of(table)
    assert edges.to_pylist()[0]["parent_author"] == "cat"
    assert drops == {"post with another author's id": 1}


def test_replies_in_a_circle_are_counted():
    table = posts(
        ("1", "ann", None, [1], "2"),
        ("2", "ben", None, [2], "1"),
        ("3", "ann", None, [3], "2"),  # hangs on the circle
        ("4", "cat", None, [4], None),
        ("5", "dan", None, [5], "4"),
    )
    rows, drops = reply_rows(edges_of(table)[0], max_context_turns=4)
    assert rows["response"].to_pylist() == ["5"]
    assert drops == {"replies in a circle": 3}


def test_an_empty_bucket():
    edges, drops = join_replies(COLUMNS.empty_table().drop_columns("in_reply_to"), COLUMNS.empty_table())
    assert not drops
    rows, drops = reply_rows(edges.cast(edge_columns(1000)), max_context_turns=4)
    assert rows.num_rows == 0


def walk(table, most):
    """What `join_replies` and `reply_rows` give, by following ids one by one."""
    at = {row["id"]: row for row in table.to_pylist()}
    found = {}
    for row in at.values():
        parent = at.get(row["in_reply_to"])
        if parent is None or parent["author"] == row["author"] or parent["time"] > row["time"]:
            continue
        turns, here = [], row
        while True:
            above = at.get(here["in_reply_to"])
            ends = above is None or above["author"] not in (row["author"], parent["author"])
            if ends or above["author"] == here["author"] or above["time"] > here["time"]:
                break
            turns.append(above)
            here = above
        kept = turns[:most][::-1]
        found[row["id"]] = {
            "dialogue_id": turns[-1]["id"],
            "position": len(turns),
            "context_ids": [id for turn in kept for id in turn["ids"]],
            "context_lengths": [len(turn["ids"]) for turn in kept],
            "context_speakers": [int(turn["author"] != row["author"]) for turn in kept],
            "response_ids": row["ids"],
        }
    return found


@pytest.mark.parametrize("seed", range(5))
def test_random_threads(seed):
    draw = random.Random(seed)
    rows, authors = [], []
    for number in range(400):
        to = None if draw.random() < 0.05 else draw.choice([number - 1, number - 1, number - 2, number + 1])
        alternating = "ba"[authors[to] == "b"] if to is not None and 0 <= to < number else "a"
        authors.append(alternating if draw.random() < 0.9 else "c")
        minute = number + draw.choice([0, 0, 0, 0, 0, 0, -3])
        answered = None if to is None else str(to)
        rows.append((str(number), authors[-1], minute, [number] * draw.randint(1, 3), answered))
    draw.shuffle(rows)
    table = posts(*rows)
    found, _ = reply_rows(edges_of(table)[0], max_context_turns=4)
    expected = walk(table, 4)
    assert len(expected) > 50
    assert max(row["position"] for row in expected.values()) > 4  # longer than any context
    got = by_response(found)
    assert got.keys() == expected.keys()
    for id, row in expected.items():
        assert {name: got[id][name] for name in row} == row


def test_first_of_each_leaves_what_nobody_shares():
    table = pa.table({"key": ["b", "a", "b", "c"], "time": [2, 1, 1, 0]})
    assert sorted(first_of_each(table, "key", ["time"]).to_pylist(), key=lambda row: row["key"]) == [
        {"key": "a", "time": 1},
        {"key": "b", "time": 1},
        {"key": "c", "time": 0},
    ]


def test_a_list_column():
    assert list_column(np.array([0, 2]), np.array([7, 8]), pa.uint8()).to_pylist() == [[], [7, 8]]
