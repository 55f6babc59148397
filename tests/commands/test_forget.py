"""`lightning forget`: nothing of the person is left, all else is as it was, and a kill in the middle does no harm."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from artefacts.manifest import num_pairs, read_manifest, user_numbers
from commands.cli import main
from commands.forget import Forget
from commands.forgetting.parquet_rows import take_out
from commands.forgetting.prepared_data import NOTE
from datamodules import ReplyPairs, UserSets
from datamodules.corpora import Corpus, Dialogue, Drops, Profile, Turn
from datamodules.preparation import shards
from datamodules.preparation.run import prepare
from datamodules.preparation.settings import Preparation
from datamodules.prompts.loading import numbered_users
from datamodules.shards.reader import ShardReader

ZORA = "zora-4711"
SPLITS = ("pretrain/train", "pretrain/validation", "users/train", "users/validation", "users/test")


class WithZora(Corpus):
    """The invented corpus, in which ada has a name that occurs nowhere else, and talks with ben as well."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    @property
    def files(self):
        return []

    def dialogues(self, drops: Drops):
        for dialogue in self.corpus.dialogues(drops):
            people = {turn.speaker for turn in dialogue.turns}
            other = {"ada": ZORA, **({"guest 0": "ben"} if "ada" in people else {})}
            turns = tuple(Turn(other.get(t.speaker, t.speaker), t.text, t.time) for t in dialogue.turns)
            yield Dialogue(dialogue.id, turns, dialogue.source)

    def profiles(self):
        for profile in self.corpus.profiles():
            yield Profile(ZORA if profile.user == "ada" else profile.user, profile.attributes, profile.origin)


@pytest.fixture(scope="module")
def made(tmp_path_factory, invented_corpus, split_rule):
    """Prepared data in small groups, and what commands leave below runs."""
    root = tmp_path_factory.mktemp("zora")
    rule = type(split_rule)(**{**vars(split_rule), "max_turns": 70})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS_PER_GROUP", 20)
        patch.setattr(shards, "ROWS_PER_PART", 100)
        prepare(Preparation(WithZora(invented_corpus), root / "data/invented", rule, vocabulary_size=400))
    shuffled = pa.record_batch({"speaker": [ZORA, "ben"], "partner": ["ben", "dan"], "pair_id": [1, 2]})
    (root / "data/invented/pairs").mkdir()
    with pa.ipc.new_file(str(root / "data/invented/pairs/0.arrow"), shuffled.schema) as file:
        file.write_batch(shuffled)
    make_runs(root)
    return root


def rows_of(directory, split):
    paths = sorted((directory / split).glob("*.parquet"))
    return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]


def card(data, **more):
    return json.dumps({"status": "finished", "backbone": "b0", "config": {"data": data}, **more})


