"""User sets: equal shares in every batch, everything once a round, and nobody changes anybody's batches."""

import contextlib
import shutil
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from lightning import LightningModule, Trainer
from pair_batches import describe_again
from stopping import QUIET, WARNINGS, KillAt, Killed

from datamodules import UserSets
from datamodules.batches import IGNORED
from datamodules.prompts.template import PromptTemplate
from datamodules.users import rounds

USERS = ["ada", "ben", "cleo", "dan"]


def data_of(preparation, **settings):
    data = UserSets(preparation, **settings)
    data.setup("fit")
    return data


@pytest.fixture
def uneven(preparation, tmp_path):
    """Users with 48, 30, 21 and 9 training pairs, and dan without any for validation."""
    copy = shutil.copytree(preparation.output, tmp_path / "uneven")
    for split, kept in (
        ("users/train", {"ada": 48, "ben": 30, "cleo": 21, "dan": 9}),
        ("users/validation", {"ada": 6, "ben": 3, "cleo": 1, "dan": 0}),
    ):
        path = copy / split / "part-00000.parquet"
        table, seen, rows = pq.read_table(path), Counter(), []
        for number, user in enumerate(table["speaker"].to_pylist()):
            seen[user] += 1
            rows += [number] if seen[user] <= kept[user] else []
        pq.write_table(table.take(rows), path)
    describe_again(copy)
    return replace(preparation, output=copy)


def pairs_of(preparation, split):
    table = pq.read_table(preparation.output / "users" / split)
    pairs = {user: set() for user in USERS}
    for user, id in zip(table["speaker"].to_pylist(), table["pair_id"].to_pylist(), strict=True):
        pairs[user].add(id)
    return pairs


def by_user(batches, users, filled=False):
    """Each user's own batches as pair ids, in their order; with `filled`, also the -1 of rows that fill up."""
    own = {}
    for batch in batches:
        rows = {}
        for index, id in zip(batch.user_index.tolist(), batch.pair_id.tolist(), strict=True):
            rows.setdefault(users[index], []).extend([id] if filled or id >= 0 else [])
        for user, ids in rows.items():
            own.setdefault(user, []).append(ids)
    return own


# ---- a round


def test_each_user_has_equally_many_rows_in_a_batch_and_they_stand_together(uneven):
    data = data_of(uneven, min_train_turns=1, rows_per_user=4, users_per_batch=3)
    for batch in data.train_dataloader():
        people, counts = batch.user_index.unique_consecutive(return_counts=True)
        assert len(people.unique()) == len(people) <= 3
        assert set(counts.tolist()) == {4}


def test_each_pair_once_in_a_round(corpus):
    data = data_of(corpus, rows_per_user=5, users_per_batch=3)
    for epoch in range(2):
        data.next_round(dict.fromkeys(USERS, epoch))
        own = by_user(data.train_dataloader(), data.users)
        expected = pairs_of(corpus, "train")
        for user in USERS:
            ids = [id for batch in own[user] for id in batch]
            assert len(ids) == len(set(ids))
            assert set(ids) == expected[user]
            assert [len(batch) for batch in own[user]].count(5) == 9  # of 48 pairs; the last batch has three
            assert len(own[user]) == data.num_train_batches(user) == 10


@pytest.mark.parametrize("users_per_batch", [1, 2, 3, 8])
@pytest.mark.parametrize("rows_per_user", [1, 4, 7, 100])
def test_the_length_of_a_round_is_known_before(uneven, rows_per_user, users_per_batch):
    data = data_of(uneven, min_train_turns=1, rows_per_user=rows_per_user, users_per_batch=users_per_batch)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        length = len(loader)
        assert length == len(list(loader)) > 0


def test_a_round_is_as_long_as_it_must_be(uneven):
    data = data_of(uneven, min_train_turns=1, rows_per_user=10, users_per_batch=4)
    assert [data.num_train_batches(user) for user in USERS] == [5, 3, 3, 1]  # 48, 30, 21 and 9 pairs
    assert 5 <= len(data.train_dataloader()) <= 5 + 3 + 3 + 1
    alone = data_of(uneven, min_train_turns=1, rows_per_user=10, users_per_batch=1)
    assert len(alone.train_dataloader()) == 5 + 3 + 3 + 1


def test_rows_that_fill_up_have_no_labels(uneven):
    data = data_of(uneven, users=["ben", "cleo"], rows_per_user=8)
    fillers = 0
    for batch in data.train_dataloader():
        filler = batch.pair_id < 0
        fillers += int(filler.sum())
        assert (batch.labels[filler] == IGNORED).all()
        assert (batch.attention_mask[filler].sum(1) == 1).all()
        assert ((batch.labels[~filler] != IGNORED).sum(1) > 0).all()
    assert fillers == 2 + 3  # 30 pairs in batches of 8, and 21


