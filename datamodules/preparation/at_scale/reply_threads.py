"""Posts that answer posts, as reply pairs of two people: pure functions on Arrow tables.

A reply pair here is a post and the post it answers, by two people, with up to `max_context_turns` posts before it in
which the same two took turns. Another person's post ends the context, and so does an answer to oneself: a turn is one
post. No result depends on the order of the rows.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.corpora.posts.raw_posts import TIME

from .shuffle import hash_of_both, hash_strings

PAIR_ID_SEED = 1


def token_columns(vocabulary_size: int) -> pa.Schema:
    """A tokenised post: id, author, time, ids of its text, and the post it answers, or null."""
    ids = pa.list_(pa.uint16() if vocabulary_size <= 65_536 else pa.uint32())
    return pa.schema({"id": pa.string(), "author": pa.string(), "time": TIME, "ids": ids, "in_reply_to": pa.string()})


def edge_columns(vocabulary_size: int) -> pa.Schema:
    """A post that answers another one, and that one's id, author and ids."""
    id, author, time, ids, _ = token_columns(vocabulary_size)
    return pa.schema([id, author, time, ids, *(field.with_name(f"parent_{field.name}") for field in (id, author, ids))])


def first_of_each(table: pa.Table, key: str, order: list[str]) -> pa.Table:
    """One row of each key: the first by these columns. Rows whose key nobody shares stay as they are."""
    if not table.num_rows:
        return table
    codes = table[key].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    shared = np.bincount(codes)[codes] > 1
    if not shared.any():
        return table
    few = table.filter(pa.array(shared)).sort_by([(name, "ascending") for name in (key, *order)])
    names = few[key].to_pylist()
    first = [number == 0 or name != names[number - 1] for number, name in enumerate(names)]
    return pa.concat_tables([table.filter(pa.array(~shared)), few.filter(pa.array(first))])


def join_replies(posts: pa.Table, replies: pa.Table) -> tuple[pa.Table, Counter[str]]:
    """Edges: each reply beside the post that it answers; and how many replies make none, by reason.

    `posts` are tokenised posts, among them all existing ones that the replies answer.
    """
    drops: Counter[str] = Counter()
    num_posts = posts.num_rows
    posts = first_of_each(posts, "id", ["time", "author"])
    drops["post with another author's id"] = num_posts - posts.num_rows
    parent = pc.index_in(replies["in_reply_to"], value_set=posts["id"].combine_chunks())
    is_known = pc.is_valid(parent)
    drops["reply to a post that is not there"] = replies.num_rows - (pc.sum(is_known).as_py() or 0)
    replies = replies.filter(is_known)
    parents = posts.take(parent.filter(is_known))
    oneself = pc.equal(replies["author"], parents["author"])
    before = pc.fill_null(pc.less(replies["time"], parents["time"]), False)
    drops["reply to oneself"] = pc.sum(oneself).as_py() or 0
    drops["reply before what it answers"] = pc.sum(pc.and_not(before, oneself)).as_py() or 0
    edges = replies.select(["id", "author", "time", "ids"])
    for name in ("id", "author", "ids"):
        edges = edges.append_column(f"parent_{name}", parents[name])
    return edges.filter(pc.invert(pc.or_(oneself, before))), +drops


def reply_rows(edges: pa.Table, max_context_turns: int) -> tuple[pa.Table, Counter[str]]:
    """Rows of a shard, in no order of use, from all edges of the same two people; and how many make none, by reason.

    `dialogue_id` is the id of the first post that the two answer each other from, `position` how many turns lie
    between, and `pair_id` comes from the id of the response, so that no post is a response twice.
    """
    num_edges = edges.num_rows
    edges = first_of_each(edges, "id", ["time", "author", "parent_id"]).combine_chunks()
    drops = Counter({"post with another author's id": num_edges - edges.num_rows})
    before = _edge_before(edges)
    root, depth = _roots(before)
    drops["replies in a circle"] = int((depth < 0).sum())
    rows = np.flatnonzero(depth >= 0)
    context = np.full((len(rows), max_context_turns), -1)  # oldest first; the edge whose parent the turn is
    at = rows
    for turn in range(max_context_turns):
        context[:, max_context_turns - 1 - turn] = at
        at = np.where(at >= 0, before[at], -1)
    return _shard_table(edges, rows, root[rows], depth[rows], context), +drops


