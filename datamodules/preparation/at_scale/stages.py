"""The stages of a preparation from posts: each is a task that reads files, writes files and returns its counts.

    stage           a task is            it writes
    clean_posts     a unit of input      posts/              cleaned, for their authors
    clean_authors   a bucket of authors  authors/, sample/   without near-duplicates and bots; texts for the tokenizer
    tokenise        a bucket of authors  by_id/, replies/    ids for texts: all posts, and again those that answer one
    join            a bucket of posts    edges/              a post and the one it answers, for the two people
    chain           a bucket of twos     pairs/, held_out/   rows of a shard, for their part; held-out responses
    write_shard     a part of a split    the part
    infer_profiles  a bucket of authors  profiles/           from posts that are no held-out responses

A task that is run twice writes the same files, so that an engine may repeat it and a killed run resumes.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artefacts.files import replacing
from artefacts.layout import TOKENIZER
from datamodules.corpora.posts.authors import clean_authors as clean_authors_of
from datamodules.corpora.posts.reader import POSTS, Posts, Unit
from datamodules.corpora.records import Reasons
from datamodules.preparation.shards import ROWS_PER_GROUP, part_name, schema, write_part
from datamodules.preparation.splits import PRETRAIN_SPLITS
from datamodules.preparation.tokenizer import fast_encoder, load_tokenizer, tokenizer_fingerprint

from .reply_threads import edge_columns, first_of_each, join_replies, people_hash, reply_rows, token_columns
from .shuffle import ShuffleWriter, hash_strings, read_bucket, share_of, shuffle_file

SAMPLE_SEED, SPLIT_SEED = 2, 3
TEXTS_AT_ONCE = 20_000
HELD_OUT = pa.schema({"author": pa.string(), "id": pa.string()})


@dataclass(frozen=True)
class Job:
    """What every task knows; `num_buckets` is of each shuffle, `held_out_share` and `seed` are of the dialogues."""

    posts: Posts
    opted_out: frozenset[str]
    directory: Path
    num_buckets: int
    max_context_turns: int
    max_turn_tokens: int
    held_out_share: float
    seed: int

    def writer(
        self, name: str, task: int, columns: pa.Schema, num_buckets: int | None = None
    ) -> AbstractContextManager[ShuffleWriter]:
        return shuffle_file(self.directory / name / f"{task:06d}.arrow", columns, num_buckets or self.num_buckets)

    def read(self, name: str, bucket: int, columns: pa.Schema) -> pa.Table:
        """One bucket of what a stage has written."""
        return read_bucket(sorted((self.directory / name).glob("*.arrow")), bucket, self.num_buckets, columns)

    def bucket_of(self, column: pa.ChunkedArray) -> np.ndarray:
        """(rows,) the bucket of each string."""
        return share_of(hash_strings(column), self.num_buckets)

    @property
    def tokenizer(self) -> Path:
        return self.directory / TOKENIZER

    def authors(self, bucket: int) -> pa.Table:
        """The cleaned posts of a bucket of authors."""
        return read_bucket([self.directory / "authors" / f"{bucket:06d}.arrow"], 0, 1, POSTS)


@dataclass(frozen=True)
class Parts:
    """Into how many parts each of the two splits is cut: known before there are pairs, from the number of edges."""

    train: int
    validation: int

    def of(self, pair_id: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        """(rows,) the part of each pair: those of training first. Parts in order are pair ids in order."""
        upper = pair_id.astype(np.uint64) << np.uint64(1)
        return np.where(held_out, self.train + share_of(upper, self.validation), share_of(upper, self.train))

    def path(self, part: int) -> tuple[str, int]:
        """Split and number within the split."""
        return (PRETRAIN_SPLITS[0], part) if part < self.train else (PRETRAIN_SPLITS[1], part - self.train)

    def __len__(self) -> int:
        return self.train + self.validation


def clean_posts(job: Job, task: tuple[int, Unit]) -> dict[str, Any]:
    """Reads and cleans one unit of input."""
    number, unit = task
    kept, num_respelled, matched, drops = 0, 0, set(), Reasons()
    with job.writer("posts", number, POSTS) as writer:
        for block, reasons in job.posts.read(unit, job.opted_out):
            for reason, count in reasons.items():
                drops.add(reason, count, reasons.examples[reason])
            num_respelled += reasons.num_respelled
            matched |= reasons.opted_out
            kept += block.num_rows
            writer.write(block, job.bucket_of(block["author"]))
    opted_out = [number for number, id in enumerate(sorted(job.opted_out)) if id in matched]  # no names in results
    return {
        "posts": kept,
        "respelled": num_respelled,
        "opted out": opted_out,
        "dropped": drops,
        "examples": drops.examples,
    }


def clean_authors(job: Job, sample_share: float, bucket: int) -> dict[str, Any]:
    """Looks at all posts of each author together, and takes a sample of texts for the tokenizer."""
    posts = job.read("posts", bucket, POSTS)
    key = pc.binary_join_element_wise(posts["author"], posts["id"], "\x1f")
    once = first_of_each(posts.append_column("key", key), "key", ["time", "text"]).select(POSTS.names)
    kept, drops = clean_authors_of(once, job.posts.authors)
    with job.writer("authors", bucket, POSTS, num_buckets=1) as writer:
        writer.write(kept, np.zeros(kept.num_rows, dtype=np.int64))
    chosen = hash_strings(kept["id"], SAMPLE_SEED)
    sample = kept.select(["id", "author", "text"]).append_column("hash", pa.array(chosen))
    _write(sample.filter(pa.array(_below(chosen, sample_share))), job.directory / "sample" / f"{bucket:06d}.parquet")
    drops = Counter({"post given twice": posts.num_rows - once.num_rows}) + drops
    return {"posts": kept.num_rows, "authors": len(pc.unique(kept["author"])), "dropped": drops}


def tokenise(job: Job, bucket: int) -> dict[str, Any]:
    """Puts ids in the place of texts, once for each post, and sends posts to where they may be answered and answer."""
    posts = job.authors(bucket)
    columns, encode = token_columns(_vocabulary_size(job.tokenizer)), _encoder(job.tokenizer)
    counts = {"posts": posts.num_rows, "turns cut": 0}
    with (
        job.writer("by_id", bucket, _without(columns, "in_reply_to")) as by_id,
        job.writer("replies", bucket, columns) as answers,
    ):
        for start in range(0, posts.num_rows, TEXTS_AT_ONCE):
            block = posts.slice(start, TEXTS_AT_ONCE)
            ids = encode(block["text"].to_pylist())
            counts["turns cut"] += sum(len(one) > job.max_turn_tokens for one in ids)
            column = pa.array([one[: job.max_turn_tokens] for one in ids], columns.field("ids").type)
            block = block.drop_columns("text").append_column("ids", column)
            by_id.write(block, job.bucket_of(block["id"]))
            block = block.filter(pc.is_valid(block["in_reply_to"]))
            answers.write(block, job.bucket_of(block["in_reply_to"]))
    return counts


def join(job: Job, bucket: int) -> dict[str, Any]:
    """Puts replies beside the posts that they answer."""
    columns = token_columns(_vocabulary_size(job.tokenizer))
    posts = job.read("by_id", bucket, _without(columns, "in_reply_to"))
    replies = job.read("replies", bucket, columns)
    edges, drops = join_replies(posts, replies)
    with job.writer("edges", bucket, edge_columns(_vocabulary_size(job.tokenizer))) as writer:
        writer.write(edges, share_of(people_hash(edges), job.num_buckets))
    return {"replies": replies.num_rows, "edges": edges.num_rows, "dropped": drops}


def chain(job: Job, parts: Parts, bucket: int) -> dict[str, Any]:
    """Finds the context of each reply; sends pairs to their part, and held-out responses to their authors."""
    edges = job.read("edges", bucket, edge_columns(_vocabulary_size(job.tokenizer)))
    rows, drops = reply_rows(edges, job.max_context_turns)
    held_out = _below(hash_strings(rows["dialogue_id"], SPLIT_SEED + job.seed), job.held_out_share)
    with job.writer("pairs", bucket, _shard_columns(job.tokenizer), len(parts)) as writer:
        writer.write(rows, parts.of(rows["pair_id"].to_numpy(), held_out))
    with job.writer("held_out", bucket, HELD_OUT) as writer:
        few = rows.filter(pa.array(held_out)).select(["speaker", "response"]).rename_columns(HELD_OUT.names)
        writer.write(few, job.bucket_of(few["author"]))
    people = people_hash(rows.rename_columns({"speaker": "author", "partner": "parent_author"}))
    num_dialogues = len(np.unique(hash_strings(rows["dialogue_id"]) ^ people))
    return {"pairs": rows.num_rows, "dialogues": num_dialogues, "dropped": drops}


def write_shard(directory: Path, parts: Parts, part: int) -> dict[str, Any]:
    """Writes one part of a split from `pairs/` of a preparation, in the order of pair ids."""
    split, number = parts.path(part)
    columns = _shard_columns(directory / TOKENIZER)
    rows = read_bucket(sorted((directory / "pairs").glob("*.arrow")), part, len(parts), columns)
    once = first_of_each(rows, "pair_id", ["time", "speaker", "dialogue_id"])
    once = once.take(pa.array(np.argsort(once["pair_id"].to_numpy(), kind="stable")))
    groups = (once.slice(start, ROWS_PER_GROUP) for start in range(0, once.num_rows, ROWS_PER_GROUP))
    drops = Counter({"post with another author's id": rows.num_rows - once.num_rows})
    part = write_part(groups, directory / split / part_name(number), columns)
    return {"split": split, "part": part, "dropped": +drops}


def infer_profiles(job: Job, bucket: int) -> dict[str, Any]:
    """Profiles of the authors of a bucket, from their posts without the responses that are held out."""
    posts = job.authors(bucket)
    held_out = job.read("held_out", bucket, HELD_OUT)
    names = pc.binary_join_element_wise(posts["author"], posts["id"], "\x1f")
    hidden = pc.binary_join_element_wise(held_out["author"], held_out["id"], "\x1f")
    evidence = posts.filter(pc.invert(pc.is_in(names, value_set=hidden.combine_chunks())))
    # The posts that were answered are in other buckets: patterns about them never match here.
    profiles = job.posts.profiles.infer(evidence.append_column("answered", pa.nulls(evidence.num_rows, pa.string())))
    _write(profiles, job.directory / "profiles" / f"{bucket:06d}.parquet")
    return {"posts": evidence.num_rows, "hidden": posts.num_rows - evidence.num_rows, "attributes": profiles.num_rows}


def _below(hashes: np.ndarray, share: float) -> np.ndarray:
    return hashes.astype(np.float64) < share * 2.0**64


def _write(table: pa.Table, path: Path) -> None:
    with replacing(path) as partial:
        pq.write_table(table, partial)


def _without(columns: pa.Schema, name: str) -> pa.Schema:
    return columns.remove(columns.get_field_index(name))


@cache
def _vocabulary_size(tokenizer: Path) -> int:
    return load_tokenizer(tokenizer).get_vocab_size()


_encoder = cache(fast_encoder)


def _shard_columns(tokenizer: Path) -> pa.Schema:
    return schema(_vocabulary_size(tokenizer), tokenizer_fingerprint(tokenizer))