def test_rows_are_the_users_own_pairs(corpus):
    data = data_of(corpus, max_context_tokens=1000)
    rows = {row["pair_id"]: row for row in pq.read_table(corpus.output / "users/train").to_pylist()}
    for batch in data.train_dataloader():
        for index, id, labels in zip(batch.user_index, batch.pair_id.tolist(), batch.labels, strict=True):
            assert rows[id]["speaker"] == data.users[index]
            assert labels[labels != IGNORED].tolist() == [*rows[id]["response_ids"], 1]


def test_epochs_and_seeds_have_batches_of_their_own(preparation):
    def batches(epoch, seed=0):
        data = data_of(preparation, seed=seed)
        data.next_round({"ada": epoch})
        return by_user(data.train_dataloader(), data.users)["ada"]

    assert batches(3) == batches(3)
    assert len({str(batches(epoch, seed)) for epoch in range(2) for seed in range(2)}) == 4
    assert {frozenset(batch) for batch in batches(0)} != {frozenset(batch) for batch in batches(1)}


def test_a_users_batches_are_the_same_in_any_company(uneven, monkeypatch):
    def own(users, epochs, **settings):
        data = data_of(uneven, users=users, min_train_turns=1, rows_per_user=4, **settings)
        data.next_round(epochs)
        return by_user(data.train_dataloader(), data.users, filled=True)["cleo"]

    alone = own(["cleo"], {"cleo": 2})
    assert len(alone) == 6
    assert own(None, {"cleo": 2}) == alone
    assert own(None, {"dan": 0, "cleo": 2, "ada": 5}) == alone
    assert own(None, {"ada": 1, "ben": 9, "dan": 2, "cleo": 2}, users_per_batch=2) == alone
    monkeypatch.setattr(rounds, "USERS_IN_MEMORY", 1)
    assert own(None, {"ada": 1, "ben": 9, "cleo": 2, "dan": 2}) == alone


def test_users_beyond_memory_come_in_blocks(in_small_groups, monkeypatch):
    monkeypatch.setattr(rounds, "USERS_IN_MEMORY", 3)
    data = data_of(in_small_groups, rows_per_user=8, users_per_batch=8)
    loader = data.train_dataloader()
    people = [{data.users[index] for index in batch.user_index.tolist()} for batch in loader]
    assert people[-6:] == [{"dan"}] * 6
    assert set().union(*people[:-6]) == {"ada", "ben", "cleo"}
    assert len(loader) == len(people)


def test_rows_of_like_lengths_share_a_batch(preparation):
    data = data_of(preparation, rows_per_user=8, users_per_batch=2)
    lengths = [(batch.labels != IGNORED).sum(1) for batch in data.train_dataloader()]
    padded = sum(len(rows) * int(rows.max()) for rows in lengths)
    in_any_order = torch.cat(lengths)[torch.randperm(192, generator=torch.Generator().manual_seed(0))]
    padded_in_any_order = sum(len(rows) * int(rows.max()) for rows in in_any_order.split(16))
    assert padded < 0.8 * padded_in_any_order


# ---- evaluation


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_covers_everything_each_time(uneven, split):
    data = data_of(uneven, min_train_turns=1, rows_per_user=4)
    loader = data.val_dataloader() if split == "validation" else data.test_dataloader()
    expected = {user: ids for user, ids in pairs_of(uneven, split).items() if ids}
    for _ in range(2):
        own = by_user(loader, data.users)
        assert {user: {id for batch in batches for id in batch} for user, batches in own.items()} == expected
        assert sum(len(batch) for batches in own.values() for batch in batches) == sum(map(len, expected.values()))


def test_prediction_is_of_the_test_split(preparation):
    data = data_of(preparation)
    assert by_user(data.predict_dataloader(), data.users) == by_user(data.test_dataloader(), data.users)


@pytest.mark.parametrize(("users_per_batch", "sizes"), [(8, [12, 12, 8]), (1, [8, 8, 8, 8])])
def test_a_prediction_fills_its_batches(uneven, users_per_batch, sizes):
    """Four users of six turns, in groups of four rows of one user: three groups a batch, or all of one user."""
    data = data_of(uneven, min_train_turns=1, rows_per_user=4, users_per_batch=users_per_batch, predict_rows=13)
    batches = list(data.predict_dataloader())
    assert [len(batch.pair_id) for batch in batches] == sizes
    for batch in batches:
        groups = batch.user_index.view(-1, 4)
        assert (groups == groups[:, :1]).all()
        assert users_per_batch > 1 or (groups == groups[0, 0]).all()
    found = {user: {id for ids in own for id in ids} for user, own in by_user(batches, data.users).items()}
    assert found == pairs_of(uneven, "test")
    assert sum(int((batch.pair_id >= 0).sum()) for batch in batches) == sum(map(len, found.values()))


