"""Learning, judging and inferring profiles through the command, on an invented corpus with planted words."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from commands.cli import main
from datamodules.prompts.profiles import read_profiles

EXPERIMENT = """
model:
  class_path: lightning_modules.ProfileNetwork
  init_args: {formulas: tiny.mln, l2: 0.1, l2_words: 0.1}
data:
  class_path: datamodules.ProfilePosts
  init_args:
    preparation:
      corpus:
        class_path: datamodules.corpora.Jsonl
        init_args: {dialogues_path: chats.jsonl, profiles_path: people.jsonl}
      output: data/tiny
      splits: {num_target_users: 0, pretrain_validation_share: 0.0}
    language: tiny.yaml
    posts_per_chunk: 10
    num_folds: 4
    min_users: 3
    max_grams: 0
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 60
  enable_progress_bar: false
  callbacks: [callbacks.NetworkExport, callbacks.ProfileWriter]
"""
LANGUAGE = """
segmenter: words
attributes:
  sport:
    written: sport
    values: {ball: plays ball, chess: plays chess}
    patterns: {states: {ball: 'i play ball', chess: 'i play chess'}}
"""
FORMULAS = """
Sport(user, sport!)
*HasWord(user, word)
*SaysSport(user, pattern, sport)
*Replies(user, user)
Sport(user, +s)
SaysSport(user, +p, s) => Sport(user, s)
HasWord(user, +word) => Sport(user, +s)
"""
LINK = "Replies(u, o) => (Sport(u, s) <=> Sport(o, s))\n"
FIT = ["fit", "--config", "tiny.yaml.experiment"]
PEOPLE = [f"p{number:02}" for number in range(20)]
SPORT = {person: ("ball", "chess")[number % 2] for number, person in enumerate(PEOPLE)}
UNLABELLED = ("p18", "p19")


@pytest.fixture(autouse=True)
def planted(tmp_path, monkeypatch):
    """Players of one sport talk with each other; two in three of their posts have a word of their sport."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(3)
    own = {"ball": ["goal", "kick", "team"], "chess": ["pawn", "queen", "mate"]}
    dialogues = []
    for number in range(60):
        sport = ("ball", "chess")[number % 2]
        group, place = [person for person in PEOPLE if SPORT[person] == sport], number // 2
        pair = group[place % 10], group[(place + 1 + place // 10) % 10]
        turns = []
        for turn in range(16):
            words = rng.choices(["the", "a", "so", "it", "is", "we", "and", "oh"], k=4)
            if rng.random() < 0.66:
                words.append(rng.choice(own[sport]))
            turns.append({"speaker": pair[turn % 2], "text": " ".join(words)})
        dialogues.append({"id": str(number), "turns": turns})
    Path("chats.jsonl").write_text("".join(json.dumps(dialogue) + "\n" for dialogue in dialogues))
    profiles = [
        {"user": person, "attributes": {"sport": SPORT[person]}} for person in PEOPLE if person not in UNLABELLED
    ]
    Path("people.jsonl").write_text("".join(json.dumps(profile) + "\n" for profile in profiles))
    Path("tiny.yaml").write_text(LANGUAGE)
    Path("tiny.mln").write_text(FORMULAS)
    Path("tiny.yaml.experiment").write_text(EXPERIMENT)
    return tmp_path


def run_directory() -> Path:
    (directory,) = Path("runs").glob("[!.]*")
    return directory


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "network" / "weights.safetensors")


@pytest.mark.parametrize(("formulas", "right"), [(FORMULAS, 17), (FORMULAS + LINK, 15)], ids=["alone", "linked"])
def test_people_are_told_apart_by_networks_that_have_not_seen_them(formulas, right, capsys):
    Path("tiny.mln").write_text(formulas)
    together = ["--data.chunks_per_batch=0"] if LINK in formulas else []
    main([*FIT, *together])
    main(["test", *FIT[1:], *together])
    main(["predict", *FIT[1:], *together])
    directory = run_directory()
    assert "| sport | 18 | 0.500 |" in capsys.readouterr().out
    judged = pq.read_table(directory / "judgements.parquet").to_pylist()
    votes = [row for row in judged if row["decision"] == "vote"]
    assert {row["user"] for row in votes} == set(PEOPLE) - set(UNLABELLED)
    assert sum(row["value"] == row["label"] for row in votes) >= right
    table = pq.read_table(directory / "profiles.parquet").to_pylist()
    assert {row["user"] for row in table} == set(PEOPLE)
    assert {row["origin"] for row in table} == {"inferred"}
    inferred = read_profiles(directory / "profiles.parquet")  # as the prompts read them
    assert [inferred[person]["sport"] for person in UNLABELLED] == [SPORT[person] for person in UNLABELLED]
    readable = (directory / "network" / "weights.tsv").read_text().splitlines()
    assert any(line.split("\t")[1:3] == ["HasWord(user, +word) => Sport(user, +s)", "pawn"] for line in readable)


def test_a_finished_network_is_used_as_it_is(capsys):
    main(FIT)
    before = (run_directory() / "network" / "weights.safetensors").stat().st_mtime_ns
    with pytest.raises(SystemExit) as ended:
        main(FIT)
    assert ended.value.code == 0
    assert "is finished already and is used as it is" in capsys.readouterr().out
    assert (run_directory() / "network" / "weights.safetensors").stat().st_mtime_ns == before


def test_what_is_known_may_stand_in_the_profile(planted):
    """Whoever has no label keeps what is inferred."""
    main(FIT)
    main(["predict", *FIT[1:]])
    directory = run_directory()
    inferred = pq.read_table(directory / "profiles.parquet").to_pylist()
    main(["predict", *FIT[1:], "--trainer.callbacks+=callbacks.ProfileWriter", "--trainer.callbacks.known_first=true"])
    known = pq.read_table(directory / "profiles.parquet").to_pylist()
    assert {row["user"] for row in known if row["origin"] == "inferred"} == set(UNLABELLED)
    assert [row for row in known if row["user"] in UNLABELLED] == [r for r in inferred if r["user"] in UNLABELLED]
    declared = [row for row in known if row["origin"] == "declared"]
    assert len(declared) == 18
    assert all((row["value"], row["posterior"]) == (SPORT[row["user"]], 1.0) for row in declared)


def test_a_label_of_a_held_out_person_changes_nothing_for_them():
    """The network that judges somebody must not know their label: turn it round, and the judgement stays."""
    exactly = ["--model.tolerance=0", "--trainer.max_epochs=300"]  # learners share a step size
    main([*FIT, *exactly, "--run=right"])
    main(["test", *FIT[1:], "--run=right"])
    people = Path("people.jsonl")
    turned = people.read_text().replace(
        '"p00", "attributes": {"sport": "ball"}', '"p00", "attributes": {"sport": "chess"}'
    )
    assert turned != people.read_text()
    people.write_text(turned)
    main([*FIT, *exactly, "--run=turned"])
    main(["test", *FIT[1:], "--run=turned"])
    right, other = (
        [row for row in pq.read_table(f"runs/{run}/judgements.parquet").to_pylist() if row["user"] == "p00"]
        for run in ("right", "turned")
    )
    assert [row["label"] for row in other] != [row["label"] for row in right]
    assert [row["posterior"] for row in other] == pytest.approx([row["posterior"] for row in right], abs=1e-4)


def test_l1_takes_words_away():
    main([*FIT, "--model.l1=0.5"])
    learned = weights(run_directory())["2"]
    assert 0 < (learned != 0).sum() < learned.numel() / 2


def test_uncertain_attributes_are_left_out(capsys):
    main(FIT)
    decision = '{"class_path": "callbacks.ProfileWriter", "init_args": {"decision": {"min_posterior": 0.9999}}}'
    main(["predict", *FIT[1:], f"--trainer.callbacks=[{decision}]"])
    assert "20 more are less sure than 0.9999 and left out" in capsys.readouterr().out


def test_a_stopped_fit_goes_on_and_comes_out_the_same(monkeypatch):
    from callbacks import NetworkExport

    main([*FIT, "--run=whole"])

    def kill(self, trainer, *_):
        if trainer.global_step == 7:
            raise KeyboardInterrupt

    stopped = [*FIT, "--run=stopped", "--checkpoint_every=0"]
    with monkeypatch.context() as patch:
        patch.setattr(NetworkExport, "on_train_batch_end", kill, raising=False)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            main(stopped)
    assert not Path("runs/stopped/network").exists()
    main(stopped)
    whole, again = weights(Path("runs/whole")), weights(Path("runs/stopped"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("tiny.mln", "*HasWord(user, word)", "*HasWords(user, word)", "unknown predicate HasWord"),
        ("tiny.mln", "=> Sport(user, +s)", "=> Sport(user +s)", "tiny.mln, line 8, column 36: expected ')', got '+'"),
        ("people.jsonl", "chess", "ball", "all 18 labels of sport are the same: there is nothing to learn"),
        ("tiny.yaml.experiment", "formulas: tiny.mln", "formulas: other.mln", "no formula file other.mln"),
        ("tiny.yaml.experiment", "num_folds: 4", "num_folds: 40", "18 users with labels are too few for 40 folds"),
        (
            "tiny.mln",
            "*Replies(user, user)",
            "*Replies(user, user, word)",
            "the data have no Replies(user, user, word); they have Sport(user, sport); SaysSport",
        ),
        (
            "people.jsonl",
            "chess",
            "golf",
            "tiny.yaml does not have these values, which the corpus declares: sport='golf' (9 users)",
        ),
    ],
)
def test_mistakes_end_in_one_message(file, old, new, told):
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))
    with pytest.raises(SystemExit, match=re.escape(told)):
        main(FIT)


