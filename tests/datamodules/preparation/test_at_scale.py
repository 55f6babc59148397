"""From posts to token shards: what comes out, that it never depends on how it was done, and that a run goes on."""

import json
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artefacts.manifest import num_pairs, read_manifest, split_fingerprint
from commands.forgetting.prepared_data import PersonInCorpus
from datamodules.corpora import POSTS, Jsonl, Posts
from datamodules.corpora.posts.profile_sources import PROFILES, ProfileSource
from datamodules.preparation.at_scale import pipeline
from datamodules.preparation.run import alone, prepare
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import PRETRAIN_SPLITS, SplitRule
from datamodules.preparation.tokenizer import load_tokenizer

WORDS = ("tea", "rain", "river", "bread", "window", "garden", "music", "train", "evening", "cat", "letter", "stone")
START = datetime(2026, 1, 1, tzinfo=UTC)


class OneByOne:
    """Runs tasks in this process, and stops where a test wants it; keeps results as the engine does."""

    def __init__(self, stop_before=None):
        self.stop_before = stop_before
        self.ran = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, name, function, tasks, directory):
        (directory / name).mkdir(parents=True, exist_ok=True)
        results = []
        for number, task in enumerate(tasks):
            path = directory / name / f"{number}.json"
            if not path.is_file():
                if len(self.ran) == self.stop_before:
                    raise KeyboardInterrupt
                self.ran.append((name, number))
                path.write_text(json.dumps(function(task)))
            results.append(json.loads(path.read_text()))
        return results


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Tests of the engine itself are in test_task_engine.py."""
    monkeypatch.setattr(pipeline, "make_engine", lambda preparation: OneByOne())


def talk(num_posts=300, seed=0):
    """Posts of ten people who mostly answer what was said before."""
    draw = random.Random(seed)
    posts = []
    for number in range(num_posts):
        before = posts[number - draw.randint(1, 3)] if number > 3 and draw.random() < 0.85 else None
        author = f"user{draw.randrange(10)}"
        if before and before["in_reply_to"] and draw.random() < 0.8:
            author = next(post for post in posts if post["id"] == before["in_reply_to"])["author"]
        posts.append(
            {
                "id": f"p{number}",
                "author": author,
                "text": f"{' '.join(draw.choices(WORDS, k=draw.randint(2, 6)))} number {number}",
                "time": (START + timedelta(hours=number)).isoformat(),
                "in_reply_to": before and before["id"],
            }
        )
    return posts


def write(directory, posts, num_files=1):
    directory.mkdir(exist_ok=True)
    for number in range(num_files):
        lines = "".join(json.dumps(post) + "\n" for post in posts[number::num_files])
        (directory / f"posts-{number}.jsonl").write_text(lines)
    return Posts(files=str(directory))


def preparation_of(corpus, output, **settings):
    rule = SplitRule(num_target_users=0, pretrain_validation_share=0.1)
    return Preparation(corpus, output, rule, **{"vocabulary_size": 400, "num_buckets": 1, **settings})


def contents(output):
    manifest = read_manifest(output)
    return [split_fingerprint(manifest, split) for split in PRETRAIN_SPLITS]


def rows_of(output, split="pretrain/train"):
    return [row for path in sorted((output / split).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_pairs_are_those_of_the_posts(tmp_path):
    posts = talk()
    output = tmp_path / "out"
    prepare(preparation_of(write(tmp_path / "in", posts), output))
    at = {post["id"]: post for post in posts}
    answered = {post["id"] for post in posts if post["in_reply_to"]}
    expected = {id for id in answered if at[id]["author"] != at[at[id]["in_reply_to"]]["author"]}
    manifest = read_manifest(output)
    assert manifest["dropped"] == {"reply to oneself": len(answered) - len(expected)}
    assert sum(num_pairs(manifest, split) for split in PRETRAIN_SPLITS) == len(expected) > 150
    assert (manifest["num_posts"], manifest["num_authors"], manifest["target_users"]) == (300, 10, [])
    tokenizer = load_tokenizer(output / "tokenizer")
    texts = {post["text"]: post for post in posts}
    for split in PRETRAIN_SPLITS:
        ids = [row["pair_id"] for row in rows_of(output, split)]
        assert ids == sorted(ids)
        for row in rows_of(output, split):
            response = texts[tokenizer.decode(row["response_ids"])]
            assert (row["speaker"], row["partner"]) == (response["author"], at[response["in_reply_to"]]["author"])
            last = row["context_ids"][-row["context_lengths"][-1] :]
            assert tokenizer.decode(last) == at[response["in_reply_to"]]["text"]
    train, validation = ({row["dialogue_id"] for row in rows_of(output, split)} for split in PRETRAIN_SPLITS)
    assert len(validation) > 3
    assert not train & validation


def test_buckets_and_files_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "ROWS_PER_PART", 50)  # several parts
    found = set()
    for number, (num_files, num_buckets) in enumerate([(1, 1), (3, 1), (2, 7), (1, 16)]):
        posts = talk()
        random.Random(number).shuffle(posts)
        output = tmp_path / f"out{number}"
        prepare(preparation_of(write(tmp_path / f"in{number}", posts, num_files), output, num_buckets=num_buckets))
        found.add(tuple(contents(output)))
        assert len(list((output / "pretrain" / "train").iterdir())) > 2
    assert len(found) == 1


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def test_wherever_it_was_stopped_it_goes_on(tmp_path, monkeypatch):
    corpus = write(tmp_path / "in", talk(), num_files=2)
    whole = OneByOne()
    monkeypatch.setattr(pipeline, "make_engine", lambda preparation: whole)
    prepare(preparation_of(corpus, tmp_path / "whole", num_buckets=3))
    assert names_in(tmp_path / "whole") == ["manifest.json", "pairs", "pretrain", "tokenizer"]
    assert names_in(tmp_path) == ["in", "whole", "whole.lock"]  # nothing is left over
    assert len(whole.ran) == 2 + 4 * 3 + 2  # units, four stages of buckets, parts
    for stop in range(len(whole.ran)):
        output = tmp_path / f"stopped{stop}"
        engine = OneByOne(stop_before=stop)
        monkeypatch.setattr(pipeline, "make_engine", lambda preparation, engine=engine: engine)
        with pytest.raises(KeyboardInterrupt):
            prepare(preparation_of(corpus, output, num_buckets=3))
        assert not output.exists()
        engine.stop_before = None
        prepare(preparation_of(corpus, output, num_buckets=3))
        assert engine.ran == whole.ran  # nothing twice
        assert contents(output) == contents(tmp_path / "whole")
        assert read_manifest(output)["dropped"] == read_manifest(tmp_path / "whole")["dropped"]


def test_stopped_behind_the_manifest(tmp_path, monkeypatch):
    corpus = write(tmp_path / "in", talk())

    def stop(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_remove", lambda path: stop(path) if path.name == "results" else None)
        with pytest.raises(KeyboardInterrupt):
            prepare(preparation_of(corpus, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    prepare(preparation_of(corpus, tmp_path / "out"))
    assert names_in(tmp_path / "out") == ["manifest.json", "pairs", "pretrain", "tokenizer"]


def test_other_settings_start_anew(tmp_path, monkeypatch, capsys):
    corpus = write(tmp_path / "in", talk())
    engine = OneByOne(stop_before=4)
    monkeypatch.setattr(pipeline, "make_engine", lambda preparation: engine)
    with pytest.raises(KeyboardInterrupt):
        prepare(preparation_of(corpus, tmp_path / "out"))
    engine.stop_before = None
    engine.ran.clear()
    prepare(preparation_of(corpus, tmp_path / "out", max_context_turns=2))
    assert engine.ran[0] == ("posts", 0)
    assert "starting anew" in capsys.readouterr().out
    assert max(len(row["context_lengths"]) for row in rows_of(tmp_path / "out")) == 2


@pytest.mark.parametrize("damage", ["removed", "truncated", "changed"])
def test_a_damaged_part_is_written_again_alone(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(pipeline, "ROWS_PER_PART", 50)
    output = tmp_path / "out"
    preparation = preparation_of(write(tmp_path / "in", talk()), output)
    prepare(preparation)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("part-*.parquet")}
    path = output / "pretrain" / "train" / "part-00001.parquet"
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-100])
    else:
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        prepare(preparation)
        assert path.read_bytes() != content  # not looked at: that takes reading all of it
        preparation.verify = True
    prepare(preparation)
    assert path.read_bytes() == content
    assert all(other.stat().st_mtime_ns == time for other, time in before.items() if other != path)
    path.unlink()
    (output / "pairs" / "000000.arrow").unlink()
    with pytest.raises(ValueError, match="cannot be written again"):
        prepare(preparation)


def test_posts_that_nobody_answers(tmp_path):
    posts = [{**post, "in_reply_to": None} for post in talk(30)]
    with pytest.raises(ValueError, match="not one reply whose post is there as well"):
        prepare(preparation_of(write(tmp_path / "in", posts), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_settings_of_dialogues_and_posts_do_not_mix(tmp_path):
    with pytest.raises(ValueError, match="set it to 0"):
        Preparation(Posts("posts.jsonl"), tmp_path / "out")
    with pytest.raises(ValueError, match="engine is for posts"):
        Preparation(Jsonl(tmp_path / "x.jsonl"), tmp_path / "out", engine="ray")


def test_a_forgotten_person_stays_forgotten(tmp_path):
    output = tmp_path / "out"
    preparation = preparation_of(write(tmp_path / "in", talk()), output)
    prepare(preparation)
    before = len(rows_of(output))
    PersonInCorpus(output, "user3").forget(lambda *_: None)
    assert people_of(output) == {f"user{number}" for number in range(10) if number != 3}
    assert 0 < len(rows_of(output)) < before
    path = output / "pretrain" / "train" / "part-00000.parquet"
    rows = rows_of(output)
    path.unlink()
    prepare(preparation)  # from pairs/, in which the person is not either
    assert rows_of(output) == rows
    assert prepare(preparation)["forgotten"] == 1


def people_of(output):
    return {row[name] for split in PRETRAIN_SPLITS for row in rows_of(output, split) for name in ("speaker", "partner")}


def test_who_opted_out_is_left_at_the_door(tmp_path):
    posts = talk()
    (tmp_path / "opt_out.txt").write_text("user3\n")
    corpus = write(tmp_path / "in", posts)
    preparation = preparation_of(corpus, tmp_path / "out", opt_out=tmp_path / "opt_out.txt")
    manifest = prepare(preparation)
    assert "user3" not in people_of(tmp_path / "out")
    assert manifest["dropped"]["opted out"] == sum(post["author"] == "user3" for post in posts)
    (tmp_path / "opt_out.txt").write_text("user3\nuser5\n")
    with pytest.raises(ValueError, match="1 of the people in .*opt_out.txt are in .*out: take each out"):
        prepare(preparation)
    PersonInCorpus(tmp_path / "out", "user5").forget(lambda *_: None)
    manifest = (tmp_path / "out" / "manifest.json").read_bytes()
    prepare(preparation)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == manifest  # runs know their data by it


def test_two_runs_may_look_at_a_finished_directory_at_once(tmp_path):
    preparation = preparation_of(write(tmp_path / "in", talk()), tmp_path / "out")
    prepare(preparation)
    with alone(tmp_path / "out"):
        prepare(preparation)
        (tmp_path / "out" / "pretrain" / "train" / "part-00000.parquet").unlink()
        with pytest.raises(ValueError, match="another preparation is at work"):
            prepare(preparation)


class Recorder(ProfileSource):
    """Keeps the posts that it sees, and knows one thing of everybody."""

    def __init__(self):
        self.seen = []

    def check(self):
        pass

    def fingerprint(self):
        return "recorder"

    def infer(self, posts):
        assert posts.column_names == [*POSTS.names, "answered"]
        self.seen += posts["id"].to_pylist()
        users = sorted(set(posts["author"].to_pylist()))
        row = {"attribute": "age", "value": "20", "posterior": 0.9, "num_chunks": 1, "is_short": False}
        return pa.Table.from_pylist([{"user": user, **row} for user in users], schema=PROFILES)


@pytest.mark.parametrize("num_buckets", [1, 4])
def test_held_out_responses_are_no_evidence(tmp_path, num_buckets):
    posts = talk()
    corpus = write(tmp_path / "in", posts)
    corpus.profiles = Recorder()
    output = tmp_path / "out"
    manifest = prepare(preparation_of(corpus, output, num_buckets=num_buckets))
    assert manifest["profiles"] == 10
    assert pq.read_table(output / "profiles.parquet")["user"].to_pylist() == sorted(f"user{n}" for n in range(10))
    tokenizer = load_tokenizer(output / "tokenizer")
    responses = {tokenizer.decode(row["response_ids"]) for row in rows_of(output, "pretrain/validation")}
    hidden = {post["id"] for post in posts if post["text"] in responses}
    assert len(hidden) > 5
    assert sorted(corpus.profiles.seen) == sorted({post["id"] for post in posts} - hidden)


def test_broken_lines_are_counted_up_to_a_share(tmp_path):
    corpus = write(tmp_path / "in", talk())
    with (tmp_path / "in" / "posts-0.jsonl").open("a") as file:
        file.write('{"id": "x", "aut\n' * 3)
    message = "(?s)3 records could not be read, more than the allowed share 0.001:.*3 not JSON .such as .*posts-0"
    with pytest.raises(ValueError, match=message):
        prepare(preparation_of(corpus, tmp_path / "out", max_dropped=0.001))
    assert not (tmp_path / "out").exists()
    manifest = prepare(preparation_of(corpus, tmp_path / "out", max_dropped=0.01))
    assert manifest["dropped"]["not JSON"] == 3
    assert manifest["num_posts"] == 300
