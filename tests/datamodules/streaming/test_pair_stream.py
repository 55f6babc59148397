"""The stream of reply pairs: everything once, in balanced batches, whatever the number of processes."""

from itertools import islice

import numpy as np
import pyarrow.parquet as pq
import pytest
from pair_batches import TRAIN, all_ids, flat, ids_of, tokens

from datamodules.batches import IGNORED
from datamodules.prompts.loading import load_prompts
from datamodules.prompts.rendering import Rendered
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.ragged import Ragged
from datamodules.shards.reader import ShardReader
from datamodules.streaming import pair_stream
from datamodules.streaming.pair_stream import Cut, PairStream, Source


@pytest.fixture
def stream(in_small_groups):
    """Makes a stream over 375 pairs in 19 row groups, hence in three windows."""

    def make(split=TRAIN, **changes):
        directory = in_small_groups.output
        settings = {"max_context_tokens": 64, "tokens_per_batch": 900, "shuffle": True, **changes}
        prompts = load_prompts(PromptTemplate(), directory, None)
        source = Source(ShardReader(directory, split), prompts, settings.pop("max_context_tokens"))
        return PairStream([source], **settings)

    return make


# ---- what an epoch holds


@pytest.mark.parametrize("tokens_per_batch", [1, 20, 40, 300, 900, 5000, 10**9])
def test_every_pair_once_in_every_epoch(stream, in_small_groups, tokens_per_batch):
    whole = stream(tokens_per_batch=tokens_per_batch)
    for epoch in range(3):
        batches = ids_of(whole.batches(epoch))
        assert sorted(flat(batches)) == all_ids(in_small_groups)
        assert all(batches)  # none is empty, also where one pair costs more than a batch may
        assert len(batches) == whole.num_batches_in_epoch(epoch) == whole.num_batches_in_epoch(0)


