"""Profiles from a table of posts: those of `lightning predict` to the last digit, however people and rows come.

All people and texts are invented.
"""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands.cli import main
from datamodules.corpora import Jsonl
from datamodules.corpora.posts.profile_sources import PROFILES
from datamodules.evidence.histories import histories_of
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import SplitRule
from lightning_modules import ProfileInference
from lightning_modules.markov_logic import inference as profile_inference
from lightning_modules.markov_logic.decisions import Decision

EXPERIMENT = """
model:
  class_path: lightning_modules.ProfileNetwork
  init_args: {{formulas: tiny.mln}}
data:
  class_path: datamodules.ProfilePosts
  init_args:
    preparation:
      corpus:
        class_path: datamodules.corpora.Jsonl
        init_args: {{dialogues_path: chats.jsonl, profiles_path: people.jsonl}}
      output: data/tiny
      splits: {{num_target_users: 0, pretrain_validation_share: 0.0}}
    language: tiny.yaml
    labels: {labels}
    posts_per_chunk: 15
    min_posts: 5
    num_folds: 3
    min_users: 2
    gram_sizes: [2]
    chunks_per_batch: {chunks}
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 8
  enable_progress_bar: false
  callbacks:
    - callbacks.NetworkExport
    - class_path: callbacks.ProfileWriter
      init_args:
        decision: {{min_posterior: 0.45}}
"""
LANGUAGE = """
segmenter: words
attributes:
  sport:
    written: sport
    values: {ball: plays ball, chess: plays chess, none: does nothing}
    patterns:
      states: {ball: 'i play ball', chess: 'i play chess'}
      asks: {ball: {asked: 'what', said: '^goal'}}
  home:
    written: lives in
    values: places.yaml
    places: {lives: 'in PLACE'}
forms: {laugh: '(?:ha){2,}'}
"""
FORMULAS = """
Sport(user, sport!)
Home(user, home!)
*HasWord(user, word)
*HasGram(user, gram)
*Uses(user, form)
*Posts(user, hour)
*SaysSport(user, pattern, sport)
*SaysHome(user, pattern, home)
*Replies(user, user)
Sport(user, +s)
Home(user, +h)
SaysSport(user, +p, s) => Sport(user, s)
SaysHome(user, +p, h) => Home(user, h)
HasWord(user, +word) => Sport(user, +s)
HasGram(user, +gram) => Home(user, +h)
Uses(user, +form) => Sport(user, +s)
Posts(user, +hour) => Home(user, +h)
Sport(user, +s) ^ Home(user, +h)
"""
LINK = "Replies(u, o) => (Sport(u, s) <=> Sport(o, s))\n"
PEOPLE = [f"p{number:02}" for number in range(15)]  # the last one writes little
HOMES = ("Osaka", "Kyoto", "Nara")
START = datetime(2024, 1, 1, tzinfo=UTC)
SETTINGS = {"posts_per_chunk": 15, "min_posts": 5, "decision": Decision(min_posterior=0.45)}


def write_project(labels: str, formulas: str = FORMULAS, chunks: int = 5) -> None:
    """Chats of people with a sport and a home, which show in some of their posts."""
    rng = random.Random(5)
    own = {"ball": ["goal", "kick"], "chess": ["pawn", "queen"]}
    sport = {person: ("ball", "chess")[number % 2] for number, person in enumerate(PEOPLE)}
    home = {person: HOMES[number % 3] for number, person in enumerate(PEOPLE)}
    dialogues = []
    for number in range(60):
        first = PEOPLE[min(rng.randrange(14), rng.randrange(20)) % 14]
        pair = first, rng.choice([person for person in PEOPLE[:14] if person != first])
        pair = (PEOPLE[14], first) if number == 59 else pair
        turns = []
        for place in range(16 if number == 59 else rng.randint(2, 16)):
            speaker = pair[place % 2]
            words = rng.choices(["the", "a", "so", "what", "haha", "is", "we", "oh"], k=3)
            words += rng.choices(own[sport[speaker]], k=rng.random() < 0.5)
            words += [f"in {home[speaker]}"] * (rng.random() < 0.1)
            words += [f"i play {sport[speaker]}"] * (rng.random() < 0.1)
            rng.shuffle(words)
            time = START + timedelta(hours=7 * number, minutes=place)
            turns.append({"speaker": speaker, "text": " ".join(words), "time": time.isoformat()})
        dialogues.append({"id": str(number), "turns": turns})
    known = [{"user": user, "attributes": {"sport": sport[user], "home": home[user]}} for user in PEOPLE[:11]]
    for name, rows in (("chats.jsonl", dialogues), ("people.jsonl", known)):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("tiny.yaml").write_text(LANGUAGE)
    Path("places.yaml").write_text("".join(f"{place}: [{place.lower()}]\n" for place in HOMES))
    Path("tiny.mln").write_text(formulas)
    Path("tiny.experiment").write_text(EXPERIMENT.format(labels=labels, chunks=chunks))


