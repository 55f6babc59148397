"""`lightning forget`: ids that are ordinary words or have other spellings, links, and what stays usable."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artefacts.fingerprints import fingerprint_of
from artefacts.manifest import read_manifest, split_fingerprint
from commands.cli import main
from commands.forget import Forget
from datamodules.corpora import Dialogue, Turn
from datamodules.preparation.opt_out import add_to_opt_out, read_opt_out
from datamodules.preparation.run import prepare
from datamodules.preparation.settings import Preparation

PIECE = "mark"
"""A person called like a piece of the vocabulary, a module and a word of the network."""


def renamed(corpus, names):
    """The corpus with other names of people, as a class that a preparation takes."""

    class Renamed(type(corpus)):
        def __init__(self):
            self.__dict__.update(vars(corpus))

        def dialogues(self, drops):
            for one in corpus.dialogues(drops):
                turns = tuple(Turn(names.get(turn.speaker, turn.speaker), turn.text, turn.time) for turn in one.turns)
                yield Dialogue(one.id, turns, one.source)

        def profiles(self):
            return iter(())

    return Renamed()


@pytest.fixture
def prepared_as(tmp_path, monkeypatch, invented_corpus, split_rule):
    """Prepares the invented corpus under other names, in a project with a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    rule = type(split_rule)(**{**vars(split_rule), "max_turns": 70})

    def prepare_as(**names):
        prepare(Preparation(renamed(invented_corpus, names), Path("data/invented"), rule, vocabulary_size=400))
        return Path("data/invented")

    return prepare_as


def write(files):
    for name, content in files.items():
        path = Path("runs") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def people(directory):
    tables = [pq.read_table(path, columns=["speaker", "partner"]) for path in directory.rglob("part-*.parquet")]
    return {name for table in tables for column in table.columns for name in column.cast(pa.string()).to_pylist()}


def test_a_person_called_like_a_word_of_other_files_does_not_harm_them(prepared_as):
    prepared_as(ada=PIECE)
    unrelated = {
        "a/backbone/tokenizer.json": {"model": {"vocab": [[PIECE, -3.03], ["x", -1.0]]}},
        "a/backbone/manifest.json": {"fingerprint": "b", PIECE: 1},
        "a/backbone/config.json": {"architectures": [PIECE]},
        "a/adapters/ben/adapter_config.json": {"target_modules": [PIECE, "q"]},
        "a/adapters/ben/card.json": {"user": "ben", "settings": {"schedule": PIECE}},
        "p/network/vocabulary.json": {"words": [PIECE, "x"], "folds": {"ben": 1}},
        "p/network/weights.tsv": f"1.0\t{PIECE}\n",
        "a/logs/version_0/metrics.csv": f"{PIECE},loss\n{PIECE},1\n",
    }
    config = {"model": {"init_args": {"schedule": PIECE}}, "data": {"init_args": {"users": [PIECE, "ben"]}}}
    write({**unrelated, "a/fit.card.json": {"config": config}})
    before = {name: (Path("runs") / name).read_bytes() for name in unrelated}
    Forget(PIECE).run()
    assert {name: (Path("runs") / name).read_bytes() for name in unrelated} == before
    config["data"]["init_args"]["users"] = ["ben"]
    assert json.loads(Path("runs/a/fit.card.json").read_text()) == {"config": config}
    assert PIECE not in people(Path("data/invented"))


def test_links_neither_stop_it_nor_hide_anything(prepared_as, tmp_path, capsys):
    prepared_as()
    card = {"config": {"data": {"init_args": {"users": ["ada", "ben"]}}}}
    write(
        {"lora/fit.card.json": card, "lora/adapters/ada/card.json": {"user": "ada"}, "lora/adapters/ben/card.json": {}}
    )
    write({"lora/wandb/offline-run-1/files/output.log": "    said:  hm", "lora/wandb/offline-run-1/logs/debug.log": ""})
    elsewhere = tmp_path / "elsewhere"
    shutil.move("runs/lora", elsewhere / "lora")
    shutil.move(elsewhere / "lora/adapters/ada", elsewhere / "ada")
    Path("runs/lora").symlink_to(elsewhere / "lora")
    (elsewhere / "lora/adapters/ada").symlink_to(elsewhere / "ada")
    for link, target in {"latest-run": "offline-run-1", "debug.log": "offline-run-1/logs/debug.log"}.items():
        (elsewhere / "lora/wandb" / link).symlink_to(target)
    Path("runs/nothing").symlink_to(tmp_path / "missing")
    Path("runs/again").symlink_to("lora")
    for line in ({"user": "ada", "pair_id": 1}, {"user": "ben", "pair_id": 2}):
        with (elsewhere / "lines").open("a") as file:
            file.write(json.dumps(line) + "\n")
    (elsewhere / "lora/predictions.jsonl").symlink_to(elsewhere / "lines")
    Forget("ada").run()
    assert f"(a link; {elsewhere / 'ada'} stays: delete it yourself)" in capsys.readouterr().out
    assert not os.path.lexists("runs/lora/adapters/ada") and (elsewhere / "ada/card.json").is_file()
    assert json.loads((elsewhere / "lora/fit.card.json").read_text())["config"]["data"]["init_args"]["users"] == ["ben"]
    assert [json.loads(line)["user"] for line in (elsewhere / "lines").read_text().splitlines()] == ["ben"]
    assert not [path for path in (elsewhere / "lora/wandb").iterdir() if path.is_symlink()]
    main(["forget", "--user=ben"])
    assert not people(Path("data/invented")) & {"ada", "ben"}


