"""Past replies in the prompt: those to the most similar contexts, never of the dialogue at hand, never held out."""

import json
import shutil
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pair_batches import describe_again

from datamodules import UserSets
from datamodules.users.past_replies import Retrieved
from datamodules.users.similar_contexts import SimilarContexts


def data_of(preparation, **settings):
    data = UserSets(preparation, rows_per_user=5, users_per_batch=3, **settings)
    data.setup("fit")
    return data


def loader_of(data, split):
    return {"train": data.train_dataloader, "validation": data.val_dataloader, "test": data.test_dataloader}[split]()


def inputs_of(data, split):
    """`pair_id` → ids of the encoder's input, without padding."""
    return {
        id: ids[:length]
        for batch in loader_of(data, split)
        for id, ids, length in zip(
            batch.pair_id.tolist(), batch.input_ids.tolist(), batch.attention_mask.sum(1).tolist(), strict=True
        )
        if id >= 0
    }


def in_front(data, ids):
    """The replies in front of the context, where the prompt has no profile."""
    context = min(ids.index(marker) for marker in data.prompts.markers.tolist() if marker in ids)
    replies = []
    for id in ids[:context]:
        if id == data.prompts.reply_marker:
            replies.append([])
        else:
            replies[-1].append(id)
    return replies


def rows_of(preparation, split):
    return pq.read_table(preparation.output / "users" / split).to_pylist()


# ---- what is found


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_replies_are_those_of_the_most_similar_contexts_of_other_training_dialogues(corpus, split):
    """Against a search row by row, in which the dialogue at hand is crossed out afterwards."""
    data = data_of(corpus, retrieved=Retrieved(num_replies=3, max_tokens=1000), max_context_tokens=1000)
    decode = data.prompts.tokenizer.decode

    def text(row):
        ends = np.cumsum(row["context_lengths"])
        turns = [row["context_ids"][end - n : end] for end, n in zip(ends, row["context_lengths"], strict=True)]
        return "\n".join(decode(turn) for turn in turns)

    past = defaultdict(list)
    for row in rows_of(corpus, "train"):
        past[row["speaker"]].append(row)
    index = {user: SimilarContexts([text(row) for row in rows]) for user, rows in past.items()}
    inputs = inputs_of(data, split)
    rows = rows_of(corpus, split)
    assert inputs.keys() == {row["pair_id"] for row in rows}
    for row in rows:
        user = row["speaker"]
        (order,) = index[user].most_similar([text(row)], len(past[user]))
        others = [past[user][place] for place in order if past[user][place]["dialogue_id"] != row["dialogue_id"]]
        expected = [other["response_ids"] for other in reversed(others[:3])]
        assert in_front(data, inputs[row["pair_id"]]) == expected


@pytest.fixture
def repeated(preparation, tmp_path):
    """One context of ada's, word for word, twice in one training dialogue and once in another one, in two validation
    dialogues and in a test dialogue."""
    copy = shutil.copytree(preparation.output, tmp_path / "repeated")
    rows = {split: rows_of(preparation, split) for split in ("train", "validation", "test")}
    own = {split: [row for row in rows[split] if row["speaker"] == "ada"] for split in rows}
    for row in chosen(own["train"], [2, 1]) + own["validation"][:2] + own["test"][:1]:
        for name in ("context_ids", "context_lengths", "context_speakers"):
            row[name] = own["train"][0][name]
    for split, changed in rows.items():
        path = copy / "users" / split / "part-00000.parquet"
        table = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist(changed, schema=table.schema), path)
    describe_again(copy)
    return replace(preparation, output=copy)


def chosen(rows, counts):
    """The first rows of some dialogues, in their order: so many of the first one, and so on."""
    dialogues = list(dict.fromkeys(row["dialogue_id"] for row in rows))
    return [
        row
        for name, count in zip(dialogues, counts, strict=False)
        for row in [row for row in rows if row["dialogue_id"] == name][:count]
    ]