def test_only_those_who_take_part_are_validated_but_everybody_is_tested(preparation):
    data = data_of(preparation)
    data.next_round({"ben": 4, "dan": 1})
    assert set(by_user(data.train_dataloader(), data.users)) == {"ben", "dan"}
    assert set(by_user(data.val_dataloader(), data.users)) == {"ben", "dan"}
    assert set(by_user(data.test_dataloader(), data.users)) == set(USERS)


# ---- who


def test_one_user_a_list_a_file_or_all(preparation, tmp_path):
    file = tmp_path / "some users.txt"
    file.write_text("dan\n\n  ada  \nada\n", encoding="utf-8")
    assert data_of(preparation).users == USERS
    assert data_of(preparation, users="ben").users == ["ben"]
    assert data_of(preparation, users=["dan", "ben", "dan"]).users == ["ben", "dan"]
    data = data_of(preparation, users=str(file))
    assert data.users == ["ada", "dan"]
    assert set(by_user(data.train_dataloader(), data.users)) == {"ada", "dan"}
    assert set(by_user(data.test_dataloader(), data.users)) == {"ada", "dan"}


def test_unknown_users_and_none(preparation, tmp_path):
    file = tmp_path / "users.txt"
    file.write_text("ada\nwhat a person said\n")
    for users in ("eve", ["ada", "eve"]):
        message = r": .*invented has 4 target users, among them \['ada', 'ben', 'cleo'\]; a file of"
        with pytest.raises(ValueError, match=rf"unknown users \['eve'\]{message}"):
            data_of(preparation, users=users)
    with pytest.raises(ValueError, match="1 of 2 lines are no target user of .*, the first is line 2") as refused:
        data_of(preparation, users=str(file))
    assert "what a person said" not in str(refused.value)
    file.write_text("\n")
    for users in (str(file), []):
        with pytest.raises(ValueError, match="no users: data.users is .*invented has 4"):
            data_of(preparation, users=users)


def test_too_few_turns(uneven):
    with pytest.raises(
        ValueError,
        match=r"too few training turns: \{'cleo': 21, 'dan': 9\}, but at least 22 are asked for; .*min_train_turns",
    ):
        data_of(uneven, min_train_turns=22)
    assert data_of(uneven, users=["ada", "ben"], min_train_turns=22).users == ["ada", "ben"]
    assert data_of(uneven, users="cleo", min_train_turns=21).users == ["cleo"]


def test_users_without_profile_are_counted(preparation, capsys):
    data = data_of(preparation, prompt=PromptTemplate("psp"))
    assert "2 of 4 users have no profile: theirs is empty\n" in capsys.readouterr().out
    prompts = {"ada": "<|speaker profile|> age: 20-29, city: Osaka", "ben": "<|speaker profile|> city: Kyoto"}
    for batch in data.test_dataloader():
        real = batch.pair_id >= 0
        for index, ids in zip(batch.user_index[real].tolist(), batch.input_ids[real].tolist(), strict=True):
            text = data.prompts.tokenizer.decode(ids, skip_special_tokens=False)
            assert text.startswith(prompts.get(data.users[index], ("<|partner|>", "<|speaker|>")))


# ---- resuming, through Lightning

pytestmark = WARNINGS


