"""Near-duplicates and bot-like authors, by hand; and against a slow and simple way of the same rules."""

import random
import re
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from datamodules.corpora import POSTS
from datamodules.corpora.posts.authors import AuthorRules, clean_authors

START = datetime(2024, 5, 1, tzinfo=UTC)
ALL = AuthorRules(min_duplicate_characters=1, max_posts_per_day=None, max_duplicate_share=None)


def table(rows):
    """Posts of (id, author, text, hours after START)."""
    *columns, hours = zip(*rows, strict=True)
    times = [None if number is None else START + timedelta(hours=number) for number in hours]
    return pa.table([*columns, times, [None] * len(rows)], POSTS)


def ids(posts):
    return posts["id"].to_pylist()


def test_near_duplicates_by_hand():
    rows = [
        ("9", "a", "Day 1: good MORNING!! [url]", 0),
        ("1", "a", "day 2 - good morning [url] [user]", 1),
        ("2", "a", "good morning everyone", 2),
        ("3", "b", "good morning day", 3),
        ("4", "b", "おはよう、今日は12日。", 5),
        ("5", "b", "おはよう 今日は１３日", 4),
        ("6", "b", "good morning 😂", 6),
        ("7", "b", "good morning 🎉", 7),
        ("8", "c", "123", 1),
        ("88", "c", "456!", 2),
    ]
    found, counts = clean_authors(table(rows), ALL)
    assert ids(found) == ["9", "2", "3", "5", "6", "7", "8", "88"]
    assert counts == {"near-duplicate": 2}
    assert found.schema == POSTS
    assert clean_authors(table(rows), AuthorRules(drop_near_duplicates=False))[0].num_rows == len(rows)


def test_the_earliest_by_time_and_id_is_kept():
    rows = [("b", "a", "hello", 1), ("a", "a", "hello", 1), ("0", "a", "hello", None), ("1", "b", "hi", None)]
    found, counts = clean_authors(table([*rows, ("00", "b", "hi", None)]), ALL)
    assert (ids(found), counts) == (["a", "00"], {"near-duplicate": 3})


def test_short_answers_may_be_said_again():
    rows = [(str(n), "a", text, n) for n, text in enumerate(["thanks!", "Thanks", "so much snow", "so much snow 2"])]
    rules = AuthorRules(min_duplicate_characters=10)
    found, counts = clean_authors(table(rows), rules)  # "somuchsnow" has 10 characters, "thanks" 6
    assert (ids(found), counts) == (["0", "1", "2"], {"near-duplicate": 1})


def test_authors_who_write_too_often_go_whole():
    """48 posts in 23.5 hours count as a day: 48 a day. 49 posts over two days: 24.5 a day."""
    fast = [(f"f{n}", "fast", f"post {'x' * (n + 1)}", n / 2) for n in range(48)]
    slow = [(f"s{n}", "slow", f"post {'x' * (n + 1)}", n) for n in range(49)]
    few = [(f"t{n}", "few", f"post {'x' * (n + 1)}", 0) for n in range(19)]
    timeless = [(f"u{n}", "timeless", f"post {'x' * (n + 1)}", None) for n in range(100)]
    everybody = table(fast + slow + few + timeless)
    assert clean_authors(everybody, AuthorRules(max_posts_per_day=48))[1] == {}
    found, counts = clean_authors(everybody, AuthorRules(max_posts_per_day=47.9))
    assert counts == {"bot-like by rate": 48, "authors bot-like by rate": 1}
    assert set(found["author"].to_pylist()) == {"slow", "few", "timeless"} and found.num_rows == 168
    assert clean_authors(everybody, AuthorRules(max_posts_per_day=18, min_posts=19))[1] == {
        "bot-like by rate": 48 + 49 + 19,
        "authors bot-like by rate": 3,
    }


def test_authors_who_repeat_themselves_go_whole():
    """Of 20 posts 10 repeat an earlier one: half. With one more it is more than half."""
    different = [(f"d{n}", "a", "different words " + "z" * n, n) for n in range(9)]
    same = [(f"s{n:02}", "a", f"buy my things {n}", 20 + n) for n in range(11)]
    assert clean_authors(table(different + same), AuthorRules())[1] == {"near-duplicate": 10}
    found, counts = clean_authors(table([*different, *same, ("x", "a", "BUY my things", 99)]), AuthorRules())
    assert found.num_rows == 0
    assert counts == {"bot-like by duplicates": 21, "authors bot-like by duplicates": 1}


def test_an_empty_bucket_is_empty():
    assert clean_authors(POSTS.empty_table(), AuthorRules()) == (POSTS.empty_table(), {})
    with pytest.raises(ValueError, match="min_posts must be 1 or more, got 0"):
        AuthorRules(min_posts=0)


def simple(rows, rules):
    """The rules post by post, for texts of a to z, digits and punctuation."""
    of_author = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row[3] is None, row[3] or 0, row[0], row[2])):
        of_author[row[1]].append(row)
    kept, counts = [], Counter()
    for author in sorted(of_author):
        posts, seen, new = of_author[author], set(), []
        for row in posts:
            key = re.sub("[^a-z]", "", row[2].lower())
            if key not in seen or len(key) < rules.min_duplicate_characters:
                new.append(row)
            seen.add(key)
        hours = [row[3] for row in posts if row[3] is not None]
        rate = len(hours) / max((max(hours) - min(hours)) / 24, 1) if hours else 0
        if len(posts) >= rules.min_posts and rate > rules.max_posts_per_day:
            counts.update({"bot-like by rate": len(posts), "authors bot-like by rate": 1})
        elif len(posts) >= rules.min_posts and (len(posts) - len(new)) / len(posts) > rules.max_duplicate_share:
            counts.update({"bot-like by duplicates": len(posts), "authors bot-like by duplicates": 1})
        else:
            kept += new
            counts["near-duplicate"] += len(posts) - len(new)
    return [row[0] for row in kept], {reason: count for reason, count in counts.items() if count}


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_simple_way_in_any_order(seed):
    rng = random.Random(seed)
    rules = AuthorRules(min_duplicate_characters=3, max_posts_per_day=6, max_duplicate_share=0.4, min_posts=8)
    words = ["Yes", "no!", "hello", "Hello 2", "ok...", "really"]
    rows = []
    for author in "abcdefgh":
        span, vocabulary = rng.choice([20, 60, 200]), words[: rng.randrange(2, 7)]
        for _ in range(rng.randrange(30)):
            text = " ".join(rng.choices(vocabulary, k=rng.randrange(1, 4)))
            rows.append((str(len(rows)), author, text, rng.choice([None, *([rng.randrange(span)] * 9)])))
    expected = simple(rows, rules)
    for _ in range(3):
        rng.shuffle(rows)
        found, counts = clean_authors(table(rows), rules)
        assert (ids(found), counts) == expected
    half = len(rows) // 2
    chunks = pa.concat_tables([table(rows[:half]), table(rows[half:])])
    assert clean_authors(chunks, rules)[0].equals(found)
    assert expected[1]


def test_an_author_with_very_many_posts_takes_linear_time():
    def seconds(num_posts):
        rows = [(str(n), "a", f"w{'abcdefghij'[n % 10]}" * (n % 97 + 1), n / 3600) for n in range(num_posts)]
        posts, begin = table(rows), time.perf_counter()
        clean_authors(posts, AuthorRules(max_posts_per_day=None, max_duplicate_share=None))
        return time.perf_counter() - begin

    assert min(seconds(40_000) for _ in range(2)) < 25 * min(seconds(4_000) for _ in range(2)) + 0.2
