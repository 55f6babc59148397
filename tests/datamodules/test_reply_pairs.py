"""`ReplyPairs`: prompts, splits, mixtures of corpora, and what is wrong with a corpus."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pair_batches import TRAIN, all_ids, describe_again, flat, ids_of, tokens

from datamodules import ReplyPairs
from datamodules.preparation.tokenizer import tokenizer_fingerprint
from datamodules.prompts.profiles import ProfileControl, read_profiles
from datamodules.prompts.template import PromptTemplate
from datamodules.reply_pairs import MixedCorpus
from datamodules.shards.reader import ShardReader
from datamodules.streaming.pair_stream import PairStream


def data_of(preparation, prompt=None, **settings):
    data = ReplyPairs(preparation, prompt, **settings)
    data.setup("fit")
    return data


# ---- prompts


def test_batches_are_the_same_pairs_whatever_the_prompt(in_small_groups):
    found = []
    for style in ("none", "psp", "ppp"):
        data = data_of(in_small_groups, PromptTemplate(style), tokens_per_batch=900)
        found.append(ids_of(data.train_dataloader()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("stage", ["fit", "predict"])
def test_a_control_reaches_the_prompts(in_small_groups, tmp_path, stage):
    rows = [{"user": user, "attribute": "age", "value": user} for user in ("ada", "ben", "guest 0")]
    path = tmp_path / "profiles.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    control = ProfileControl(shuffled=True)
    data = ReplyPairs(in_small_groups, PromptTemplate("psp"), profiles=path, control=control)
    data.setup(stage)
    plain = read_profiles(path)
    assert data.prompts.profiles == control.apply(plain) != plain


def test_a_test_is_about_the_target_users(in_small_groups):
    data = ReplyPairs(in_small_groups, PromptTemplate("psp"))
    data.setup("predict")
    assert data.users == ["ada", "ben", "cleo", "dan"]
    rows = {row["pair_id"]: row for row in pq.read_table(in_small_groups.output / "users/test").to_pylist()}
    seen = []
    for batch in data.predict_dataloader():
        for user, id in zip(batch.user_index.tolist(), batch.pair_id.tolist(), strict=True):
            if id >= 0:
                assert rows[id]["speaker"] == data.users[user]
                seen.append(id)
    assert sorted(seen) == sorted(rows)


def test_the_target_users_own_splits_can_be_trained_on(in_small_groups):
    data = data_of(in_small_groups, train_split="users/train", validation_split="users/validation")
    for loader, split in ((data.train_dataloader(), "users/train"), (data.val_dataloader(), "users/validation")):
        rows = {row["pair_id"]: row for row in pq.read_table(in_small_groups.output / split).to_pylist()}
        assert sorted(id for batch in loader for id in batch.pair_id.tolist()) == sorted(rows)
        assert {row["speaker"] for row in rows.values()} == {"ada", "ben", "cleo", "dan"}
    (source,) = data.sources
    pairs = source.render(range(len(source.reader.groups)))
    share = pairs.targets.lengths.mean() / pairs.costs.mean()
    # From some row groups, of all users: from the first one alone it would be 7 % more.
    assert data.label_tokens_per_batch == pytest.approx(4096 * share, rel=0.02)


# ---- bad input


def without(preparation, split, directory):
    """A copy of a prepared corpus with an empty split."""
    shutil.copytree(preparation.output, directory)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["splits"][split] = []
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return replace(preparation, output=directory)


def test_a_corpus_without_pre_training_pairs_is_refused(in_small_groups, tmp_path):
    empty = without(in_small_groups, TRAIN, tmp_path / "copy")
    with pytest.raises(ValueError, match="copy has no reply pairs in pretrain/train; target users who take part"):
        data_of(empty)


def test_without_held_out_pairs_there_is_no_validation(in_small_groups, tmp_path):
    data = data_of(without(in_small_groups, "pretrain/validation", tmp_path / "copy"))
    assert list(data.val_dataloader()) == []
    assert len(data.val_dataloader()) == 0


def test_missing_profiles_are_counted(in_small_groups, capsys):
    data_of(in_small_groups, PromptTemplate("psp"))
    pairs = ShardReader(in_small_groups.output, TRAIN).read([0])
    people = {*pairs.speakers, *pairs.partners}
    missing = len(people - {"guest 0"})
    said = f"{missing} of {len(people)} people in the first row group of {in_small_groups.output} have no profile"
    assert said in capsys.readouterr().out


def test_prompts_are_put_in_front(in_small_groups):
    data = data_of(in_small_groups, PromptTemplate("psp"), max_context_tokens=1000)
    rows = {row["pair_id"]: row for row in pq.read_table(in_small_groups.output / TRAIN).to_pylist()}
    prompt = [5, *data.prompts.tokenizer.encode("age: 30-39").ids]
    of_guest = 0
    for batch in data.train_dataloader():
        for ids, id in zip(batch.input_ids.tolist(), batch.pair_id.tolist(), strict=True):
            of_guest += rows[id]["speaker"] == "guest 0"
            assert (ids[: len(prompt)] == prompt) == (rows[id]["speaker"] == "guest 0")
    assert of_guest > 10


@pytest.mark.parametrize(("key", "theirs"), [("tokenizer", "0123456789abcdef"), ("seed", 7)])
def test_a_checkpoint_of_another_run_is_refused(in_small_groups, key, theirs):
    data = data_of(in_small_groups)
    data.train_dataloader()
    state = {**data.state_dict(), key: theirs}
    with pytest.raises(ValueError, match=f"the checkpoint was made with {key} {theirs}, this run has"):
        data_of(in_small_groups).load_state_dict(state)


# ---- mixtures


def mixture(first, second, passes=2, **settings):
    return data_of(first, mixed_with=[MixedCorpus(second, passes)], tokens_per_batch=900, **settings)


def test_a_corpus_comes_as_often_as_it_should(in_small_groups, second_corpus):
    data = mixture(in_small_groups, second_corpus)
    loader = data.train_dataloader()
    epochs = [ids_of(loader) for _ in range(2)]
    assert epochs[0] != epochs[1]
    for batches in epochs:
        assert len(batches) == len(loader)
        assert sorted(flat(batches)) == sorted(all_ids(in_small_groups) + 2 * all_ids(second_corpus))
    cost = [np.mean([tokens(batch) for batch in loader])]
    assert 0.75 * 900 < cost[0] < 1.1 * 900


def test_every_window_holds_of_each_corpus_its_share(in_small_groups, second_corpus):
    data = mixture(in_small_groups, second_corpus)
    stream = PairStream(data.sources, 900, shuffle=True)
    windows = stream.windows(3)  # 19 row groups and twice 10 of them, in 5 windows
    of_second = set(all_ids(second_corpus))
    assert sorted(len(window) for window in windows) == [7, 8, 8, 8, 8]
    for window in windows:
        ids = stream.render(window).pair_id.tolist()
        assert 0.4 < np.mean([id in of_second for id in ids]) < 0.62


def test_the_label_tokens_of_a_mixture_are_the_mean_of_its_pairs(in_small_groups, second_corpus):
    data = mixture(in_small_groups, second_corpus, passes=3)
    first, other = (source.render([0]) for source in data.sources)
    labels = 375 * first.targets.lengths.mean() + 3 * 192 * other.targets.lengths.mean()
    everything = 375 * first.costs.mean() + 3 * 192 * other.costs.mean()
    assert data.label_tokens_per_batch == pytest.approx(900 * labels / everything)


def test_another_mixture_is_not_resumed(in_small_groups, second_corpus):
    data, other = (mixture(in_small_groups, second_corpus, passes) for passes in (1, 2))
    with pytest.raises(ValueError, match="the checkpoint was made with corpora .*1.*, this run has .*2"):
        other.load_state_dict(data.state_dict())


def test_each_corpus_has_profiles_of_its_own(in_small_groups, second_corpus, tmp_path):
    path = tmp_path / "profiles.parquet"
    pq.write_table(pa.Table.from_pylist([{"user": "ada", "attribute": "age", "value": "7"}]), path)
    data = data_of(in_small_groups, PromptTemplate("psp"), mixed_with=[MixedCorpus(second_corpus, profiles=path)])
    assert data.sources[0].prompts.profiles == read_profiles(in_small_groups.output / "profiles.parquet")
    assert data.sources[1].prompts.profiles == {"ada": {"age": "7"}}


def test_corpora_with_unlike_tokenizers_are_refused(in_small_groups, tmp_path):
    other = replace(in_small_groups, output=shutil.copytree(in_small_groups.output, tmp_path / "other"))
    tokenizer = other.output / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    metadata = {"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer.parent)}
    for path in (other.output / TRAIN).glob("*.parquet"):
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path, row_group_size=20)
    describe_again(other.output)
    directory = in_small_groups.output
    message = f"{directory} has tokenizer .* and {other.output} has .*; corpora can be mixed when they share one"
    with pytest.raises(ValueError, match=message):
        mixture(in_small_groups, other)


def test_a_corpus_that_never_comes_is_refused(in_small_groups, second_corpus):
    with pytest.raises(
        ValueError, match=f"{second_corpus.output} has passes 0 in an epoch; give 1 or more, or leave it out"
    ):
        mixture(in_small_groups, second_corpus, passes=0)