def test_epochs_and_seeds_have_orders_of_their_own(stream):
    orders = [flat(ids_of(stream(seed=seed).batches(epoch))) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert flat(ids_of(stream(seed=1).batches(1))) == orders[3]
    batches = [{frozenset(batch) for batch in ids_of(stream().batches(epoch))} for epoch in (0, 1)]
    assert len(batches[0] & batches[1]) <= 1  # other batches, not only another order of the same


def test_without_shuffling_every_epoch_is_the_same(stream):
    still = stream(shuffle=False)
    assert ids_of(still.batches(0)) == ids_of(still.batches(5))


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("tokens_per_batch", [50, 900, 10**9])
def test_ranks_share_the_epoch_evenly(stream, in_small_groups, world_size, tokens_per_batch):
    ranks = [stream(rank=rank, world_size=world_size, tokens_per_batch=tokens_per_batch) for rank in range(world_size)]
    of_rank = [ids_of(rank.batches(1)) for rank in ranks]
    assert {len(batches) for batches in of_rank} == {ranks[0].num_batches_in_epoch(1)}
    assert sorted(flat([batch for batches in of_rank for batch in batches])) == all_ids(in_small_groups)
    assert all(batch for batches in of_rank for batch in batches)


def test_any_position_is_reached_without_the_ones_before(stream):
    whole = ids_of(stream().batches(2))
    for start in range(len(whole) + 1):
        assert ids_of(stream().batches(2, start)) == whole[start:]
    of_rank = ids_of(stream(rank=1, world_size=2).batches(2))
    assert ids_of(stream(rank=1, world_size=2).batches(2, 4)) == of_rank[4:]


@pytest.fixture
def read(monkeypatch):
    """The row groups of each reading, as they are read."""
    groups_read = []
    original = ShardReader.read
    monkeypatch.setattr(ShardReader, "read", lambda self, groups: groups_read.append(groups) or original(self, groups))
    return groups_read


def test_only_the_windows_that_are_needed_are_read(stream, read):
    some = stream()
    assert [len(window) for window in some.windows(0)] in ([7, 6, 6], [6, 7, 6], [6, 6, 7])
    start = some.num_batches(some.windows(0)[0])
    next(some.batches(0, start))
    assert read == [[0], some.windows(0)[1].tolist()]  # the first row group tells what a pair costs


def test_a_short_last_group_is_never_a_window_of_its_own(stream, monkeypatch):
    monkeypatch.setattr(pair_stream, "GROUPS_PER_WINDOW", 9)  # 19 groups, and the last has 15 pairs
    some = stream()
    for epoch in range(8):
        windows = some.windows(epoch)
        assert sorted(len(window) for window in windows) == [6, 6, 7]
        assert sorted(group for window in windows for group in window) == list(range(19))
    assert len({str(some.windows(epoch)) for epoch in range(8)}) > 2


# ---- another number of processes, or batches of another size, in the middle of an epoch


def handed_out(stream, cuts):
    """What each cut in turn hands out of epoch 1, a list of batches each; and the stream of the last."""
    found = []
    for number, cut in enumerate(cuts):
        settings = {"world_size": cut.world_size, "tokens_per_batch": cut.tokens_per_batch}
        ranks = [stream(rank=rank, **settings) for rank in range(cut.world_size)]
        of_ranks = [ids_of(islice(rank.batches(1, before=cuts[:number]), cut.batches)) for rank in ranks]
        assert {len(batches) for batches in of_ranks} == {cut.batches}
        assert ranks[0].num_batches_in_epoch(1, cuts[:number]) >= cut.batches
        found.append([batch for batches in of_ranks for batch in batches])
    return found, ranks[0]


CUTS = {
    "within the first window": [Cut(2, 200, 3), Cut(3, 200, 4)],
    "at the border of a window": [Cut(1, 200, 23), Cut(4, 200, 2)],
    "three times in one window": [Cut(1, 200, 4), Cut(2, 200, 3), Cut(3, 200, 1)],
    "in several windows": [Cut(4, 100, 15), Cut(1, 300, 5), Cut(8, 100, 4)],
    "batches of another size": [Cut(2, 200, 5), Cut(2, 333, 4)],
    "there and back": [Cut(1, 200, 4), Cut(2, 200, 4), Cut(1, 200, 4)],
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_every_pair_once_however_often_the_processes_change(stream, in_small_groups, cuts):
    rest = stream(world_size=cuts[-1].world_size, tokens_per_batch=cuts[-1].tokens_per_batch)
    left = rest.num_batches_in_epoch(1, cuts[:-1])
    found, _ = handed_out(stream, [*cuts[:-1], cuts[-1]._replace(batches=left)])
    assert sorted(flat(flat(found))) == all_ids(in_small_groups)
    assert left <= rest.num_batches_in_epoch(1)  # Lightning counts on from the difference


def test_a_process_without_a_pair_takes_part_with_an_empty_row(stream, in_small_groups):
    first = stream(tokens_per_batch=20)
    done = [Cut(1, 20, first.num_batches(first.windows(1)[0]) - 1)]  # a pair or two are left of the first window
    left = stream(tokens_per_batch=20, world_size=8).num_batches_in_epoch(1, done)
    [before, after], _ = handed_out(stream, [*done, Cut(8, 20, left)])
    assert sorted(id for id in flat(before + after) if id >= 0) == all_ids(in_small_groups)
    first_of_ranks = after[::left]
    assert 5 <= sum(batch == [-1] for batch in first_of_ranks) <= 7
    rank = first_of_ranks.index([-1])
    batch = next(stream(tokens_per_batch=20, rank=rank, world_size=8).batches(1, before=done))
    assert (batch.labels == IGNORED).all()
    assert batch.attention_mask.sum() == 1


def test_position_after_a_change_is_reached_without_the_ones_before(stream):
    before = [Cut(2, 200, 9), Cut(3, 150, 2)]
    whole = ids_of(stream(rank=1, world_size=2).batches(1, before=before))
    for start in range(len(whole) + 1):
        assert ids_of(stream(rank=1, world_size=2).batches(1, start, before)) == whole[start:]


def test_only_the_window_of_the_change_is_read(stream, read):
    some = stream(tokens_per_batch=200)
    counts = [some.num_batches(window) for window in some.windows(1)]
    read.clear()
    some.remainder(1, [Cut(1, 200, counts[0] + 2)])
    assert read == [some.windows(1)[1].tolist()]
    some.remainder(1, [Cut(1, 200, counts[0] + counts[1])])
    assert len(read) == 1


# ---- what a batch holds


def test_rows_are_the_pairs_of_the_shards(stream, in_small_groups):
    rows = {row["pair_id"]: row for row in pq.read_table(in_small_groups.output / TRAIN).to_pylist()}
    for batch in stream(max_context_tokens=1000).batches(0):
        assert batch.user_index.tolist() == [-1] * len(batch.pair_id)
        assert (batch.input_ids[batch.attention_mask == 0] == 0).all()
        for row, id in enumerate(batch.pair_id.tolist()):
            pair = rows[id]
            expected, at = [], 0
            for length, who in zip(pair["context_lengths"], pair["context_speakers"], strict=True):
                expected += [3 + who, *pair["context_ids"][at : at + length]]
                at += length
            assert batch.input_ids[row][batch.attention_mask[row] == 1].tolist() == [*expected, 1]
            labels = batch.labels[row]
            assert labels[labels != IGNORED].tolist() == [*pair["response_ids"], 1]
            assert (labels[len(pair["response_ids"]) + 1 :] == IGNORED).all()


def test_the_token_budget_is_roughly_kept(stream):
    for budget in (400, 900):
        sizes = [tokens(batch) for batch in stream(tokens_per_batch=budget).batches(0)]
        assert 0.75 * budget < np.mean(sizes) <= 1.1 * budget
        assert max(sizes) < 1.35 * budget


def rendered(num_rows):
    rng = np.random.default_rng(0)
    inputs, targets = (
        Ragged.from_lengths(np.zeros(lengths.sum(), dtype=np.int32), lengths)
        for lengths in (rng.integers(3, 65, num_rows), rng.integers(2, 30, num_rows))
    )
    return Rendered(inputs, targets, np.arange(num_rows), np.zeros(num_rows, dtype=np.int64))


def padding(window, batches):
    space = sum(
        len(rows) * int(lengths[rows].max())
        for rows in batches
        for lengths in (window.inputs.lengths, window.targets.lengths)
    )
    return 1 - int(window.costs.sum()) / space


def test_rows_of_like_lengths_share_a_batch(stream):
    window = rendered(20_000)
    batches = stream().cut(window, 200, [0])
    in_any_order = np.array_split(np.random.default_rng(0).permutation(20_000), 200)
    assert padding(window, in_any_order) > 0.4
    assert padding(window, batches) < 0.1
    costs = [int(window.costs[rows].sum()) for rows in batches]
    assert max(costs) < 1.15 * np.mean(costs)
    assert min(costs) > 0.85 * np.mean(costs)
    assert np.mean([len(rows) % 8 == 0 for rows in batches]) > 0.99  # kernels are built for each new shape


def test_fewer_pairs_than_processes_are_refused(stream):
    with pytest.raises(ValueError, match="reply pairs cannot be shared by 500 processes; use fewer"):
        stream(world_size=500).num_batches_in_epoch(0)


def test_where_pairs_are_not_shuffled_their_mean_is_not_that_of_the_first_users(stream):
    """Row groups of target users stand in the order of users."""
    (source,) = stream("users/train").sources
    num_groups = len(source.reader.groups)
    means = np.array([source.render([group]).costs.mean() for group in range(num_groups)])
    assert source.tokens_per_pair[0] == means[0]
    every = Source(source.reader, source.prompts, source.max_context_tokens, is_shuffled=False)
    wanted = sorted({round(group) for group in np.linspace(0, num_groups - 1, pair_stream.GROUPS_PER_WINDOW)})
    assert every.tokens_per_pair[0] == pytest.approx(source.render(wanted).costs.mean())
    assert every.tokens_per_pair[0] != means[0]
