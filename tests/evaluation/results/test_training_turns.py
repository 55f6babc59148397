"""Training turns against the corpus they were prepared from, and a corpus that is not the right one."""

import json
import shutil

import pytest

from artefacts.manifest import read_manifest, split_fingerprint
from datamodules.corpora import Drops
from evaluation.results.training_turns import check_corpus, training_turns

TARGET_USERS = ["ada", "ben", "cleo", "dan"]


def test_turns_are_what_the_users_wrote_in_the_order_of_time(prepared, invented_corpus):
    """Ten dialogues of six turns each: the first eight train, and the other person opens, so all six answer."""
    turns = training_turns(prepared)
    dialogues = sorted(invented_corpus.dialogues(Drops()), key=lambda dialogue: dialogue.turns[0].time)
    wrote = {
        user: [turn.text for dialogue in dialogues for turn in dialogue.turns if turn.speaker == user][:48]
        for user in TARGET_USERS
    }
    assert turns == wrote
    assert list(turns) == TARGET_USERS


def test_many_parts_are_one_history(in_small_groups, prepared):
    assert len(read_manifest(in_small_groups.output)["splits"]["users/train"]) > 1
    assert training_turns(in_small_groups.output) == training_turns(prepared)


def test_a_card_tells_its_corpus(prepared):
    fingerprint = split_fingerprint(read_manifest(prepared), "users/test")
    check_corpus("lora", {"split": fingerprint}, prepared)
    check_corpus("lora", {}, prepared)
    with pytest.raises(ValueError, match=f"'lora' predicted the test split 0123, but that of .* is {fingerprint}"):
        check_corpus("lora", {"split": "0123"}, prepared)


def test_no_corpus_says_how_to_make_one(tmp_path):
    for read in (training_turns, lambda path: check_corpus("lora", {}, path)):
        with pytest.raises(FileNotFoundError, match="no prepared corpus in .*lightning prepare --config"):
            read(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "users/train/part-00000.parquet"])
def test_missing_and_damaged_files_are_named(prepared, tmp_path, file):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    (copy / file).write_bytes((copy / file).read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{file} is not the file that .*manifest.json describes.*prepare it again"):
        training_turns(copy)
    (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file} is missing.*; delete"):
        training_turns(copy)


def test_a_corpus_without_target_users_is_refused(prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    manifest = read_manifest(copy)
    manifest["splits"]["users/train"] = []
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="users/train is empty; the corpus was prepared without target users"):
        training_turns(copy)