def make_runs(root):
    data, runs = root / "data/invented", root / "runs"
    to_zora = next(row for row in rows_of(data, "users/test") + rows_of(data, "users/train") if row["partner"] == ZORA)
    by_dan = next(row for row in rows_of(data, "users/test") if row["speaker"] == "dan")
    line = {"context": [["partner", "hm"]], "reference": "r", "candidates": ["c"], "nll": 1.0, "tokens": 1}
    of = [(ZORA, 7), ("ben", to_zora["pair_id"]), ("dan", by_dan["pair_id"])]
    preparation = {"output": "data/invented"}
    texts = {
        "lora/predictions.jsonl": "".join(json.dumps({"user": u, "pair_id": i, **line}) + "\n" for u, i in of),
        "lora/predictions.partial": '{"user": "zora-47',
        "lora/predictions.jsonl.partial": '{"user": "zora-47',
        "lora/test_users.csv": f"user,own_nll\r\n{ZORA},1\r\nben,2\r\n",
        "lora/swaps.csv": f"user,adapter,nll\nben,{ZORA},1\n{ZORA},ben,1\nben,ben,1\n",
        "lora/fit.card.json": card(
            {"class_path": "datamodules.UserSets", "init_args": {"users": [ZORA, "ben"], "preparation": preparation}}
        ),
        "lora/logs/version_0/hparams.yaml": f"data:\n  init_args:\n    users:\n    - {ZORA}\n    - ben\n",
        f"lora/adapters/{ZORA}/card.json": json.dumps({"user": ZORA}),
        f"lora/adapters/{ZORA}.partial/card.json": json.dumps({"user": ZORA}),
        "lora/adapters/ben/card.json": json.dumps({"user": "ben"}),
        f"tuned/models/{ZORA}.best/card.json": json.dumps({"user": ZORA}),
        "alone/fit.card.json": card({"class_path": "datamodules.UserSets", "init_args": {"users": ZORA}}),
        "alone/conversations.jsonl": "",
        "joint/fit.card.json": card(
            {
                "class_path": "datamodules.ReplyPairs",
                "init_args": {"preparation": preparation, "train_split": "users/train"},
            }
        ),
        "joint/backbone/manifest.json": json.dumps({"fingerprint": "b1"}),
        "pretrain/fit.card.json": card(
            {"class_path": "datamodules.ReplyPairs", "init_args": {"preparation": preparation}}
        ),
        "on_joint/fit.card.json": card({}, backbone="b1"),
        "mln/network/vocabulary.json": json.dumps({"folds": {ZORA: 0, "ben": 1}}),
        "tables/x/logs/a.log": f"begun\n  … hm\n    said:  oh\n    model: ah\ntuned weights of {ZORA}\nended\n",
        ".cache/embeddings/e.sqlite": "?",
        ".answers/ab/ab1.json": "{}",
        "lora/wandb/offline-run-1/files/media/table/replies_1.table.json": "{}",
        "lora/wandb/offline-run-2/files/output.log": "fine",
        "human/key.json": json.dumps({"page": "p", "items": {"i": {"user": ZORA, "pair_id": 7}}}),
        "human/page.html": "what somebody said",
    }
    said = [
        ("own", 0, 0, None), ("own", 0, 1, ZORA), ("own", 0, 2, "cleo"), ("own", 1, 1, "cleo"), ("own", 1, 2, "dan"),
        ("real", 0, 1, None), ("real", 0, 2, ZORA), ("real", 3, 1, None), ("real", 3, 2, "dan"),
    ]  # fmt: skip
    names = ("system", "conversation", "turn", "speaker")
    turns = [json.dumps({**dict(zip(names, one, strict=True)), "text": "a\u2028b"}, ensure_ascii=False) for one in said]
    texts["talks/conversations.jsonl"] = "".join(f"{turn}\n" for turn in turns)
    for name, text in texts.items():
        (runs / name).parent.mkdir(parents=True, exist_ok=True)
        (runs / name).write_bytes(text.encode())
    parts = [f"0123456789abcdef/own/0/1-10/{ZORA}", ZORA, "ben", f"x/{ZORA}"]
    pq.write_table(pa.table({"user": parts, "value": ["a", "b", "c", "d"]}), runs / "mln/profiles.parquet")
    (runs / "lora/checkpoints").mkdir()
    torch.save({"roster": {"waiting": [ZORA]}}, runs / "lora/checkpoints/last.ckpt")
    torch.save({"roster": {"waiting": [f"{ZORA}0"]}}, runs / "lora/checkpoints/other.ckpt")


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def tree(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def same_for_all(files):
    """The files, without the salted hash, which is another one each time."""
    manifest = json.loads(files["data/invented/manifest.json"])
    manifest.pop("forgotten_last")
    return {**files, "data/invented/manifest.json": manifest}


def test_pairs_go_and_counts_and_checksums_fit(here):
    directory = here / "data/invented"
    before = {split: rows_of(directory, split) for split in SPLITS}
    old = read_manifest(directory)
    Forget(ZORA).run()
    manifest = read_manifest(directory)
    for split in SPLITS:
        kept = [row for row in before[split] if ZORA not in (row["speaker"], row["partner"])]
        assert rows_of(directory, split) == kept
        assert num_pairs(manifest, split) == len(kept)
        reader = ShardReader(directory, split)
        assert len(reader.read(range(len(reader.groups)))) == len(kept)
        assert 0 not in reader.group_sizes
        for part in manifest["splits"][split]:
            path = directory / split / part["file"]
            assert part["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            rows = pq.ParquetFile(path).read().to_pylist()
            sums = [sum(column) for column in zip(*part["row_groups"], strict=True)] or [0, 0, 0]
            tokens = [sum(len(row[name]) for row in rows) for name in ("context_ids", "response_ids")]
            assert sums == [len(rows), *tokens]
    assert sum(map(len, before.values())) > sum(num_pairs(manifest, split) for split in SPLITS)
    assert old["target_users"] == ["ben", "cleo", "dan", ZORA]
    assert manifest["target_users"] == ["ben", "cleo", "dan"]
    assert (old["num_dialogues"], manifest["num_dialogues"]) == (70, 60)  # one with each of ten people
    assert (old["profiles"], manifest["profiles"], manifest["forgotten"]) == (3, 2, 1)
    assert pa.ipc.open_file(str(directory / "pairs/0.arrow")).get_batch(0).to_pydict() == {
        "speaker": ["ben"], "partner": ["dan"], "pair_id": [2]
    }  # fmt: skip


def test_runs_without_the_person(here):
    Forget(ZORA).run()
    runs = here / "runs"
    lines = [json.loads(line) for line in (runs / "lora/predictions.jsonl").read_text().splitlines()]
    assert [line["user"] for line in lines] == ["dan"]  # ben's was an answer to zora
    assert (runs / "lora/test_users.csv").read_bytes() == b"user,own_nll\r\nben,2\r\n"
    assert list(csv.reader((runs / "lora/swaps.csv").open())) == [["user", "adapter", "nll"], ["ben", "ben", "1"]]
    assert [path.name for path in (runs / "lora/adapters").iterdir()] == ["ben"]
    assert json.loads((runs / "mln/network/vocabulary.json").read_text()) == {"folds": {"ben": 1}}
    assert (runs / "lora/logs/version_0/hparams.yaml").read_text() == "data:\n  init_args:\n    users:\n    - ben\n"
    assert pq.read_table(runs / "mln/profiles.parquet")["value"].to_pylist() == ["c", "d"]
    assert (runs / "tables/x/logs/a.log").read_text() == "begun\nended\n"
    assert [path.name for path in (runs / "lora/checkpoints").iterdir()] == ["other.ckpt"]
    assert [path.name for path in (runs / "lora/wandb").iterdir()] == ["offline-run-2"]
    turns = [json.loads(line) for line in (runs / "talks/conversations.jsonl").read_text().split("\n") if line]
    assert [(turn["system"], turn["conversation"]) for turn in turns] == [("own", 1)] * 2 + [("real", 3)] * 2
    gone = "alone .cache/embeddings .answers human/page.html human/key.json lora/predictions.partial"
    assert not any((runs / name).exists() for name in [*gone.split(), "lora/predictions.jsonl.partial"])


def test_no_trace(here, capsys):
    unfinished = here / "data/other.partial/authors"
    unfinished.mkdir(parents=True)
    pq.write_table(pa.table({"author": [ZORA, "ben"]}), unfinished / "0.parquet")
    shutil.rmtree(here / "runs/mln")  # where somebody else's name ends in the same letters
    (here / "runs/lora/checkpoints/other.ckpt").unlink()
    Forget(ZORA).run()
    # Uncompressed, because Parquet's pages are compressed.
    named = [name for name, content in tree(here).items() if ZORA.encode() in content or ZORA in name]
    assert named == ["data/opt_out.txt"]
    for path in here.rglob("*.parquet"):
        assert ZORA not in str(pq.ParquetFile(path).read().to_pylist())
    said = capsys.readouterr().out
    assert "look yourself" not in said
    assert "opt_out: data/opt_out.txt" in said
    Forget(ZORA).run()
    assert "nothing is left of them" in capsys.readouterr().out


def test_what_no_rule_knows_is_named(here, capsys):
    (here / "runs/lora/notes.txt").write_text(f"ask {ZORA}")
    (here / "runs/lora/other.txt").write_text(f"ask {ZORA}2")
    Forget(ZORA).run()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("look yourself")]
    assert said == [f"look yourself: runs/lora/notes.txt still has '{ZORA}' in it"]


def test_what_was_learnt_is_named(here, capsys):
    Forget(ZORA).run()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("to retrain", "stays"))]
    assert said == [
        "to retrain: runs/joint: trained with this person's words",
        "to retrain: runs/lora: the weights of 1 people who answered this person: ben",
        "to retrain: runs/on_joint: stands on the backbone of runs/joint",
        "stays: data/invented/tokenizer: its pieces may be learned from this person's words, among all others'",
    ]