def _edge_before(edges: pa.Table) -> np.ndarray:
    """(edges,) the edge in which the parent is itself an answer to the same person; -1 where there is none."""
    found = pc.index_in(edges["parent_id"], value_set=edges["id"].combine_chunks())
    before = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    known = np.flatnonzero(before >= 0)
    above = edges.select(["author", "parent_author"]).take(pa.array(before[known]))
    below = edges.select(["author", "parent_author"]).take(pa.array(known))
    same_two = pc.and_(
        pc.equal(above["author"], below["parent_author"]), pc.equal(above["parent_author"], below["author"])
    )
    before[known[~same_two.to_numpy(zero_copy_only=False)]] = -1
    return before


def _roots(before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each edge the first edge of its chain, and the position of its response: 1 in the first one, -1 in a circle.

    By pointer doubling: after k rounds every pointer has jumped 2^k edges; what has not arrived after as many edges as
    there are goes round in a circle.
    """
    first = before < 0
    jump = np.where(first, np.arange(len(before)), before)
    steps = np.where(first, 0, 1)
    waiting = np.flatnonzero(~first[jump])
    jumped = 1
    while len(waiting) and jumped <= len(before):
        steps[waiting] += steps[jump[waiting]]
        jump[waiting] = jump[jump[waiting]]
        waiting = waiting[~first[jump[waiting]]]
        jumped *= 2
    depth = steps + 1
    depth[waiting] = -1
    return jump, depth


def _shard_table(
    edges: pa.Table, rows: np.ndarray, root: np.ndarray, depth: np.ndarray, context: np.ndarray
) -> pa.Table:
    chosen = edges.take(pa.array(rows))
    num_turns = (context >= 0).sum(axis=1)
    turns = edges["parent_ids"].combine_chunks().take(pa.array(context[context >= 0]))
    turn_lengths = pc.list_value_length(turns).to_numpy(zero_copy_only=False).astype(np.int64)
    row_of_turn = np.repeat(np.arange(len(rows)), num_turns)
    context_lengths = np.bincount(row_of_turn, weights=turn_lengths, minlength=len(rows)).astype(np.int64)
    back = (np.broadcast_to(np.arange(context.shape[1])[::-1], context.shape))[context >= 0]  # 0: what is answered
    pair_id = hash_strings(chosen["id"], PAIR_ID_SEED) >> np.uint64(1)
    return pa.table(
        {
            "pair_id": pa.array(pair_id.astype(np.int64)),
            "dialogue_id": edges["parent_id"].take(pa.array(root)),
            "position": pa.array(depth.astype(np.int32)),
            "speaker": chosen["author"],
            "partner": chosen["parent_author"],
            "context_ids": list_column(context_lengths, turns.flatten(), turns.type.value_type),
            "context_lengths": list_column(num_turns, turn_lengths, pa.uint16()),
            "context_speakers": list_column(num_turns, 1 - back % 2, pa.uint8()),
            "response_ids": chosen["ids"],
            "time": chosen["time"],
            "response": chosen["id"],
        }
    )


def people_hash(edges: pa.Table) -> np.ndarray:
    """(edges,) uint64: the same for all edges between the same two people."""
    return hash_of_both(hash_strings(edges["author"]), hash_strings(edges["parent_author"]))


def list_column(lengths: np.ndarray, values: np.ndarray | pa.Array, type: pa.DataType) -> pa.ListArray:
    """An Arrow list column of rows that follow each other in `values`."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    numbers = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(offsets), numbers.cast(type))
