"""A synthetic social network as a file of posts, with all that is planted in it counted.

    python -m benchmarks.synthetic_network.network --posts 2000000 --output <directory> ...
        [--files 8] [--seed 0] [--format jsonl.zst]

Out: `posts-*.jsonl` (or the format asked for) with `id, author, text, time, in_reply_to`; `truth.parquet` with `user,
attribute, value` of all who are not bots; `counts.json`, against which a preparation can be checked.

Posts come in units of 4,096, and a unit has 4,096 lanes, each post in one of them, in an order drawn anew. A lane is a
place where a conversation can go on: a post of a lane answers the post that the same lane has in the unit before, or
begins something new. So a chain of two people is a path through the units; other replies branch off any post of the
unit before, most of them off what somebody heard by many has begun. Nothing older is looked at: memory grows with the
number of people only. A unit is drawn from (seed, number of the unit) and the unit before it: how the output is cut
into files changes nothing.

    activity    posts of a person: a power law with exponent 1.1, from one to 1,000 times the least
    audience    how often a person's posts are branched off and reposted: a power law with exponent 1.2
    ties        whom a person hears from: few others, again and again, by a hash of both
    bots        each writes all of its posts, three texts in small variations, in a part of the time of its own

Reposts, near-duplicates and posts of bots get no replies, so that a preparation that drops them loses no pair.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artefacts.files import replacing_directory
from benchmarks.synthetic_network.people import People, Settings, pick
from benchmarks.synthetic_network.texts import Writing

UNIT = 4096
FIRST_ID = 10**12  # ids below are of posts that are not in the data
START, SPAN = 1_700_000_000_000, 90 * 86_400_000  # ms since 1970; ms from the first post to the last
OWN, REPLY, REPOST, DUPLICATE, BOT = range(5)  # kinds of posts
SHARES = {"bot": 0.03, "repost": 0.05, "duplicate": 0.03, "orphan": 0.02, "branch": 0.12}  # the rest follow the lanes
BEGINS, GOES_ON, STAYS = 0.5, 0.8, 0.9  # a lane's post is answered; a reply is; the answer comes from the same two
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "author", "text")),
        ("time", pa.timestamp("ms", "UTC")),
        ("in_reply_to", pa.string()),
    ]
)
BROKEN = {
    "cut off": b'{"id": "1", "author": "u1", "te\n',
    "wrong encoding": b'{"id": "2", "author": "u1", "text": "caf\xe9", "time": null, "in_reply_to": null}\n',
    "no object": b'["3", "u1", "text"]\n',
    "no author": b'{"id": "4", "text": "hello", "time": null, "in_reply_to": null}\n',
}
FORMATS = {"jsonl": None, "jsonl.gz": "gzip", "jsonl.zst": "zstd", "parquet": None}


@dataclass
class Unit:
    """What the next unit and the counts need to know of 4,096 posts; arrays are (posts,), -1 stands for none."""

    kind: np.ndarray
    author: np.ndarray
    partner: np.ndarray  # author of the post that is answered
    parent: np.ndarray  # position of the post that is answered, in the unit before
    turns: np.ndarray  # turns of context before a reply, by its author and the partner in turn
    orphan: np.ndarray  # answers a post that is not in the data
    source: np.ndarray  # position of the post that is repeated, in the unit before
    lane: np.ndarray
    text: pa.StringArray | None = None

    @property
    def is_open(self) -> np.ndarray:
        """Whether a post can be answered."""
        return self.kind <= REPLY


def nothing() -> Unit:
    """Before the first unit: posts that cannot be answered or repeated."""
    none, zeros = np.full(UNIT, -1), np.zeros(UNIT, dtype=np.int64)
    return Unit(zeros + BOT, zeros, none, none, zeros, zeros > 0, none, np.arange(UNIT))


def draw_unit(rng: np.random.Generator, people: People, bot: int, before: Unit) -> Unit:
    """Who writes what kind of post to whom."""
    lane = rng.permutation(UNIT)
    drawn = np.searchsorted(np.cumsum(list(SHARES.values())), rng.random(UNIT), side="right")
    is_bot, repost, duplicate, orphan, branch, along = (drawn == number for number in range(6))
    if not before.is_open.any():  # the first unit
        repost = duplicate = branch = np.zeros(UNIT, dtype=bool)
    parent = np.empty(UNIT, dtype=np.int64)
    parent[before.lane] = np.arange(UNIT)
    parent = parent[lane]
    along &= before.is_open[parent] & (rng.random(UNIT) < np.where(before.kind[parent] == REPLY, GOES_ON, BEGINS))
    parent[~along] = -1
    audience = people.audience[before.author.clip(max=people.num - 1)]
    heard = np.where(before.kind == OWN, audience, 1)  # for replies as well, who is heard would soon write everything
    parent[branch] = pick(rng, heard * before.is_open, branch.sum()) if branch.any() else -1
    source = np.full(UNIT, -1)
    if repost.any() or duplicate.any():
        source[repost] = pick(rng, audience * (before.kind == OWN), repost.sum())
        source[duplicate] = pick(rng, (before.kind == OWN).astype(float), duplicate.sum())
    author = people.draw(rng.random(UNIT))
    author[is_bot] = people.num + bot
    author[duplicate] = before.author[source[duplicate]]
    replies = along | branch
    partner = np.where(replies, before.author[parent], -1)
    third = before.partner[parent]  # the author's own words, if the two go back and forth
    stays = along & (third >= 0) & (rng.random(UNIT) < STAYS)
    author[replies] = people.who_answers(rng, partner[replies])
    author[stays] = third[stays]
    turns = np.where(replies, 1 + np.where(third == author, before.turns[parent], 0), 0)
    kind = np.select([is_bot, repost, duplicate, replies | orphan], [BOT, REPOST, DUPLICATE, REPLY], OWN)
    return Unit(kind, author, partner, parent, turns, orphan, source, lane)


def where(mask: np.ndarray, texts: pa.Array) -> pa.Array:
    """The texts where the mask is set, else empty ones."""
    return pc.if_else(pa.array(mask), texts, "")


def write_texts(rng: np.random.Generator, people: People, writing: Writing, unit: Unit, before: Unit) -> pa.StringArray:
    """Texts of all kinds: one's own words with mentions and addresses, and what is repeated."""

    def joined(*parts: str | pa.Array) -> pa.Array:
        return pc.binary_join_element_wise(*parts, "")

    def numbers(largest: int) -> pa.Array:
        return pa.array(rng.integers(0, largest, UNIT)).cast(pa.string())

    texts = writing.write(rng, people.values[unit.author.clip(max=people.num - 1)])
    mention = (unit.partner >= 0) & (rng.random(UNIT) < 0.3)
    texts = joined(where(mention, joined("@u", pa.array(unit.partner).cast(pa.string()), " ")), texts)
    extra = rng.random(UNIT)
    texts = joined(
        texts,
        where(extra < 0.04, joined(" https://example.org/", numbers(10**6))),
        where((extra >= 0.04) & (extra < 0.045), joined(" mail me: someone", numbers(10**4), "@example.org")),
        where((extra >= 0.045) & (extra < 0.048), joined(" call 202-555-01", pa.array(["07", "42"] * (UNIT // 2)))),
    )
    is_bot, variant = unit.kind == BOT, numbers(3)
    told = joined("win a free prize now, offer ", variant, " of bot ", pa.array(unit.author).cast(pa.string()))
    texts = pc.if_else(pa.array(is_bot), joined(told, " https://spam.example/", numbers(10**6)), texts)
    if before.text is None:
        return texts
    source = pa.array(unit.source, mask=unit.source < 0)
    said, by = before.text.take(source), pa.array(before.author).take(source).cast(pa.string())
    word = writing.words.take(pa.array(writing.draw_words(rng, UNIT)))
    way = rng.random(UNIT)
    more = joined(where((way >= 0.5) & (way < 0.75), pa.repeat("!!", UNIT)), where(way >= 0.75, joined(" ", word)))
    texts = pc.if_else(pa.array(unit.kind == DUPLICATE), joined(said, more), texts)
    return pc.if_else(pa.array(unit.kind == REPOST), joined("RT @u", by, ": ", said), texts)


class Network:
    """Makes the posts, in blocks, and counts what it has planted; `blocks` can be gone through once."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.people, self.writing = settings, People(settings), Writing()
        self.counts: Counter[str] = Counter()
        self.posts_of = np.zeros(self.people.num + self.people.num_bots, dtype=np.int64)

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """Posts in order of time: the columns of `SCHEMA`, and `broken`, a line that follows (often empty)."""
        before, num_units = nothing(), -(-self.settings.posts // UNIT)
        for number in range(num_units):
            rng = np.random.default_rng([self.settings.seed, 1, number])
            unit = draw_unit(rng, self.people, number * self.people.num_bots // num_units, before)
            unit.text = write_texts(rng, self.people, self.writing, unit, before)
            size = min(UNIT, self.settings.posts - number * UNIT)
            block = self.block(rng, number * UNIT, unit).slice(0, size)
            self.count(unit, block)
            yield block
            before = unit

    def block(self, rng: np.random.Generator, first: int, unit: Unit) -> pa.RecordBatch:
        """A unit as records."""
        position = first + np.arange(UNIT)
        step = SPAN / self.settings.posts
        times = START + ((position + rng.random(UNIT)) * step).astype(np.int64)
        answered = np.where(unit.orphan, FIRST_ID - rng.integers(1, 10**9, UNIT), FIRST_ID + first - UNIT + unit.parent)
        broken = np.random.default_rng([self.settings.seed, 2, first])  # so that posts are the same with and without
        kind = np.where(broken.random(UNIT) < self.settings.broken, broken.integers(1, 1 + len(BROKEN), UNIT), 0)
        columns = [
            pa.array(FIRST_ID + position).cast(pa.string()),
            pc.binary_join_element_wise("u", pa.array(unit.author).cast(pa.string()), ""),
            unit.text,
            pa.array(times).cast(pa.timestamp("ms", "UTC")),
            pa.array(answered, mask=(unit.parent < 0) & ~unit.orphan).cast(pa.string()),
            pa.array([b"", *BROKEN.values()]).take(pa.array(kind)),
        ]
        return pa.record_batch(columns, [*SCHEMA.names, "broken"])

    def count(self, unit: Unit, block: pa.RecordBatch) -> None:
        """Adds a unit's posts, or the first of them, to the counts."""
        size = len(block)
        kind, turns = unit.kind[:size], unit.turns[:size]
        for name, code in {
            "own": OWN,
            "replies": REPLY,
            "reposts": REPOST,
            "duplicates": DUPLICATE,
            "bot": BOT,
        }.items():
            self.counts[name] += int((kind == code).sum())
        self.counts["missing_parents"] += int(unit.orphan[:size].sum())
        for number in range(1, 5):
            name = f"replies_with_{number}_turns" if number < 4 else "replies_with_4_turns_or_more"
            self.counts[name] += int((turns.clip(max=4) == number).sum())
        self.counts["with_url"] += pc.sum(pc.match_substring(block["text"], "https://")).as_py()
        self.counts["with_mention"] += pc.sum(pc.match_substring(block["text"], "@u")).as_py()
        self.counts["text_bytes"] += pc.sum(pc.binary_length(block["text"])).as_py()
        if self.settings.broken:
            for name, line in BROKEN.items():
                self.counts[f"broken: {name}"] += pc.sum(pc.equal(block["broken"], pa.scalar(line))).as_py()
        np.add.at(self.posts_of, unit.author[:size], 1)

    def summary(self) -> dict[str, object]:
        """Everything that was planted, for `counts.json`."""
        people = self.posts_of[: self.people.num]
        authors = {
            "authors": int((self.posts_of > 0).sum()),
            "bots": int((self.posts_of[self.people.num :] > 0).sum()),
            "busiest": f"u{people.argmax()}",
            "posts_of_busiest": int(people.max()),
            "people_with_150_posts": int((people >= 150).sum()),
        }
        return {"settings": asdict(self.settings), "posts": self.settings.posts, **self.counts, **authors}


def json_lines(block: pa.RecordBatch) -> pa.Buffer:
    """A block as lines of JSON, each with the broken line that follows it."""
    times = pc.binary_replace_slice(block["time"].cast(pa.timestamp("ms")).cast(pa.string()), 10, 11, "T")
    answered = pc.binary_join_element_wise('"', block["in_reply_to"], '"', "")
    lines = pc.binary_join_element_wise(
        '{"id": "',
        block["id"],
        '", "author": "',
        block["author"],
        '", "text": "',
        block["text"],
        '", "time": "',
        times,
        'Z", "in_reply_to": ',
        pc.fill_null(answered, "null"),
        "}\n",
        "",
    )
    pairs = pc.binary_join_element_wise(lines.cast(pa.binary()), block["broken"], b"")
    whole = pa.ListArray.from_arrays(pa.array([0, len(pairs)], pa.int32()), pairs)
    return pc.binary_join(whole, b"")[0].as_buffer()


def write(network: Network, directory: Path, num_files: int, kind: str) -> None:
    """Writes all posts, the same number in each file but for one."""
    bounds = [network.settings.posts * (number + 1) // num_files for number in range(num_files)]
    blocks, rest, done = network.blocks(), None, 0
    for number, bound in enumerate(bounds):
        path = directory / f"posts-{number:05d}.{kind}"
        with pa.output_stream(str(path), compression=FORMATS[kind]) as file:
            writer = pq.ParquetWriter(file, SCHEMA) if kind == "parquet" else None
            group: list[pa.RecordBatch] = []
            while done < bound:
                block = rest or next(blocks)
                part, rest = block.slice(0, bound - done), block.slice(bound - done) or None
                done += len(part)
                if writer is None:
                    file.write(json_lines(part))
                    continue
                group.append(part.select(SCHEMA.names))
                if len(group) == 16 or done == bound:
                    writer.write_table(pa.Table.from_batches(group))
                    group = []
            if writer:
                writer.close()


def generate(settings: Settings, output: Path, num_files: int = 8, kind: str = "jsonl") -> dict[str, object]:
    """Writes a network into a directory of its own and returns what was planted.

    Raises:
        ValueError: broken lines for Parquet, or a format that is not there.
        FileExistsError: the directory is there.
    """
    if kind not in FORMATS or num_files < 1 or (kind == "parquet" and settings.broken):
        raise ValueError(
            f"format {kind}, {num_files} files: take {list(FORMATS)}, one file or more; Parquet has no lines"
        )
    if output.exists():
        raise FileExistsError(f"{output} is there; take another directory or delete it")
    network = Network(settings)
    with replacing_directory(output) as partial:
        write(network, partial, num_files, kind)
        pq.write_table(network.people.truth(), partial / "truth.parquet")
        (partial / "counts.json").write_text(json.dumps(network.summary(), indent=2) + "\n")
    return network.summary()


def main() -> None:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, required=True, help="how many")
    parser.add_argument("--output", type=Path, required=True, help="a directory that is not there yet")
    parser.add_argument("--files", type=int, default=8, help="how many the posts are cut into")
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="of the files")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another network")
    parser.add_argument("--people", type=int, default=0, help="how many; default a fiftieth of the posts")
    parser.add_argument("--heavy", type=int, default=0, help="about so many posts are by one person")
    parser.add_argument("--broken", type=float, default=0.0, help="broken lines for each post")
    flags = parser.parse_args()
    began = time.perf_counter()
    try:
        settings = Settings(flags.posts, flags.seed, flags.people, flags.heavy, flags.broken)
        summary = generate(settings, flags.output, flags.files, flags.format)
    except (ValueError, FileExistsError) as error:
        sys.exit(str(error))
    print(json.dumps(summary, indent=2))
    print(f"{flags.posts / (time.perf_counter() - began):,.0f} posts per second", file=sys.stderr)


if __name__ == "__main__":
    main()