class Roster(LightningModule):
    """Learns nothing; lets one user go after each round, as the module that trains adapters does."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []
        self.validated = []
        self.ends = []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch.user_index.tolist(), batch.pair_id.tolist()))
        return self.weight * 1.0

    def on_validation_epoch_start(self):
        self.validated.append(set())

    def validation_step(self, batch, batch_idx):
        self.validated[-1] |= set(batch.user_index.tolist())

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.ends.append(len(self.seen))
            state = self.trainer.datamodule.state_dict()
            next_epochs = {user: epoch + 1 for user, epoch in list(state["epochs"].items())[:-1]}
            self.trainer.datamodule.next_round(next_epochs)
            self.trainer.should_stop = not next_epochs

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(preparation, *callbacks, ckpt_path=None, **settings):
    module = Roster()
    data = UserSets(preparation, min_train_turns=1, rows_per_user=8, users_per_batch=3, **settings)
    trainer = Trainer(
        **QUIET,
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        callbacks=list(callbacks),
    )
    with contextlib.suppress(Killed):
        trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=False)
    return module


def test_rounds_get_smaller_as_users_leave(uneven):
    module = fit(uneven)
    assert module.validated == [{0, 1, 2}, {0, 1, 2}, {0, 1}, {0}]  # dan has no validation turns
    rounds = [dict.fromkeys(USERS[: 4 - epoch], epoch) for epoch in range(4)]
    data = data_of(uneven, min_train_turns=1, users_per_batch=3)
    expected = []
    for epochs in rounds:
        data.next_round(epochs)
        expected += [(batch.user_index.tolist(), batch.pair_id.tolist()) for batch in data.train_dataloader()]
    assert module.seen == expected


@pytest.fixture
def undisturbed(uneven):
    return fit(uneven)


# Rounds and batches: the first, in the middle, the last but one, the first of the second round, ...; then whole rounds.
@pytest.mark.parametrize(
    ("hook", "rounds", "batches"),
    [
        *(("on_train_batch_end", *position) for position in [(0, 1), (0, 4), (1, -1), (1, 1), (2, -1), (3, 2)]),
        *(("on_train_epoch_end", rounds, 0) for rounds in (1, 2, 3)),
    ],
)
def test_resume_is_exact(uneven, undisturbed, tmp_path, hook, rounds, batches):
    num_batches = [0, *undisturbed.ends][rounds] + batches
    before = fit(uneven, KillAt(hook, num_batches, tmp_path / "x.ckpt")).seen
    after = fit(uneven, ckpt_path=tmp_path / "x.ckpt").seen
    assert len(before) == num_batches
    assert before + after == undisturbed.seen


def test_resume_after_the_last_batch_of_a_round_goes_on_with_the_next_epoch(uneven, undisturbed, tmp_path):
    # Lightning leaves out the validation that was due, so nobody calls `next_round`: not exact, but it comes to an end.
    fit(uneven, KillAt("on_train_batch_end", undisturbed.ends[0], tmp_path / "x.ckpt"))
    resumed = fit(uneven, ckpt_path=tmp_path / "x.ckpt")
    data = data_of(uneven, min_train_turns=1, users_per_batch=3)
    data.next_round(dict.fromkeys(USERS, 1))
    expected = [batch.pair_id.tolist() for batch in data.train_dataloader()]
    assert [ids for _, ids in resumed.seen[: resumed.ends[0]]] == expected[: undisturbed.ends[0]]
    assert len(resumed.ends) == len(undisturbed.ends)


class Tuner(Roster):
    """Never calls `next_round`, as the module that tunes one user."""

    def on_validation_epoch_end(self):
        pass


@pytest.mark.parametrize("reload", [0, 1])
def test_without_next_round_every_pass_is_the_next_epoch(preparation, reload):
    module = Tuner()
    data = UserSets(preparation, users="cleo", rows_per_user=8)
    trainer = Trainer(**QUIET, max_epochs=3, enable_checkpointing=False, reload_dataloaders_every_n_epochs=reload)
    trainer.fit(module, data)
    expected = []
    for epoch in range(3):
        data.next_round({"cleo": epoch})
        expected += [batch.pair_id.tolist() for batch in data.train_dataloader()]
    assert len(expected) == 3 * 6
    assert [ids for _, ids in module.seen] == expected


def test_a_checkpoint_of_other_users_is_refused(uneven, tmp_path):
    fit(uneven, KillAt("on_train_batch_end", 2, tmp_path / "x.ckpt"))
    with pytest.raises(ValueError, match="made with 4 users, this run has 2 or others; continue with the same users"):
        fit(uneven, ckpt_path=tmp_path / "x.ckpt", users=["ada", "ben"])


# ---- training turns as texts


def test_training_replies_are_what_the_person_said_in_the_order_of_time(corpus):
    data = data_of(corpus, max_context_tokens=10_000)
    rows = [row for row in pq.read_table(corpus.output / "users/train").to_pylist() if row["speaker"] == "cleo"]
    decode = data.prompts.tokenizer.decode
    replies = data.training_replies("cleo")
    assert [reply for _, reply in replies] == [decode(row["response_ids"]) for row in rows]
    assert len(replies) == 48
    for (context, _), row in zip(replies, rows, strict=True):
        assert [author for author, _ in context] == [("speaker", "partner")[who] for who in row["context_speakers"]]
        assert context[-1][0] == "partner"
        ends = [sum(row["context_lengths"][: turn + 1]) for turn in range(len(context))]
        turns = [
            row["context_ids"][end - length : end] for end, length in zip(ends, row["context_lengths"], strict=True)
        ]
        assert [text for _, text in context] == [decode(ids) for ids in turns]