def test_a_dry_run_changes_nothing_and_has_the_same_plan(here, capsys):
    before = tree(here)
    main(["forget", "--user", ZORA, "--dry_run"])
    assert tree(here) == before
    plans = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to remove")]
    main(["forget", "--user", ZORA])
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("to remove")] == plans
    assert len(plans) > 20


@pytest.mark.parametrize("user", ["zora", "zora-47111", "Zora-4711", "a\nb"])
def test_an_unknown_person(here, user):
    before = tree(here)
    with pytest.raises(SystemExit) as stop:
        main(["forget", "--user", user])
    assert f"nothing is known of user {user!r}" in stop.value.code
    assert str(here / "data") in stop.value.code
    assert str(here / "runs") in stop.value.code
    assert tree(here) == before


def test_an_id_without_a_letter(here):
    with pytest.raises(ValueError, match="give the id of one person"):
        Forget(" \n").run()


def test_the_opt_out_file_is_added_to_unless_told_otherwise(here):
    (here / "data/opt_out.txt").write_text("somebody")
    Forget("ben", no_opt_out=True).run()
    assert (here / "data/opt_out.txt").read_text() == "somebody"
    Forget(ZORA).run()
    assert (here / "data/opt_out.txt").read_text() == f"somebody\n{ZORA}\n"


