"""The sample of general pairs: which they are, and that they are the same however batches are cut."""

import pytest

from datamodules import UserSets
from datamodules.shards.reader import ShardReader
from datamodules.users.general_pairs import evenly


def test_evenly_spaced_by_hand():
    assert evenly(3, 5).tolist() == [0, 1, 2]
    assert evenly(9, 3).tolist() == [0, 4, 8]


def test_pairs_of_other_people_the_same_for_any_size_of_batch(preparation):
    reader = ShardReader(preparation.output, "pretrain/validation")
    pairs = reader.read(range(len(reader.groups)))
    assert not {"ada", "ben", "cleo", "dan"} & {*pairs.speakers, *pairs.partners}
    seen = []
    for rows, users in ((3, None), (8, "ada")):
        data = UserSets(preparation, users=users, rows_per_user=rows, seed=rows, test_general_pairs=10)
        data.setup("test")
        own, general = data.test_dataloader()
        batches = list(general)
        assert len(batches) == len(general) == -(-10 // rows)
        assert all((batch.user_index == -1).all() for batch in batches)
        seen.append(sorted(id for batch in batches for id in batch.pair_id.tolist()))
    expected = [int(pairs.pair_id[place]) for place in evenly(len(pairs), 10)]
    assert seen == [sorted(expected)] * 2


def test_the_two_samples_are_asked_for(preparation):
    data = UserSets(preparation, test_train_turns=1)
    data.setup("test")
    assert data.test_kinds == ["own", "train"]
    assert len(data.test_dataloader()) == 2
    with pytest.raises(ValueError, match="test_general_pairs must be 0 or more, got -1"):
        UserSets(preparation, test_general_pairs=-1)