def test_other_spellings_are_named_and_can_be_forgotten_each(prepared_as, capsys):
    composed, decomposed = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))
    directory = prepared_as(ada=composed, ben=decomposed, cleo="JOSÉ ", dan="Mum ")
    with pytest.raises(ValueError, match="people who look alike: 'Mum '"):
        Forget("Mum").run()
    for user, others in [(composed, {decomposed, "JOSÉ "}), (decomposed, {"JOSÉ "}), ("JOSÉ ", set()), ("Mum ", set())]:
        capsys.readouterr()
        Forget(user).run()
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("another id that looks alike")]
        assert len(said) == len(others) and all(any(repr(other) in line for line in said) for other in others)
        assert user not in people(directory) and others <= people(directory)
    assert read_opt_out(Path("data/opt_out.txt")) == {"José", "JOSÉ", "Mum"}


def test_runs_of_others_stay_usable(prepared_as):
    directory = prepared_as()
    manifest = read_manifest(directory)
    data = {
        "class_path": "datamodules.UserSets",
        "init_args": {"users": None, "preparation": {"output": str(directory)}},
    }
    trained = {"class_path": "datamodules.ReplyPairs", "init_args": {"preparation": {"output": str(directory)}}}
    prepared = fingerprint_of(directory / "manifest.json")
    split = split_fingerprint(manifest, "users/test")
    guest = sorted(people(directory) - set(manifest["target_users"]))[0]
    write(
        {
            "lora/fit.card.json": {"config": {"data": data}, "prepared": prepared},
            "lora/predict.card.json": {"config": {"data": data}, "prepared": prepared},
            "lora/predictions.card.json": {"split": split},
            "lora/test.card.json": {"config": {"data": data}, "prepared": prepared},
            "pretrain/fit.card.json": {"config": {"data": trained}, "prepared": prepared},
        }
    )
    Forget("dan").run()
    after = fingerprint_of(directory / "manifest.json")
    cards = {path.relative_to("runs").as_posix(): json.loads(path.read_text()) for path in Path("runs").rglob("*.json")}
    assert after != prepared != None  # noqa: E711
    assert [cards[name]["prepared"] for name in ("lora/fit.card.json", "lora/predict.card.json")] == [after, after]
    assert cards["lora/predictions.card.json"]["split"] == split_fingerprint(read_manifest(directory), "users/test")
    assert cards["lora/test.card.json"]["prepared"] == prepared  # is made again
    assert guest in people(directory)


def test_own_files_are_named_among_what_stays(prepared_as, capsys):
    prepared_as()
    Path("chats.jsonl").write_text(json.dumps({"speaker": "ada", "text": "hm"}))
    Path("notes.txt").write_text("adamant\n")
    Path(".hidden").mkdir()
    Path(".hidden/x.txt").write_text("ada")
    Forget("ada").run()
    said = [line for line in capsys.readouterr().out.splitlines() if "a file of your own" in line]
    assert said == [f"stays: {Path('chats.jsonl').resolve()}: a file of your own that names 'ada'; delete it yourself"]


def test_a_list_of_people_who_opted_out_has_comments_and_other_forms(tmp_path):
    path = tmp_path / "opt_out.txt"
    names = ["# on request", "ann  # asked on 3 May", unicodedata.normalize("NFD", "José"), " b\u200eob ", "c#", ""]
    path.write_text("\n".join(names), encoding="utf-8")
    assert read_opt_out(path) == {"ann", "José", "bob", "c#"}
    add_to_opt_out(path, "ann")
    assert path.read_text(encoding="utf-8").splitlines() == names[:-1]
    path.write_bytes("ann\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"opt_out.txt is not UTF-8 .*save it as UTF-8"):
        read_opt_out(path)