@pytest.fixture(scope="module", params=["declared", "distant"])
def predicted(request, tmp_path_factory):
    """A learned network, its predictions, and the same histories as a table of posts."""
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_project(request.param)
        main(["fit", "--config", "tiny.experiment", "--run=tiny"])
        main(["predict", "--config", "tiny.experiment", "--run=tiny"])
    hidden = {"label_patterns": ("states",)} if request.param == "distant" else {}
    return ProfileInference(root / "runs/tiny/network", root / "tiny.yaml", **SETTINGS, **hidden)


@pytest.fixture
def posts(predicted):
    root = predicted.language.parent
    rule = SplitRule(num_target_users=0, pretrain_validation_share=0.0)
    preparation = Preparation(Jsonl(root / "chats.jsonl", root / "people.jsonl"), root / "data", rule)
    rows = [
        {"author": user, "text": spoken.post.text, "time": spoken.post.time, "answered": spoken.answered or None}
        for user, history in histories_of(preparation).items()
        for spoken in history
    ]
    rows = [{"id": f"{number:04}", **row, "in_reply_to": None} for number, row in enumerate(rows)]
    types = {name: pa.string() for name in ("id", "author", "text", "answered", "in_reply_to")}
    return pa.Table.from_pylist(rows, pa.schema({**types, "time": pa.timestamp("ms", tz="UTC")}))


def some(posts: pa.Table, people: list[str]) -> pa.Table:
    return posts.filter(pa.compute.is_in(posts["author"], pa.array(people, pa.string())))


def test_it_is_what_predict_gives_to_the_last_digit(predicted, posts):
    found = predicted.infer(posts)
    assert found.schema == PROFILES
    expected = pq.read_table(predicted.network.parent / "profiles.parquet").to_pylist()
    assert found.to_pylist() == sorted(expected, key=lambda row: (row["user"], row["attribute"]))
    assert 10 < len(found) < 2 * len(PEOPLE)  # some are not sure, and some write too little
    assert {1, 2} < set(found["num_chunks"].to_pylist())
    assert set(found["is_short"].to_pylist()) == {True, False}
    assert {row["user"] for row in expected} & set(PEOPLE[11:])  # in no fold
    assert len(set(found["posterior"].to_pylist())) == len(found)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_parts_and_order_change_nothing(predicted, posts, size, monkeypatch):
    expected = predicted.infer(posts)
    monkeypatch.setattr(profile_inference, "CHUNKS_PER_BATCH", size)
    order = list(range(len(posts)))
    random.Random(1).shuffle(order)
    shuffled = posts.take(order)
    assert predicted.infer(shuffled).equals(expected)
    for parts in ([[person] for person in PEOPLE], [PEOPLE[1::2], PEOPLE[::2]]):
        found = pa.concat_tables(predicted.infer(some(shuffled, part)) for part in parts)
        assert found.sort_by([("user", "ascending"), ("attribute", "ascending")]).equals(expected)


