"""Histories: how many of whose rows a user is trained on, which are wrong, and that nothing else is touched."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pair_batches import describe_again

from datamodules import UserSets
from datamodules.batches import IGNORED
from datamodules.prompts.template import PromptTemplate
from datamodules.users.history import History

KINDS = ("duplicated", "truncated", "wrong_author")
LENGTHS = {user: np.arange(1, 201) % 17 + 1 for user in ("u", "u1", "u11", "v")}  # names that begin like others


def rows(user="u", lengths=None, **settings):
    found = History(**settings).rows_of(user, lengths or LENGTHS)
    return list(zip(found.authors, found.places.tolist(), found.lengths.tolist(), strict=True))


def as_they_are(user="u"):
    return [(user, place, length) for place, length in enumerate(LENGTHS[user].tolist())]


def changed(found):
    assert len(found) == 200
    return {place for place, (row, before) in enumerate(zip(found, as_they_are(), strict=True)) if row != before}


# ---- what is chosen


def test_nothing_is_done_by_default():
    assert rows() == as_they_are()


def test_the_most_recent_turns_are_kept_and_who_has_fewer_keeps_them(capsys):
    assert rows(num_turns=25) == as_they_are()[175:]
    assert rows(num_turns=200) == rows(num_turns=1000) == as_they_are()
    lengths = {"ada": np.ones(30), "ben": np.ones(90), "cleo": np.ones(100)}
    History(num_turns=100).report(["ada", "ben", "cleo"], lengths)
    said = "2 of 3 users have fewer than 100 training turns and keep what they have, 30 to 90\n"
    assert capsys.readouterr().out == said
    History(num_turns=30).report(["ada", "ben", "cleo"], lengths)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_share_is_changed_and_a_larger_share_changes_the_same_rows_alike(kind):
    tenth, third, half = (rows(**{kind: share}) for share in (0.1, 0.3, 0.5))
    assert [len(changed(found)) for found in (tenth, third, half)] == [20, 60, 100]
    assert all(third[place] == tenth[place] for place in changed(tenth))
    assert all(half[place] == third[place] for place in changed(third))
    assert rows(**{kind: 0.1}) == tenth  # the same again
    assert changed(rows(**{kind: 0.1, "seed": 1})) != changed(tenth)
    assert changed(rows(**{kind: 0.1}, user="u")) != {
        place for place, row in enumerate(rows(user="u1", **{kind: 0.1})) if row != as_they_are("u1")[place]
    }


def test_a_duplicate_is_another_row_that_is_left_as_it_is():
    found = rows(duplicated=0.3)
    left = set(as_they_are()) & {row for place, row in enumerate(found) if place not in changed(found)}
    assert all(found[place] in left for place in changed(found))
    assert max(Counter(found).values()) == 2
    assert Counter(Counter(rows(duplicated=0.75)).values()) == {4: 50}  # 50 rows left, and three copies of each


def test_a_truncated_reply_is_shorter_and_not_empty_if_it_can_be():
    cuts = Counter()
    for (author, place, length), (_, _, before) in zip(rows(truncated=1.0), as_they_are(), strict=True):
        assert (author, LENGTHS["u"][place]) == ("u", before)
        assert 1 <= length < before if before > 1 else length == 0
        cuts[before, length] += 1
    assert {length for before, length in cuts if before == 3} == {1, 2}  # 11 replies of three tokens


def test_wrong_rows_come_from_all_the_others_and_from_them_only():
    found = rows("u1", wrong_author=0.5)
    authors = Counter(author for author, _, _ in found)
    assert authors["u1"] == 100
    assert authors.keys() == LENGTHS.keys()
    assert all(LENGTHS[author][place] == length for author, place, length in found)
    assert len(set(found)) > 180


def test_the_three_take_different_rows_and_together_their_shares():
    shares = {"duplicated": 0.25, "truncated": 0.25, "wrong_author": 0.25}
    found = rows(**shares, num_turns=10, seed=3)
    first = changed([*as_they_are()[:190], *found])
    assert len(found) == 10
    assert len(first) == 8  # 2.5, 5 and 7.5 of ten rows: at 2, 5 and 8
    assert sum(author != "u" for author, _, _ in found) == 3
    assert sum(author == "u" and LENGTHS["u"][place] != length for author, place, length in found) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"truncated": 1.1}, "from 0 to 1, and together at most 1"),
        ({"duplicated": -0.1}, "from 0 to 1"),
        ({"wrong_author": float("nan")}, "from 0 to 1"),
        ({"duplicated": 0.6, "truncated": 0.5}, "together at most 1"),
        ({"num_turns": 0}, "must be at least 1, got 0; null takes all"),
        ({"duplicated": 1.0}, "no row of 'u' is left as it is to be copied"),
        ({"wrong_author": 0.5, "lengths": {"u": np.arange(1, 20)}}, "nobody but 'u' to take rows from"),
    ],
)
def test_impossible_histories_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        rows(**settings)


# ---- what becomes of it in the batches


def data_of(preparation, **settings):
    data = UserSets(preparation, **{"min_train_turns": 1, **settings})
    data.setup("fit")
    return data


def contents(loader, user):
    """Pair id and labels of every row of a user."""
    return Counter(
        (pair, *labels[labels != IGNORED].tolist())
        for batch in loader
        for index, pair, labels in zip(batch.user_index.tolist(), batch.pair_id.tolist(), batch.labels, strict=True)
        if index == user and pair >= 0
    )


def stored(preparation, split="train"):
    """Pair id and labels of every user's rows as they are in the shards, oldest first."""
    found = {}
    for row in pq.read_table(preparation.output / "users" / split).to_pylist():
        found.setdefault(row["speaker"], []).append((row["pair_id"], *row["response_ids"], 1))
    return found


