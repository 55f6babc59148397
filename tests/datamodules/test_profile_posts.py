"""Chunks of posts: whose words count, what is known of whom, and facts worked out by hand.

All people and texts are invented.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping

import pytest
import torch

from datamodules import ProfilePosts
from datamodules.corpora import Jsonl
from datamodules.evidence.facts import cut, rarity
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import SplitRule

ENGLISH = """segmenter: words
attributes:
  gender:
    written: gender
    values: {female: a woman, male: a man}
    patterns:
      states: {female: "i'm a woman", male: "i'm a man"}
      spouse: {female: my husband, male: my wife}
  home:
    written: lives in
    values: places.yaml
    places: {lives: 'i live in PLACE', answers: {asked: where, said: '^PLACE'}}
forms: {laugh: '(?:ha){2,}'}
"""
PLACES = "Osaka: [Osaka]\nKyoto: [Kyoto]\n"
EVERYBODY = SplitRule(num_target_users=0, pretrain_validation_share=0)

# Users in order, with their posts: ann 5, bob 2, cat 3, dan 2, eve 1. With two posts a chunk, ann has two chunks.
FIVE = {
    "d0": [("ann", "tea tea milk"), ("bob", "haha tea"), ("ann", "i'm a woman"), ("bob", "i live in Osaka")],
    "d1": [("cat", "where do you live?"), ("dan", "osaka"), ("cat", "i'm a woman"), ("dan", "haha haha")],
    "d2": [("ann", "i'm a man?"), ("cat", "tea 🍵"), ("ann", "i'm a woman i'm a woman")],
    "d3": [("ann", "i live in kyoto"), ("eve", "hello tea")],
}
FEMALE, MALE = {"gender": "female"}, {"gender": "male"}
GENDERS = {"ann": FEMALE, "bob": MALE, "cat": FEMALE, "dan": MALE}
SMALL = {"posts_per_chunk": 2, "min_posts": 1, "num_folds": 2, "min_users": 1, "gram_sizes": ()}


def data_of(root, talks=FIVE, profiles=GENDERS, rule=EVERYBODY, stage="fit", **settings):
    """The module set up on these dialogues, which are (speaker, text) or (speaker, text, time)."""
    keys = ("speaker", "text", "time")
    rows = [{"id": id, "turns": [dict(zip(keys, turn, strict=False)) for turn in turns]} for id, turns in talks.items()]
    (root / "dialogues.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    if isinstance(profiles, Mapping):
        profiles = [{"user": user, "attributes": attributes} for user, attributes in profiles.items()]
    (root / "profiles.jsonl").write_text("\n".join(json.dumps(row) for row in profiles))
    (root / "english.yaml").write_text(ENGLISH)
    (root / "places.yaml").write_text(PLACES)
    preparation = Preparation(Jsonl(root / "dialogues.jsonl", root / "profiles.jsonl"), root / "data", rule)
    data = ProfilePosts(preparation, root / "english.yaml", **{**SMALL, **settings})
    data.setup(stage)
    return data


def texts(data):
    """User → chunks → texts."""
    found = {user: [] for user in data.users}
    for chunk in data.chunks:
        assert {post.author for post in chunk.posts} == {chunk.user}
        found[chunk.user].append([post.text for post in chunk.posts])
    return found


def facts(data, batch, predicate):
    """Facts with the names of their arguments, and degrees; rows of the batch stay numbers."""
    domains = {"user": range(99), **data.domains}
    arguments, degrees = (part.tolist() for part in batch.facts[predicate])
    types = data.predicates[predicate]
    names = [tuple(domains[type][one] for type, one in zip(types, row, strict=True)) for row in arguments]
    assert len(set(names)) == len(names)
    return dict(zip(names, degrees, strict=True))


# ---- whose posts, and in which order


def test_posts_are_cut_into_chunks_and_keep_what_they_answer(tmp_path):
    data = data_of(tmp_path)
    assert data.users == ["ann", "bob", "cat", "dan", "eve"]
    assert texts(data) == {
        "ann": [["tea tea milk", "i'm a woman"], ["i'm a man?", "i'm a woman i'm a woman", "i live in kyoto"]],
        "bob": [["haha tea", "i live in Osaka"]],
        "cat": [["where do you live?", "i'm a woman", "tea 🍵"]],  # the one that is left over joins the last chunk
        "dan": [["osaka", "haha haha"]],
        "eve": [["hello tea"]],
    }
    assert [chunk.answered for chunk in data.chunks] == [
        ("", "haha tea"),
        ("", "tea 🍵", ""),
        ("tea tea milk", "i'm a woman"),
        ("", "osaka", "i'm a man?"),
        ("where do you live?", "i'm a woman"),
        ("i live in kyoto",),
    ]
    assert data.is_short == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("number", "size", "lengths"), [(7, 3, [3, 4]), (6, 3, [3, 3]), (5, 3, [5]), (2, 3, [2]), (3, 1, [1, 1, 1])]
)
def test_what_is_left_over_joins_the_last_chunk(number, size, lengths):
    chunks = cut(list(range(number)), size)
    assert [len(chunk) for chunk in chunks] == lengths
    assert [post for chunk in chunks for post in chunk] == list(range(number))


def test_users_with_few_posts_are_left_out_and_counted(tmp_path, capsys):
    data = data_of(tmp_path, min_posts=2)
    assert data.users == ["ann", "bob", "cat", "dan"]
    assert capsys.readouterr().out == "4 users; 1 more have fewer than 2 posts and are left out\n"


@pytest.mark.parametrize(("with_times", "order"), [(3, ["c", "a", "b"]), (2, ["a", "b", "c"]), (0, ["a", "b", "c"])])
def test_posts_are_sorted_where_all_have_times(tmp_path, with_times, order):
    times = ["2024-01-02T00:30:00+09:00", "2024-01-01T15:40:00Z", "2024-01-01T07:00:00Z"][:with_times]  # a: 15:30 UTC
    turns = zip("abc", times + [None] * (3 - with_times), strict=True)
    talks = {text: [("ann", text, time), ("bob", "tea", time)] for text, time in turns}
    data = data_of(tmp_path, talks, posts_per_chunk=3)
    assert texts(data)["ann"] == [order]
    posts = facts(data, data.batch([0]), "Posts")
    assert posts == [{}, {}, {(0, "15"): 0.75}, {(0, "15"): 0.75, (0, "7"): 0.5}][with_times]


def test_only_training_dialogues_count(tmp_path):
    talks = {}
    for number in range(10):  # ann is the target user; the last two of her dialogues are held out
        guest = f"guest {number}"
        talks[f"t{number}"] = [(guest, f"{guest} t{number}"), ("ann", f"ann t{number}")]
        talks[f"d{number}"] = [(guest, f"{guest} d{number}"), ("host", f"host d{number}")]
    # By the hash of their ids, d1, d2, d3, d6 and d7 are held out for the validation of pre-training.
    rule = SplitRule(num_target_users=1, min_turns=10, max_turns=10, min_dialogues=10, pretrain_validation_share=0.5)
    talks["extra"] = [("host", "host extra"), ("guest 0", "guest 0 extra")]  # 11 turns are too many for a target user
    profiles = {"ann": FEMALE, "host": MALE}
    found = texts(data_of(tmp_path, talks, profiles, rule, posts_per_chunk=99))
    assert found["ann"] == [[f"ann t{number}" for number in range(8)]]
    assert [text for text in found["host"][0] if text != "host extra"] == [
        f"host d{number}" for number in (0, 4, 5, 8, 9)
    ]
    guests = {text for user, chunks in found.items() if user.startswith("guest") for text in chunks[0]}
    assert guests - {"guest 0 extra"} == {f"guest {number} d{number}" for number in (0, 4, 5, 8, 9)}


def test_a_dialogue_may_be_for_training_of_one_target_user_only(tmp_path):
    talks = {f"b{n}": [(f"guest {n}", "tea"), ("ben", f"ben {n}")] for n in range(9)}
    talks["both"] = [("ann", "ann both"), ("ben", "ben both")]  # the first of ann's and the last of ben's
    talks |= {f"a{n}": [(f"guest {n}", "tea"), ("ann", f"ann {n}")] for n in range(9)}
    rule = SplitRule(num_target_users=2, min_turns=10, min_dialogues=10, pretrain_validation_share=0)
    data = data_of(tmp_path, talks, {"ann": FEMALE, "ben": MALE}, rule, posts_per_chunk=99)
    assert texts(data) == {
        "ann": [["ann both", *(f"ann {n}" for n in range(7))]],
        "ben": [[f"ben {n}" for n in range(8)]],
    }


# ---- labels


def test_declared_labels(tmp_path):
    profiles = {**GENDERS, "dan": {"gender": "male", "home": "Kyoto", "shoe_size": "23"}, "cat": {"home": "Osaka"}}
    data = data_of(tmp_path, profiles={**profiles, "nobody": MALE})
    assert data.labels.tolist() == [[0, -1], [1, -1], [-1, 0], [1, 1], [-1, -1]]
    assert set(data.folds) == {"ann", "bob", "cat", "dan"}


def test_what_is_inferred_is_not_declared(tmp_path):
    lines = [{"user": user, "attributes": attributes} for user, attributes in GENDERS.items()]
    lines += [{"user": "ann", "attributes": MALE, "origin": "inferred"}]
    assert data_of(tmp_path, profiles=lines).labels[:, 0].tolist() == [0, 1, 0, 1, -1]


DISTANT = {
    "d0": [
        ("ann", "i'm a woman zebra"),
        ("bob", "i'm a man yak"),
        ("ann", "tea"),
        ("bob", "i'm a woman"),
        ("ann", "x"),
    ],
    "d1": [("ann", "i'm a man zebra"), ("dan", "i'm a man"), ("ann", "I'm a woman"), ("dan", "my wife"), ("ann", "y")],
    "d2": [("bob", "milk"), ("dan", "i'm a woman?")],  # a question, which says nothing and stays
}


def test_distant_labels_are_what_most_statements_say_and_those_are_no_evidence(tmp_path):
    data = data_of(tmp_path, DISTANT, GENDERS, labels="distant")
    assert data.users == ["ann", "bob", "dan"]
    assert data.labels[:, 0].tolist() == [0, -1, 1]  # bob says one thing as often as the other
    assert texts(data) == {"ann": [["tea", "x", "y"]], "bob": [["milk"]], "dan": [["my wife", "i'm a woman?"]]}
    assert {"zebra", "yak", "man"}.isdisjoint(data.domains["word"])
    batch = data.batch(range(3))
    assert facts(data, batch, "SaysGender") == {(2, "spouse", "male"): 0.5}
    assert (data.is_short, data.labels_from) == ([False, True, False], "distant")


def test_who_only_states_is_left_out(tmp_path, capsys):
    talks = {**DISTANT, "d3": [("cat", "i'm a woman"), ("dan", "tea")]}
    assert data_of(tmp_path, talks, labels="distant").users == ["ann", "bob", "dan"]
    assert capsys.readouterr().out.startswith("3 users; 1 more have fewer than 1 posts")


def test_distant_labels_of_places_are_no_evidence(tmp_path):
    data = data_of(tmp_path, labels="distant", label_patterns=("lives",))
    assert data.labels.tolist() == [[-1, 1], [-1, 0], [-1, -1], [-1, -1], [-1, -1]]
    batch = data.batch(range(len(data.chunks)))
    assert facts(data, batch, "SaysHome") == {(4, "answers", "Osaka"): 0.5}  # dan's
    assert "kyoto" not in data.domains["word"]


# ---- folds and vocabulary


def test_every_labelled_user_is_in_one_fold(tmp_path):
    data = data_of(tmp_path, num_folds=3)
    assert sorted(data.folds) == ["ann", "bob", "cat", "dan"]  # nothing is known of eve
    assert sorted(data.folds.values()) == [0, 0, 1, 2]
    assert data_of(tmp_path, num_folds=3).folds == data.folds
    assert any(data_of(tmp_path, num_folds=3, seed=seed).folds != data.folds for seed in range(1, 9))


def test_a_learner_has_only_words_of_its_own_users(tmp_path):
    names = ["ann", "bob", "cat", "dan", "eve", "fay"]  # each has a word of their own, and nothing is known of eve
    talks = {
        one: [(one, f"tea {one}"), (other, f"milk {other}")]
        for one, other in zip(names, [*names[1:], "ann"], strict=True)
    }
    data = data_of(tmp_path, talks, {**GENDERS, "fay": MALE}, gram_sizes=(3,))
    for type, ours in (("word", {"tea", "milk"}), ("gram", {"tea", "mil", "ilk", "lk ", "ea "})):
        items = data.domains[type]
        assert tuple(data.allowed[type].shape) == (3, len(items))
        assert "eve" not in items
        for learner, allowed in enumerate(data.allowed[type].tolist()):
            usable = {item for item, is_allowed in zip(items, allowed, strict=True) if is_allowed}
            seen = {user for user, fold in data.folds.items() if fold != learner}
            assert usable & set(data.folds) == seen
            assert ours <= usable
    row = data.users.index("fay")  # eve's word, which nobody may use, came before hers
    assert {word for _, word in facts(data, data.batch([row]), "HasWord")} == {"tea", "milk", "fay"}


def test_there_may_be_neither_words_nor_grams(tmp_path):
    data = data_of(tmp_path, max_words=0, max_grams=0, gram_sizes=(2,))
    batch = data.batch([0, 1])
    assert facts(data, batch, "HasWord") == facts(data, batch, "HasGram") == {}


# ---- facts


def test_facts_of_a_batch(tmp_path):
    data = data_of(tmp_path)
    batch = data.batch(range(6))  # ann twice, bob, cat, dan, eve
    assert set(batch.facts) == {"HasWord", "HasGram", "SaysGender", "SaysHome", "Uses", "Posts", "Replies"}
    assert facts(data, batch, "SaysGender") == {
        (0, "states", "female"): 0.5,
        (1, "states", "female"): 0.75,  # twice; her question does not count
        (3, "states", "female"): 0.5,
    }
    assert facts(data, batch, "SaysHome") == {
        # Said in the other chunk: places count for all that a user has. One of four labelled users says each of these,
        # so that they have half their degree: 1 - log(1 + 1) / log(4).
        (0, "lives", "Kyoto"): 0.25,
        (1, "lives", "Kyoto"): 0.25,
        (2, "lives", "Osaka"): 0.25,
        (4, "answers", "Osaka"): 0.25,
    }
    assert facts(data, batch, "Uses") == {(2, "laugh"): 0.5, (4, "laugh"): 0.75}
    assert facts(data, batch, "Posts") == facts(data, batch, "HasGram") == {}
    linked = [(0, 2), (3, 4), (1, 3), (1, 5)]  # by d0, d1, d2 and d3
    assert facts(data, batch, "Replies") == {
        pair: 1.0 for one, other in linked for pair in ((one, other), (other, one))
    }
    assert batch.labels.tolist() == [[0, -1], [0, -1], [1, -1], [0, -1], [1, -1], [-1, -1]]
    assert batch.weights.tolist() == [0.5, 0.5, 1, 1, 1, 1]
    folds = [data.folds[user] for user in ("ann", "ann", "bob", "cat", "dan")]
    assert batch.learner.tolist() == [*folds, 2]  # eve's network is the one that has seen everybody
    assert batch.index.tolist() == [0, 1, 2, 3, 4, 5]


def test_degrees_of_words_have_length_one_in_each_chunk(tmp_path):
    data = data_of(tmp_path)
    words = facts(data, data.batch([5, 0]), "HasWord")
    # eve: tea (hello is of nobody who is learnt from); ann: tea twice, milk, i'm, a, woman
    often = 1 + math.log(2)
    length = math.sqrt(often**2 + 4)
    rest = {(1, word): 1 / length for word in ("milk", "i'm", "a", "woman")}
    assert words == pytest.approx({(0, "tea"): 1, (1, "tea"): often / length, **rest})


def test_grams_are_facts_too(tmp_path):
    data = data_of(tmp_path, gram_sizes=(2,), min_users=2)
    grams = facts(data, data.batch([4]), "HasGram")  # dan: osaka, which bob says too; haha haha
    counts = {"os": 1, "sa": 1, "ak": 1, "ka": 1, "ha": 4, "ah": 2, "a ": 1}  # ` h` is of dan only
    degrees = {gram: 1 + math.log(count) for gram, count in counts.items()}
    length = math.sqrt(sum(degree**2 for degree in degrees.values()))
    assert grams == pytest.approx({(0, gram): degree / length for gram, degree in degrees.items()})


def test_chunks_of_one_user_do_not_reply_to_each_other(tmp_path):
    data = data_of(tmp_path, {"d0": FIVE["d0"], "d1": FIVE["d1"]}, posts_per_chunk=1)
    # One post a chunk: ann 0 and 1, bob 2 and 3, cat 4 and 5, dan 6 and 7.
    batch = data.batch([3, 0, 1, 4])
    assert set(facts(data, batch, "Replies")) == {(0, 1), (1, 0), (0, 2), (2, 0)}


# ---- loaders, and a network that is taken over


def test_learning_sees_all_chunks_of_labelled_users_at_once(tmp_path):
    data = data_of(tmp_path, chunks_per_batch=2)
    (batch,) = data.train_dataloader()
    assert batch.index.tolist() == [0, 1, 2, 3, 4]
    assert len(data.train_dataloader()) == 1


@pytest.fixture
def network(tmp_path):
    """The directory of a network that was learnt on the five, with n-grams."""
    directory = tmp_path / "network"
    directory.mkdir()
    (directory / "vocabulary.json").write_text(data_of(tmp_path, gram_sizes=(2, 3)).vocabulary(), encoding="utf-8")
    return directory


@pytest.mark.parametrize(("size", "test", "predict"), [(0, [5], [6]), (2, [2, 2, 1], [2, 2, 2]), (4, [4, 1], [4, 2])])
def test_tests_are_of_labelled_users_and_predictions_of_all(tmp_path, network, size, test, predict):
    data = data_of(tmp_path, stage="test", network=network, chunks_per_batch=size)
    for loader, lengths in ((data.test_dataloader(), test), (data.predict_dataloader(), predict)):
        rows = [batch.index.tolist() for batch in loader]
        assert [len(batch) for batch in rows] == lengths
        assert len(loader) == len(lengths)
        assert [row for batch in rows for row in batch] == list(range(sum(lengths)))  # eve's is the last one


def test_vocabulary_and_folds_are_taken_over(tmp_path, network):
    learnt = data_of(tmp_path, gram_sizes=(2, 3))
    assert any("🍵" in gram for gram in learnt.domains["gram"])
    other = data_of(tmp_path, stage="predict", network=network, gram_sizes=(2, 3), num_folds=4, min_users=9, seed=7)
    assert other.domains == learnt.domains
    assert (other.folds, other.num_folds) == (learnt.folds, 2)
    ours, theirs = learnt.batch(range(6)), other.batch(range(6))
    assert torch.equal(ours.learner, theirs.learner)
    for name, (arguments, degrees) in ours.facts.items():
        assert torch.equal(arguments, theirs.facts[name].arguments)
        assert torch.equal(degrees, theirs.facts[name].degrees)


def test_new_people_get_the_network_that_has_seen_everybody(tmp_path, network):
    data = data_of(tmp_path, {"d9": [("ann", "tea"), ("gil", "zebra tea")]}, {}, stage="predict", network=network)
    (batch,) = data.predict_dataloader()
    assert batch.learner.tolist() == [data.folds["ann"], 2]
    assert facts(data, batch, "HasWord") == {(0, "tea"): 1.0, (1, "tea"): 1.0}
    with pytest.raises(ValueError, match="nobody here has a label: .*; lightning predict infers profiles"):
        data.test_dataloader()


def test_labels_of_one_kind_can_be_predicted(tmp_path, network):
    data = data_of(tmp_path, profiles={"ann": FEMALE}, stage="predict", network=network)
    assert data.labels[:, 0].tolist() == [0, -1, -1, -1, -1]


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_without_a_network_the_command_that_learns_it_is_told(tmp_path, stage):
    with pytest.raises(FileNotFoundError, match=r"no learnt network in .*/network; learn it with: lightning fit --co"):
        data_of(tmp_path, stage=stage, network=tmp_path / "network")


def test_a_place_that_few_name_is_rare():
    osaka, kyoto = ("lives", "Osaka"), ("lives", "Kyoto")
    named = [Counter({osaka: 7}), Counter({osaka: 1, kyoto: 1}), Counter({osaka: 1}), Counter({osaka: 2})]
    assert rarity(named) == {osaka: 0.0, kyoto: pytest.approx(1 - math.log(2) / math.log(4))}
    assert rarity([]) == {}


ROBOTS = {**GENDERS, "bob": {"gender": "robot"}, "dan": {"gender": "robot"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_folds": 1}, "num_folds must be 2 or more, got 1"),
        ({"posts_per_chunk": 0}, "posts_per_chunk must be 1 or more, got 0"),
        ({"num_folds": 5}, "4 users with labels are too few for 5 folds"),
        ({"min_posts": 6}, r"nobody has 6 posts; lower data\.min_posts"),
        ({"profiles": ROBOTS}, r"english\.yaml does not have these values, .*: gender='robot' \(2 users\)"),
        (
            {"profiles": {"ann": FEMALE, "cat": FEMALE}},
            "all 2 labels of gender are the same: there is nothing to learn",
        ),
        (
            {"labels": "distant", "label_patterns": ("lives", "live")},
            r"data\.label_patterns: no pattern is called 'live'; there are \['states',",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        data_of(tmp_path, **settings)