def test_a_kill_at_any_moment_and_the_same_command_again(here, made, tmp_path, monkeypatch):
    replace = os.replace
    num_calls = 0

    def counted(*paths):
        nonlocal num_calls
        num_calls += 1
        if num_calls == deadline:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", counted)
    deadline = 0
    Forget(ZORA).run()
    expected, of_all = same_for_all(tree(here)), num_calls
    assert of_all > 15
    for deadline in [1, 2, 5, *range(9, of_all + 1)]:
        killed = tmp_path / f"killed {deadline}"
        shutil.copytree(made, killed)
        monkeypatch.chdir(killed)
        num_calls = 0
        with pytest.raises(KeyboardInterrupt):
            Forget(ZORA).run()
        for path in killed.rglob("*.parquet"):
            pq.ParquetFile(path).read()
        Forget(ZORA).run()
        assert same_for_all(tree(killed)) == expected, deadline


def test_a_kill_before_the_note_goes(here, monkeypatch):
    with monkeypatch.context() as patch:
        unlink = Path.unlink
        patch.setattr(Path, "unlink", lambda path, **how: unlink(path, **how) if path.name != NOTE else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Forget(ZORA).run()
    after = read_manifest(here / "data/invented")
    Forget(ZORA).run()
    assert read_manifest(here / "data/invented") == after
    assert not (here / "data/invented" / NOTE).exists()


def test_somebody_else_comes_after_who_was_interrupted(here, monkeypatch):
    directory = here / "data/invented"
    with monkeypatch.context() as patch:
        patch.setattr("commands.forgetting.prepared_data.take_out", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Forget(ZORA).run()
    assert ZORA not in (directory / NOTE).read_text()
    with pytest.raises(ValueError, match="forgetting somebody else was interrupted"):
        Forget("ben").run()
    Forget(ZORA).run()
    Forget("ben").run()
    assert read_manifest(directory)["forgotten"] == 2


def test_a_damaged_part_is_not_made_to_look_whole(here):
    part = here / "data/invented/users/train/part-00000.parquet"
    table = pq.ParquetFile(part).read()
    pq.write_table(table.slice(1), part)
    with pytest.raises(ValueError, match=r"part-00000.parquet is not what manifest.json describes"):
        Forget(ZORA).run()
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"part-00000.parquet is damaged"):
        Forget(ZORA).run()


def test_numbers_of_the_others_stay(here):
    directory = here / "data/invented"
    assert user_numbers(read_manifest(directory)) == {"ben": 0, "cleo": 1, "dan": 2, ZORA: 3}
    Forget("ben").run()
    Forget("dan").run()
    assert numbered_users(directory) == {"cleo": {"user": "1"}, ZORA: {"user": "3"}}


def test_readers_work_afterwards(here, invented_corpus, split_rule):
    Forget(ZORA).run()
    rule = type(split_rule)(**{**vars(split_rule), "max_turns": 70})
    settings = {"splits": rule, "vocabulary_size": 400, "opt_out": here / "data/opt_out.txt"}
    preparation = Preparation(WithZora(invented_corpus), here / "data/invented", **settings)
    pairs = ReplyPairs(preparation, tokens_per_batch=256)
    pairs.prepare_data()
    pairs.setup("fit")
    manifest = read_manifest(preparation.output)
    assert sum(len(batch.pair_id) for batch in pairs.train_dataloader()) == num_pairs(manifest, "pretrain/train")
    users = UserSets(preparation, min_train_turns=1)
    users.setup("test")
    assert users.users == ["ben", "cleo", "dan"]
    assert len(list(users.predict_dataloader())) > 0


@pytest.mark.parametrize("kind", [pa.ipc.new_file, pa.ipc.new_stream])
def test_record_batches_keep_their_numbers(tmp_path, kind):
    people = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema({"speaker": people, "partner": pa.string(), "x": pa.int64()}, metadata={"k": "v"})
    names = pa.array(["a", ZORA, "b"])

    def batch(speakers, partners, numbers):
        codes = pa.array(speakers, pa.int32())
        return pa.record_batch([pa.DictionaryArray.from_arrays(codes, names), pa.array(partners), numbers], schema)

    path = tmp_path / "0.arrow"
    with kind(str(path), schema) as file:
        file.write_batch(batch([0, 1, 2], ["b", "a", ZORA], pa.array([1, 2, 3])))
        file.write_batch(batch([1, 1], ["a", "b"], pa.array([4, 5])))
        file.write_batch(batch([2, None], [None, "a"], pa.array([6, 7])))
    take_out(path, ZORA)
    opened = (pa.ipc.open_file if kind is pa.ipc.new_file else pa.ipc.open_stream)(path.read_bytes())
    batches = list(opened) if kind is pa.ipc.new_stream else [opened.get_batch(i) for i in range(3)]
    assert [one["x"].to_pylist() for one in batches] == [[1], [], [6, 7]]
    assert batches[2]["speaker"].to_pylist() == ["b", None]
    assert opened.schema.equals(schema, check_metadata=True)
    assert ZORA.encode() not in path.read_bytes()


# ---- the door


def preparation_of(corpus, split_rule, output, opt_out, **settings):
    rule = type(split_rule)(**{**vars(split_rule), "num_target_users": 3, "max_turns": 70})
    return Preparation(WithZora(corpus), output, rule, vocabulary_size=400, opt_out=opt_out, **settings)


def test_who_opted_out_is_left_out(tmp_path, invented_corpus, split_rule, capsys):
    (tmp_path / "out.txt").write_text(f"\ufeff{ZORA} \n\nnobody\n", encoding="utf-8")
    paths = (tmp_path / "a", tmp_path / "out.txt")
    manifest = prepare(preparation_of(invented_corpus, split_rule, *paths, max_dropped=0.0))  # 10 of 70 are too many
    assert manifest["num_dialogues"] == 60
    assert manifest["dropped"] == {"opted out": 10}
    assert manifest["profiles"] == 2
    rows = [row for split in SPLITS for row in rows_of(tmp_path / "a", split)]
    people = {row[name] for row in rows for name in ("speaker", "partner")}
    assert ZORA not in people and "ben" in people
    assert ZORA not in capsys.readouterr().out
    assert ZORA not in (tmp_path / "a/manifest.json").read_text()


def test_a_list_that_grows_after_preparation(tmp_path, invented_corpus, split_rule):
    (tmp_path / "out.txt").write_text("")
    made = preparation_of(invented_corpus, split_rule, tmp_path / "data/a", tmp_path / "out.txt")
    manifest = prepare(made)
    (tmp_path / "out.txt").write_text(f"{ZORA}\nnobody\n")
    with pytest.raises(ValueError, match=r"1 of the people in .*out.txt are in .*: take each out with `lightning"):
        prepare(made)
    Forget(ZORA, tmp_path / "data", tmp_path / "runs").run()
    assert prepare(made)["forgotten"] == 1
    assert "opted out" not in manifest["dropped"]


def test_a_list_that_is_not_there(tmp_path, invented_corpus, split_rule):
    with pytest.raises(FileNotFoundError, match="opt_out is a text file"):
        prepare(preparation_of(invented_corpus, split_rule, tmp_path / "a", tmp_path / "out.txt"))