def test_a_context_that_is_repeated_word_for_word_never_brings_its_own_reply(repeated):
    data = data_of(repeated, retrieved=Retrieved(num_replies=1, max_tokens=1000))
    same = chosen([row for row in rows_of(repeated, "train") if row["speaker"] == "ada"], [2, 1])
    first, second, elsewhere = ([row["response_ids"]] for row in same)
    assert len({json.dumps(reply) for reply in (first, second, elsewhere)}) == 3
    found = [in_front(data, inputs_of(data, "train")[row["pair_id"]]) for row in same]
    assert found == [elsewhere, elsewhere, first]


def test_validation_and_test_turns_are_never_found(repeated):
    data = data_of(repeated, retrieved=Retrieved(num_replies=3, max_tokens=1000))
    same = chosen([row for row in rows_of(repeated, "train") if row["speaker"] == "ada"], [2, 1])
    expected = [row["response_ids"] for row in reversed(same)]
    for split, count in (("validation", 2), ("test", 1)):
        held_out = [row for row in rows_of(repeated, split) if row["speaker"] == "ada"][:count]
        inputs = inputs_of(data, split)
        assert [in_front(data, inputs[row["pair_id"]]) for row in held_out] == [expected] * count


# ---- what does not change


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_context_labels_and_order_stay_as_they_are(preparation, split):
    with_replies, plain = (
        data_of(preparation, retrieved=retrieved, max_context_tokens=15)
        for retrieved in (Retrieved(num_replies=4, max_tokens=20), None)
    )
    longer = 0
    for ours, theirs in zip(loader_of(with_replies, split), loader_of(plain, split), strict=True):
        assert ours.pair_id.tolist() == theirs.pair_id.tolist()
        assert ours.labels.tolist() == theirs.labels.tolist()
    inputs, without = inputs_of(with_replies, split), inputs_of(plain, split)
    for id, ids in inputs.items():
        assert ids[-len(without[id]) :] == without[id]
        assert 2 <= len(ids) - len(without[id]) <= 20
        longer += len(ids) - len(without[id]) == 20
        assert with_replies.prompts.turns(ids) == plain.prompts.turns(without[id])
    assert longer


def test_others_in_the_same_row_group_are_not_searched(preparation):
    data = data_of(preparation, users=["ben"], retrieved=Retrieved())
    assert inputs_of(data, "validation").keys() == {
        row["pair_id"] for row in rows_of(preparation, "validation") if row["speaker"] == "ben"
    }
    assert data.past.prefixes_of.cache_info().currsize == 1


def test_a_user_is_searched_once_for_all_rounds(preparation):
    data = data_of(preparation, retrieved=Retrieved())
    for epoch in range(2):
        data.next_round(dict.fromkeys(data.users, epoch))
        inputs_of(data, "train")
        inputs_of(data, "validation")
    assert data.past.index_of.cache_info().misses == 4
    assert data.past.prefixes_of.cache_info().misses == 8


def test_somebody_with_one_dialogue_has_nothing_in_front(preparation, tmp_path):
    copy = shutil.copytree(preparation.output, tmp_path / "one")
    path = copy / "users" / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    names = pa.array(["the only one"] * len(table))
    table = table.set_column(table.schema.get_field_index("dialogue_id"), table.schema.field("dialogue_id"), names)
    pq.write_table(table, path)
    describe_again(copy)
    data = data_of(replace(preparation, output=copy), retrieved=Retrieved())
    assert all(in_front(data, ids) == [] for ids in inputs_of(data, "train").values())
    assert all(len(in_front(data, ids)) == 2 for ids in inputs_of(data, "test").values())


# ---- bad values


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_replies": 0}, "num_replies must be 1 or more, got 0; for none leave it out"),
        ({"max_tokens": 1}, "max_tokens must be 2 or more, a marker and something behind it, got 1"),
    ],
)
def test_bad_values_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Retrieved(**settings)