def test_without_a_network_there_is_nothing_to_test():
    with pytest.raises(SystemExit, match=r"no learnt network in .*; learn it with: lightning fit"):
        main(["test", *FIT[1:]])


def test_links_need_everybody_in_one_batch():
    Path("tiny.mln").write_text(FORMULAS + LINK)
    with pytest.raises(SystemExit, match=r"set data.chunks_per_batch=0"):  # before anything is learnt
        main(FIT)
    main([*FIT, "--run=linked", "--data.chunks_per_batch=0"])
    with pytest.raises(SystemExit, match=r"set data.chunks_per_batch=0"):
        main(["test", *FIT[1:], "--run=linked", "--data.chunks_per_batch=7"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_small_batches_give_the_same_posteriors(num_workers):
    main(FIT)
    main(["test", *FIT[1:]])
    path = run_directory() / "judgements.parquet"
    whole = pq.read_table(path).to_pylist()
    small = ["--data.chunks_per_batch=7", f"--data.num_workers={num_workers}"]
    main(["test", *FIT[1:], *small, f"--run={run_directory().name}"])
    again = pq.read_table(path).to_pylist()
    assert [row["posterior"] for row in again] == pytest.approx([row["posterior"] for row in whole], abs=1e-5)


def test_a_language_that_has_changed_since_is_refused(capsys):
    """Weights go by the places of values and patterns."""
    main(FIT)
    Path("tiny.yaml").write_text(LANGUAGE.replace("{states: {", "{says: {"))
    with pytest.raises(SystemExit, match="tiny.yaml has other values, patterns or forms than when"):
        main(["predict", *FIT[1:]])


def test_files_of_formulas_are_read_one_after_the_other(capsys):
    """As one file with all of it; a mistake names its own file and line."""
    main([*FIT, "--run=one"])
    lines = FORMULAS.splitlines(keepends=True)
    Path("first.mln").write_text("".join(lines[:6]))
    Path("second.mln").write_text("".join(lines[6:]))
    main([*FIT, "--run=two", "--model.formulas=[first.mln, second.mln]"])
    one, two = (weights(Path("runs") / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    main(["test", *FIT[1:], "--run=two"])
    Path("second.mln").write_text("\nHasWord(user, +word) => Sports(user, +s)")
    with pytest.raises(SystemExit, match="second.mln, line 2, column 25"):
        main([*FIT, "--run=three", "--model.formulas=[first.mln, second.mln]"])
    with pytest.raises(SystemExit, match="model.formulas is empty"):
        main([*FIT, "--run=four", "--model.formulas=[]"])