def test_posts_at_one_time_come_by_id_and_those_without_a_time_last(predicted):
    time = START
    rows = [("b", None), ("d", time), ("c", time + timedelta(1)), ("e", time), ("a", None)]
    table = pa.table(
        {
            "id": [id for id, _ in rows],
            "author": ["ann"] * 5,
            "text": [f"text {id}" for id, _ in rows],
            "time": pa.array([time for _, time in rows], pa.timestamp("ms", tz="UTC")),
            "answered": pa.nulls(5, pa.string()),
        }
    )
    ((user, history),) = profile_inference.histories(table)
    assert (user, [spoken.post.text[-1] for spoken in history]) == ("ann", ["d", "e", "c", "a", "b"])
    assert {spoken.answered for spoken in history} == {""}


def test_an_object_that_was_sent_to_another_process_gives_the_same(predicted, posts, tmp_path):
    (tmp_path / "object").write_bytes(pickle.dumps(predicted))
    pq.write_table(posts, tmp_path / "posts.parquet")
    code = (
        "import pickle, sys, pyarrow.parquet as pq; source = pickle.load(open('object', 'rb'));"
        "assert 'torch' not in sys.modules;"
        "pq.write_table(source.infer(pq.read_table('posts.parquet')), 'found.parquet')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert pq.read_table(tmp_path / "found.parquet").equals(predicted.infer(posts))


def test_a_network_is_loaded_once(predicted, posts):
    profile_inference.load.cache_clear()
    predicted.check()
    for person in PEOPLE[:3]:
        pickle.loads(pickle.dumps(predicted)).infer(some(posts, [person]))
    assert profile_inference.load.cache_info().misses == 1


def test_nobody_has_no_profile(predicted, posts):
    assert predicted.infer(posts.slice(0, 0)).equals(PROFILES.empty_table())
    few = posts.filter(pa.compute.equal(posts["author"], "p00")).slice(0, 4)
    assert len(predicted.infer(few)) == 0


def changed(source: ProfileInference, **settings) -> ProfileInference:
    given = {"label_patterns": source.label_patterns, **SETTINGS, **settings}
    return ProfileInference(**{"network": source.network, "language": source.language, **given})


def test_the_fingerprint_is_of_all_that_decides(predicted, tmp_path):
    ours = predicted.fingerprint()
    assert changed(predicted).fingerprint() == ours
    others = [{"min_posts": 7}, {"decision": Decision()}, {"posts_per_chunk": 9}]
    assert ours not in [changed(predicted, **other).fingerprint() for other in others]
    for name in ("tiny.yaml", "places.yaml"):
        (tmp_path / name).write_bytes((predicted.language.parent / name).read_bytes())
    assert changed(predicted, language=tmp_path / "tiny.yaml").fingerprint() == ours
    (tmp_path / "places.yaml").write_text("Osaka: [osaka]\nKyoto: [kyoto]\nNara: [nara, narra]\n")
    assert changed(predicted, language=tmp_path / "tiny.yaml").fingerprint() != ours


def test_what_is_wrong_is_said(predicted, posts, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no learnt network in .*/none; learn it with: lightning fit"):
        changed(predicted, network=tmp_path / "none").check()
    other = tmp_path / "other.yaml"
    other.write_text(LANGUAGE.replace("none: does nothing", "rest: rests"))
    (tmp_path / "places.yaml").write_bytes((predicted.language.parent / "places.yaml").read_bytes())
    with pytest.raises(ValueError, match=r"other\.yaml has other values, patterns or forms than when"):
        changed(predicted, language=other).check()
    with pytest.raises(ValueError, match=r"the posts lack the columns \['answered'\]; they have \['id', 'author'"):
        predicted.infer(posts.drop_columns("answered"))
    with pytest.raises(ValueError, match=r"posts hidden that match \[.*\], and label_patterns are \['asks'\]"):
        changed(predicted, label_patterns=("asks",)).check()
    with pytest.raises(ValueError, match="posts_per_chunk must be 1 or more, got 0"):
        changed(predicted, posts_per_chunk=0)


def test_a_network_that_links_people_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project("declared", FORMULAS + LINK, chunks=0)
    main(["fit", "--config", "tiny.experiment", "--run=tiny", "--trainer.max_epochs=1"])
    with pytest.raises(ValueError, match=r"has a formula about two people, 'Replies\(u, o\) => .*related to whom"):
        ProfileInference(Path("runs/tiny/network"), Path("tiny.yaml")).check()
