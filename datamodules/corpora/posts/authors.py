"""What only all posts of an author show: near-duplicates, and people who are more like machines.

Two posts of one author are near-duplicates if the same is left of their texts in lower case, without digits,
punctuation, white space, mathematical signs and placeholders. Emoji and letters are what counts. Of these the earliest
by (time, id) is kept; a post without a time is later than all others. Short answers (`thanks!`) are repeated by
every author: below `min_duplicate_characters` of what is left, nothing is a duplicate.

An author is bot-like if they have at least `min_posts` posts and write too often, or too often the same. Then all of
their posts are dropped, duplicates or not, under one reason. Whether the paper dropped any is not stated.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artefacts.ranges import AT_LEAST_1, POSITIVE, SHARE, require

from .cleaning import ANY_PLACEHOLDER
from .raw_posts import POSTS

NOT_COUNTED = r"[\p{N}\p{P}\p{Z}\p{C}\p{Sm}\p{Sc}\p{Sk}]+"
MS_PER_DAY = 86_400_000
NEAR_DUPLICATE, BY_RATE, BY_DUPLICATES = "near-duplicate", "bot-like by rate", "bot-like by duplicates"
AUTHORS = "authors "  # before a reason: a count of people, not of posts


@dataclass(frozen=True)
class AuthorRules:
    """When posts of one author are the same, and when an author is no person. Not stated in the paper.

    Args:
        drop_near_duplicates: keeps the earliest of near-duplicates only; otherwise all.
        min_duplicate_characters: characters that must be left of a text for it to be a duplicate of another.
        max_posts_per_day: posts per day over the active span, from an author's first post to the last, which is taken
            as one day at least; above it they are bot-like. Posts without a time do not count. Null: no such rule.
        max_duplicate_share: share of an author's posts that are near-duplicates of earlier ones; above it they are
            bot-like. Null: no such rule.
        min_posts: authors with fewer posts are never bot-like.
    """

    drop_near_duplicates: bool = True
    min_duplicate_characters: int = 10
    max_posts_per_day: float | None = 150.0
    max_duplicate_share: float | None = 0.5
    min_posts: int = 20

    def __post_init__(self) -> None:
        require(
            vars(self),
            min_duplicate_characters=AT_LEAST_1,
            max_posts_per_day=POSITIVE.or_none(),
            max_duplicate_share=SHARE.or_none(),
            min_posts=AT_LEAST_1,
        )


def clean_authors(posts: pa.Table, rules: AuthorRules) -> tuple[pa.Table, Counter[str]]:
    """Drops near-duplicates and bot-like authors from a table of `POSTS` with all posts of its authors, in any order.

    Returns:
        The posts that are kept, by author, time, id and text; and counts: of posts, each under one reason, and, where
        the reason begins with `authors `, of bot-like people.
    """
    # Text and in_reply_to decide between posts with the same id: no order is left open.
    order = [(name, "ascending") for name in ("author", "time", "id", "text", "in_reply_to")]
    posts = posts.select(POSTS.names).sort_by(order)
    counts: Counter[str] = Counter()
    if not posts.num_rows:
        return posts, counts
    author = _codes(posts["author"])
    is_duplicate = _near_duplicates(posts["text"], author, rules.min_duplicate_characters)
    num_posts = np.bincount(author)
    enough = num_posts >= rules.min_posts
    dropped = np.zeros(len(num_posts), bool)  # (authors,)
    if rules.max_posts_per_day is not None:
        by_rate = enough & (_posts_per_day(posts) > rules.max_posts_per_day)
        _count(counts, BY_RATE, by_rate, num_posts)
        dropped |= by_rate
    if rules.max_duplicate_share is not None:
        share = np.bincount(author, is_duplicate) / num_posts
        by_duplicates = enough & (share > rules.max_duplicate_share) & ~dropped
        _count(counts, BY_DUPLICATES, by_duplicates, num_posts)
        dropped |= by_duplicates
    kept = ~dropped[author]
    if rules.drop_near_duplicates:
        counts[NEAR_DUPLICATE] = int((is_duplicate & kept).sum())
        kept &= ~is_duplicate
    return posts.filter(pa.array(kept)), +counts


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    """A number for each different string, in order of its first occurrence."""
    return values.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _near_duplicates(text: pa.ChunkedArray, author: np.ndarray, min_characters: int) -> np.ndarray:
    """Which posts say the same as an earlier one of their author; posts are in order."""
    key = pc.replace_substring_regex(pc.utf8_lower(text), ANY_PLACEHOLDER, "")
    key = pc.replace_substring_regex(key, NOT_COUNTED, "")
    long = pc.greater_equal(pc.utf8_length(key), min_characters).to_numpy()
    key_code = _codes(key)
    pair = author * (key_code.max() + 1) + key_code
    _, first = np.unique(pair, return_index=True)
    is_duplicate = np.ones(len(pair), bool)
    is_duplicate[first] = False
    return is_duplicate & long


def _posts_per_day(posts: pa.Table) -> np.ndarray:
    """(authors,) posts per day from an author's first post to the last; 0 where no post has a time."""
    times = pa.table({"author": posts["author"], "time": posts["time"].cast(pa.int64())})
    found = times.group_by("author", use_threads=False).aggregate([("time", name) for name in ("count", "min", "max")])
    days = pc.subtract(found["time_max"], found["time_min"]).fill_null(0).to_numpy() / MS_PER_DAY
    return found["time_count"].to_numpy() / np.maximum(days, 1.0)


def _count(counts: Counter[str], reason: str, authors: np.ndarray, num_posts: np.ndarray) -> None:
    counts[reason] = int(num_posts[authors].sum())
    counts[AUTHORS + reason] = int(authors.sum())