def test_batches_have_the_most_recent_turns_and_counts_follow(corpus):
    data = data_of(corpus, history=History(num_turns=13), rows_per_user=4)
    recent = {user: own[-13:] for user, own in stored(corpus).items()}
    assert [contents(data.train_dataloader(), user) for user in range(4)] == [Counter(recent[u]) for u in data.users]
    assert data.num_train_batches("ben") == 4
    assert data.label_tokens_per_batch_of("ben") == sum(len(row) - 1 for row in recent["ben"]) / 4
    assert len(data.training_replies("ben")) == 13


@pytest.mark.parametrize("kind", KINDS)
def test_training_rows_alone_are_changed(corpus, kind):
    clean, noisy = data_of(corpus), data_of(corpus, history=History(**{kind: 0.25}), users_per_batch=3)
    own = stored(corpus)
    for index, user in enumerate(noisy.users):
        found = contents(noisy.train_dataloader(), index)
        assert found.total() == 48
        assert sum((found & Counter(own[user])).values()) == 36  # a quarter is not, or not so often, there
        others = Counter(row for other in own if other != user for row in own[other])
        for row in found - Counter(own[user]):
            whole = {before[0]: before for before in own[user]}.get(row[0], ())
            assert row[-1] == 1
            assert {
                "duplicated": row in own[user],
                "truncated": row[1:-1] == whole[1 : len(row) - 1] and len(row) < len(whole),
                "wrong_author": row in others,
            }[kind]
        assert noisy.num_train_batches(user) == clean.num_train_batches(user) == 6
        assert noisy.label_tokens_per_batch_of(user) * 6 == sum((len(row) - 1) * n for row, n in found.items())
        for loader, split in ((noisy.val_dataloader(), "validation"), (noisy.test_dataloader(), "test")):
            assert contents(loader, index) == Counter(stored(corpus, split)[user])


def test_a_row_of_somebody_else_brings_its_context_and_the_profile_stays(preparation):
    prompt = PromptTemplate(style="psp", attributes=("city",))
    clean = data_of(preparation, prompt=prompt)
    noisy = data_of(preparation, prompt=prompt, users="ada", history=History(wrong_author=0.5), rows_per_user=1)

    def inputs(data, user):
        found = {}
        for batch in data.train_dataloader():
            for index, pair, ids in zip(batch.user_index, batch.pair_id.tolist(), batch.input_ids, strict=True):
                if data.users[index] == user:
                    text = data.prompts.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
                    profile, _, context = text.replace("<pad>", "").partition("<|partner|>")
                    found[pair] = profile.partition("<|speaker|>")[0], context
        return found

    before, after = {user: inputs(clean, user) for user in clean.users}, inputs(noisy, "ada")
    wrong = after.keys() - before["ada"].keys()
    assert len(wrong) > 15
    everybody = {pair: text for of_user in before.values() for pair, text in of_user.items()}
    assert all(after[pair][1] == everybody[pair][1] for pair in after)
    assert all("Osaka" in after[pair][0] for pair in wrong)


def test_a_user_has_the_same_history_alone_and_among_others(in_small_groups):
    history = History(num_turns=30, duplicated=0.1, truncated=0.2, wrong_author=0.3)
    together, alone = (data_of(in_small_groups, users=users, history=history) for users in (None, "cleo"))
    assert contents(together.train_dataloader(), 2) == contents(alone.train_dataloader(), 0)


def test_too_few_turns_for_what_is_asked_for(preparation):
    with pytest.raises(ValueError, match=r"too few training turns.*'ada': 5.*lower data.min_train_turns"):
        data_of(preparation, history=History(num_turns=5), min_train_turns=20)


def test_names_that_begin_like_others_have_rows_of_their_own(preparation, tmp_path):
    copy = shutil.copytree(preparation.output, tmp_path / "copy")
    names = {"ada": "a", "ben": "a1", "cleo": "a11", "dan": "a/1"}
    for split in ("train", "validation", "test"):
        path = copy / "users" / split / "part-00000.parquet"
        table = pq.read_table(path)
        speakers = [names[name] for name in table["speaker"].to_pylist()]
        place = table.schema.get_field_index("speaker")
        pq.write_table(table.set_column(place, "speaker", [speakers]), path)
    describe_again(copy)
    data = data_of(replace(preparation, output=copy), history=History(num_turns=20))
    own = stored(replace(preparation, output=copy))
    for index, user in enumerate(data.users):
        assert contents(data.train_dataloader(), index) == Counter(own[user][-20:])


# ---- adapters are not mixed up


@pytest.mark.parametrize("experiment", ["lora_tiny", "tuning_tiny"])
def test_the_card_names_the_history(project, experiment):
    from commands.cli import main

    arguments = ["fit", "--config", f"experiments/{experiment}.yaml", "--model.max_epochs=1", "--data.users=ben"]
    main([*arguments, "--data.history.num_turns=20"])
    (card,) = Path("runs").glob("*,num_turns=20,*/*/ben/card.json")
    nothing = {"duplicated": 0.0, "truncated": 0.0, "wrong_author": 0.0, "seed": 0}
    assert json.loads(card.read_text())["settings"]["history"] == {"num_turns": 20, **nothing}
    main([*arguments, "--run=plain"])
    (card,) = Path("runs/plain").glob("*/ben/card.json")
    assert "history" not in json.loads(card.read_text())["settings"]
    Path("runs/plain/fit.card.json").unlink()
    with pytest.raises(SystemExit, match="has weights of 'ben' that were trained with other settings"):
        main([*arguments, "--run=plain", "--data.history.truncated=0.5"])
