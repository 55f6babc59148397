"""Preparation as a whole: what it writes, what it refuses, and that a kill leaves no trace."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from artefacts.manifest import num_pairs, read_manifest
from datamodules.corpora import Corpus, Dialogue, Drops, Jsonl, Profile, Turn
from datamodules.corpora.records import Malformed
from datamodules.preparation.run import alone, prepare
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import USER_SPLITS, SplitRule, stable_hash
from datamodules.preparation.tokenizer import load_tokenizer


class Listed(Corpus):
    """Dialogues that a test gives, with some drops."""

    def __init__(self, dialogues: list[Dialogue], num_dropped: int = 0, source: Path | None = None) -> None:
        self.listed = dialogues
        self.num_dropped = num_dropped
        self.source = source

    @property
    def files(self) -> list[Path]:
        if self.source is not None and not self.source.is_file():
            raise FileNotFoundError(f"{self.source} not found")
        return [self.source] if self.source else []

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        for number in range(self.num_dropped):
            with drops.dialogue(f"line {number}"):
                raise Malformed("no text")
        drops.num_seen += len(self.listed)
        yield from self.listed


def dialogue(id: str, *texts: str) -> Dialogue:
    pause = timedelta(seconds=stable_hash(id) % 10_000)  # so that no two are the same
    start = datetime(2024, 5, 1, tzinfo=UTC)
    turns = tuple(Turn(("ada", "ben")[number % 2], text, start + number * pause) for number, text in enumerate(texts))
    return Dialogue(id, turns, "invented")


def preparation_of(corpus: Corpus, output: Path, **settings: Any) -> Preparation:
    rule = SplitRule(num_target_users=0, pretrain_validation_share=0.0)
    return Preparation(corpus, output, **{"splits": rule, "vocabulary_size": 300, **settings})


def users_rule(**changes: Any) -> SplitRule:
    return SplitRule(**{"num_target_users": None, "min_turns": 1, "max_turns": 1000, "min_dialogues": 3, **changes})


def few(num: int = 10) -> list[Dialogue]:
    return [dialogue(f"talk {number}", "hello there", "good morning", "tea please") for number in range(num)]


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# ---- what it writes


def test_the_manifest_counts_and_names(prepared: Path, preparation: Preparation) -> None:
    manifest = read_manifest(prepared)
    assert manifest["target_users"] == ["ada", "ben", "cleo", "dan"]
    # Ten dialogues of six own responses each: eight, one and one dialogue of each of four people.
    assert [num_pairs(manifest, f"users/{name}") for name in ("train", "validation", "test")] == [192, 24, 24]
    # 30 dialogues of 16 turns, in which the first turn answers nothing.
    assert sum(num_pairs(manifest, f"pretrain/{name}") for name in ("train", "validation")) == 30 * 15
    assert manifest["num_dialogues"] == 70
    assert manifest["settings"]["corpus"] == "InventedCorpus"
    assert manifest["settings"]["splits"]["num_target_users"] == 4
    assert manifest["vocabulary_size"] == load_tokenizer(prepared / "tokenizer").get_vocab_size()
    for split, parts in manifest["splits"].items():
        for part in parts:
            content = (prepared / split / part["file"]).read_bytes()
            assert part["sha256"] == hashlib.sha256(content).hexdigest()
    ids = [id for split in manifest["splits"] for id in pq.read_table(prepared / split)["pair_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == 240 + 450  # no pair is in two splits
    assert not prepared.with_name("invented.partial").exists()


def test_pre_training_pairs_are_shuffled_and_those_of_users_in_time_order(prepared: Path) -> None:
    pretrain = pq.read_table(prepared / "pretrain/train")["dialogue_id"].to_pylist()
    assert sum(a == b for a, b in zip(pretrain, pretrain[1:], strict=False)) < len(pretrain) / 4
    users = pq.read_table(prepared / "users/train")
    for user in ("ada", "ben", "cleo", "dan"):
        times = [time for time, speaker in zip(users["time"], users["speaker"], strict=True) if speaker.as_py() == user]
        assert [time.as_py() for time in times] == sorted(time.as_py() for time in times)


def test_profiles_are_written_a_row_an_attribute(prepared: Path) -> None:
    assert pq.read_table(prepared / "profiles.parquet").to_pylist() == [
        {"user": "ada", "attribute": "city", "value": "Osaka", "origin": "declared"},
        {"user": "ada", "attribute": "age", "value": "20-29", "origin": "declared"},
        {"user": "ben", "attribute": "city", "value": "Kyoto", "origin": "declared"},
        {"user": "guest 0", "attribute": "age", "value": "30-39", "origin": "declared"},
    ]
    assert read_manifest(prepared)["profiles"] == 3


def test_the_tokenizer_has_seen_only_the_pre_training_split(prepared: Path) -> None:
    vocabulary = load_tokenizer(prepared / "tokenizer").get_vocab()  # 猫 is said by cleo, telescope by ada
    assert not [piece for piece in vocabulary if "猫" in piece or "telescope" in piece]
    assert [piece for piece in vocabulary if "weather" in piece or "rain" in piece]


def test_where_everybody_is_a_target_user_their_training_turns_make_the_tokenizer(tmp_path: Path) -> None:
    talk = [dialogue(f"d{number}", "apple banana", "cherry", "apple", "banana cherry") for number in range(12)]
    rule = SplitRule(num_target_users=2, min_turns=1, max_turns=100, min_dialogues=1)
    manifest = prepare(Preparation(Listed(talk), tmp_path / "out", rule, vocabulary_size=300))
    assert manifest["splits"]["pretrain/train"] == []
    assert num_pairs(manifest, "users/train") > 0


def test_long_turns_are_cut_from_the_end_and_counted(tmp_path: Path) -> None:
    talk = [dialogue(f"d{number}", "hi", "one two three four five six seven", "yes") for number in range(5)]
    manifest = prepare(preparation_of(Listed(talk), tmp_path / "out", max_turn_tokens=3))
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer")
    full = tokenizer.encode("one two three four five six seven").ids
    rows = pq.read_table(tmp_path / "out/pretrain/train").to_pylist()
    assert len(full) > 3
    assert {tuple(row["response_ids"]) for row in rows if row["position"] == 1} == {tuple(full[:3])}
    assert manifest["turns_cut"] >= 5


def test_texts_are_normalised_and_white_space_folded(tmp_path: Path) -> None:
    talk = [dialogue(f"d{number}", "hi", "ＡＢＣ　１２３ ｶﾞ\u00a0x") for number in range(5)]
    prepare(preparation_of(Listed(talk), tmp_path / "out"))
    assert not (tmp_path / "out" / "profiles.parquet").exists()  # there are none
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer")
    rows = pq.read_table(tmp_path / "out/pretrain/train").to_pylist()
    assert {tokenizer.decode(row["response_ids"]) for row in rows} == {"ABC 123 ガ x"}


@pytest.mark.parametrize("typed", ["<|speaker|>", "</s>", "＜/s＞", "<|speaker  profile|>"])
def test_a_marker_that_somebody_typed_is_no_marker(tmp_path: Path, typed: str) -> None:
    talk = [dialogue(f"d{number}", f"a {typed} b", f"{typed}{typed}", "yes") for number in range(5)]
    prepare(preparation_of(Listed(talk), tmp_path / "out"))
    for row in pq.read_table(tmp_path / "out/pretrain/train").to_pylist():
        assert min(row["context_ids"] + row["response_ids"]) > 6  # 0 to 6 are padding, end, unknown and markers


# ---- once, and alone


def test_a_second_run_finds_the_work_done(
    prepared: Path, preparation: Preparation, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    manifest = prepare(preparation)
    assert manifest == read_manifest(prepared)
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*")} == before
    assert capsys.readouterr().out == (
        f"{prepared} is prepared already: 4 target users; reply pairs: 375 pretrain/train, 75 pretrain/validation, "
        "192 users/train, 24 users/validation, 24 users/test\n"
    )


def test_the_same_corpus_gives_the_same_files(prepared: Path, preparation: Preparation, tmp_path: Path) -> None:
    prepare(replace(preparation, output=tmp_path / "again"))
    assert hashes(tmp_path / "again") == hashes(prepared)


def test_other_settings_are_refused_and_named(prepared: Path, preparation: Preparation) -> None:
    changed = replace(preparation, vocabulary_size=500, splits=replace(preparation.splits, seed=3))
    with pytest.raises(ValueError, match="prepared with other settings") as error:
        prepare(changed)
    assert "vocabulary_size was 400, now 500); give another output, or delete" in str(error.value)
    assert "'seed': 0}, now {" in str(error.value)
    assert "max_turn_tokens" not in str(error.value)
    with pytest.raises(ValueError, match="corpus was InventedCorpus, now Listed"):
        prepare(replace(preparation, corpus=Listed(few())))


def test_changed_input_is_refused_and_missing_input_is_not_needed(tmp_path: Path) -> None:
    source = tmp_path / "chats.txt"
    source.write_text("first")
    preparation = preparation_of(Listed(few(), source=source), tmp_path / "out")
    prepare(preparation)
    source.write_text("second")
    with pytest.raises(ValueError, match="out was prepared from other files than .*chats.txt, or from an older state"):
        prepare(preparation)
    source.unlink()
    assert prepare(preparation)["num_dialogues"] == 10


@pytest.mark.parametrize("file", ["users/test/part-00000.parquet", "tokenizer/tokenizer.json", "profiles.parquet"])
def test_a_damaged_file_is_named_with_the_command_that_mends_it(
    prepared: Path, preparation: Preparation, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = replace(preparation, output=shutil.copytree(prepared, tmp_path / "copy"), verify=True)
    prepare(copy)
    assert "8 files of" in capsys.readouterr().out  # five parts, two of the tokenizer, profiles
    damaged = copy.output / file
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    prepare(replace(copy, verify=False))  # sizes are the same
    with pytest.raises(
        ValueError, match=f"{file}: missing, or not what .*delete .*copy and .*: lightning prepare --con"
    ):
        prepare(copy)
    damaged.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"{file}: missing"):
        prepare(replace(copy, verify=False))


def test_a_directory_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis exists but is no prepared corpus \(no manifest.json\); choose"):
        prepare(preparation_of(Listed(few()), tmp_path / "thesis"))
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_two_preparations_at_once_are_refused(tmp_path: Path) -> None:
    message = "another preparation is at work on .*out; wait for it, or give another"
    with alone(tmp_path / "out"), pytest.raises(ValueError, match=message):
        prepare(preparation_of(Listed(few()), tmp_path / "out"))
    prepare(preparation_of(Listed(few()), tmp_path / "out"))


# ---- bad input


def test_drops_are_printed_and_stop_preparation_above_the_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Listed(few(10), num_dropped=2)
    message = "(?s)2 of 12 dialogues would be dropped, more than the allowed share 0.1.*raise max_dropped"
    with pytest.raises(ValueError, match=message):
        prepare(preparation_of(corpus, tmp_path / "out", max_dropped=0.1))
    assert not (tmp_path / "out").exists()
    manifest = prepare(preparation_of(corpus, tmp_path / "out", max_dropped=0.2))
    assert manifest["dropped"] == {"no text": 2}
    said = capsys.readouterr().out
    assert "10 of 12 dialogues are used; dropped:\n             2 no text (such as line 0; line 1)" in said


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="mine.jsonl: not one usable dialogue"):
        prepare(preparation_of(Jsonl(tmp_path / "mine.jsonl"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def chats(*, repeated: bool = False, with_times: bool = False) -> list[Dialogue]:
    """Twelve dialogues of ada and ben; `repeated` without times or, with them, nine hours later."""
    both = []
    for copy in range(1 + repeated):
        for number in range(12):
            start = datetime(2024, 5, 1 + number, 9 * copy, tzinfo=UTC)
            turns = [
                Turn(person, f"{person} {number} {minute}", start + timedelta(minutes=minute) if with_times else None)
                for minute, person in enumerate(("ada", "ben") * 3)
            ]
            both.append(Dialogue(f"{copy}/{number}", tuple(turns), "invented"))
    return both


@pytest.mark.parametrize("with_times", [True, False])
def test_a_chat_that_was_exported_twice_is_used_once(tmp_path: Path, with_times: bool) -> None:
    listed = chats(repeated=True, with_times=with_times)
    manifest = prepare(Preparation(Listed(listed), tmp_path / "out", users_rule(), vocabulary_size=300))
    assert manifest["dropped"] == {"the same turns as an earlier dialogue": 12}  # not against max_dropped
    ids = [id for name in USER_SPLITS for id in pq.read_table(tmp_path / "out" / name)["dialogue_id"].to_pylist()]
    assert {id.partition("/")[0] for id in ids} == {"0"}


def test_the_same_short_words_at_another_pace_are_another_dialogue(tmp_path: Path) -> None:
    manifest = prepare(
        preparation_of(Listed([dialogue("a", "hi", "hello"), dialogue("b", "hi", "hello")]), tmp_path / "out")
    )
    assert manifest["num_dialogues"] == 2


def test_one_chat_without_end_is_refused_whatever_the_number_of_dialogues(tmp_path: Path) -> None:
    endless = Dialogue("all", tuple(turn for one in chats() for turn in one.turns), "invented")
    for min_dialogues in (10, 1):
        with pytest.raises(ValueError, match="a chat that was exported as one has to be cut into dialogues"):
            prepare(preparation_of(Listed([endless]), tmp_path / "out", splits=users_rule(min_dialogues=min_dialogues)))
    assert not (tmp_path / "out").exists()


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    rule = SplitRule(num_target_users=0, pretrain_validation_share=1 - 1e-12)
    with pytest.raises(ValueError, match="12 dialogues leave nothing to train on"):
        prepare(preparation_of(Listed(chats()), tmp_path / "out", splits=rule))


def test_the_opt_out_list_says_whom_it_matched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = chats() + [replace(one, id=f"x{one.id}", turns=one.turns[1:]) for one in chats()]
    listed.append(Dialogue("z", (Turn("José", "hi"), Turn("cleo", "ho")), "invented"))
    (tmp_path / "out.txt").write_text("Jose\u0301  # asked on 3 May\nAda\n", encoding="utf-8")
    manifest = prepare(preparation_of(Listed(listed), tmp_path / "out", opt_out=tmp_path / "out.txt"))
    assert manifest["dropped"] == {"opted out": 1}
    assert (
        f"{tmp_path}/out.txt: 2 ids, 1 matched; nobody in this corpus: 'Ada' (there is 'ada')"
        in capsys.readouterr().out
    )
    (tmp_path / "out.txt").write_text("José\nBen\n", encoding="utf-8")
    prepare(preparation_of(Listed(listed), tmp_path / "out", opt_out=tmp_path / "out.txt"))
    assert "out: 'Ben' (there is 'ben')" in capsys.readouterr().out


def test_a_profile_of_nobody_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = Listed(chats())
    corpus.profiles = lambda: iter([Profile("Ada", {"age": "20-29"}, "declared")])
    prepare(preparation_of(corpus, tmp_path / "out"))
    assert "1 of 1 profiles are of nobody in the dialogues: 'Ada' (there is 'ada')" in capsys.readouterr().out


def test_words_that_become_bytes_and_turns_that_are_cut_are_reported(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = [dialogue(f"d{number}", "今日はラーメン食べた", "yes no maybe") for number in range(30)]
    given = {"tokenizer": prepared / "tokenizer", "max_turn_tokens": 12}
    manifest = prepare(preparation_of(Listed(talk), tmp_path / "out", **given))
    said = capsys.readouterr().out
    assert "warning: bytes are more than 20% of ids of 1 people ('ada' 97%): the tokenizer does not know" in said
    assert "warning: cut are more than 5% of turns of 1 people ('ada' 100%): raise max_turn_tokens 12" in said
    assert (manifest["turns_cut"], manifest["byte_ids"]) == (30, 900)


def test_all_values_out_of_bounds_are_said_at_once(tmp_path: Path) -> None:
    wrong = {"max_turn_tokens": 0, "max_context_turns": -1, "max_dropped": float("nan"), "normalisation": "NFX"}
    with pytest.raises(ValueError, match="context_turns must be 1 or more, got -1; .*nan.*'NFX'") as error:
        Preparation(Listed([]), tmp_path / "out", vocabulary_size=100, **wrong)
    assert "vocabulary_size must be 264 or more, got 100; " in str(error.value)
    assert "max_turn_tokens must be at least 1 and at most 65,535, got 0; " in str(error.value)
    with pytest.raises(
        ValueError, match="num_target_users must be 0 or more, got -1; min_turns.*pretrain_validation_share .*got nan"
    ):
        SplitRule(num_target_users=-1, min_turns=-1, pretrain_validation_share=float("nan"))


# ---- kill -9

STOPPING_PLACES = {
    "after the tokenizer": "save_tokenizer",
    "between two splits": "write_shards",
    "before the manifest": "DialoguePreparation._write_profiles",
}
SCRIPT = """
import sys, time
from pathlib import Path
from datamodules.corpora import Jsonl
from datamodules.preparation import in_memory
from datamodules.preparation.run import prepare
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import SplitRule

source, output, rule, place = Path(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3]), sys.argv[4]
if place:
    owner, _, name = place.rpartition(".")
    owner = getattr(in_memory, owner) if owner else in_memory
    original = getattr(owner, name)
    def stop_here(*arguments):
        result = original(*arguments)
        print("HERE", flush=True)
        time.sleep(60)
        return result
    setattr(owner, name, stop_here)
prepare(Preparation(Jsonl(source), output, rule, vocabulary_size=400))
"""


@pytest.mark.parametrize("place", STOPPING_PLACES.values(), ids=STOPPING_PLACES)
def test_kill_and_run_again_gives_what_an_undisturbed_run_gives(
    invented_jsonl: Path, undisturbed: Path, split_rule: SplitRule, tmp_path: Path, place: str
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, str(invented_jsonl), str(output), repr(split_rule), place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line == "HERE\n" for line in process.stdout)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    assert output.with_name("out.partial").is_dir()
    prepare(Preparation(Jsonl(invented_jsonl), output, split_rule, vocabulary_size=400))
    assert hashes(output) == hashes(undisturbed)
    assert not output.with_name("out.partial").exists()


@pytest.fixture(scope="module")
def undisturbed(invented_jsonl: Path, split_rule: SplitRule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    prepare(Preparation(Jsonl(invented_jsonl), output, split_rule, vocabulary_size=400))
    return output


# ---- with the tokenizer of another corpus


def test_a_tokenizer_is_taken_over_instead_of_trained(prepared: Path, tmp_path: Path) -> None:
    manifest = prepare(preparation_of(Listed(few()), tmp_path / "out", tokenizer=prepared / "tokenizer"))
    theirs = read_manifest(prepared)
    assert manifest["tokenizer_fingerprint"] == theirs["tokenizer_fingerprint"]
    assert manifest["vocabulary_size"] == theirs["vocabulary_size"]  # not the 300 of these settings
    assert hashes(tmp_path / "out" / "tokenizer") == hashes(prepared / "tokenizer")
    ids = pq.read_table(tmp_path / "out" / "pretrain/train")["response_ids"].to_pylist()
    tokenizer = load_tokenizer(prepared / "tokenizer")
    assert {tokenizer.decode(one) for one in ids} == {"good morning", "tea please"}
    assert manifest["settings"]["tokenizer"] == theirs["tokenizer_fingerprint"]
    assert "vocabulary_size" not in manifest["settings"]
    assert "tokenizer" not in theirs["settings"]
    with pytest.raises(ValueError, match="prepared with other settings .*tokenizer was [0-9a-f]{16}, now None"):
        prepare(preparation_of(Listed(few()), tmp_path / "out"))


def test_what_is_no_tokenizer_of_ours_is_refused(word_tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(word_tokenizer.to_str().replace("<|speaker profile|>", "<|other|>"))
    with pytest.raises(ValueError, match=r"'<\|speaker profile\|>': None.*give the directory of a backbone"):
        prepare(preparation_of(Listed(few()), tmp_path / "out", tokenizer=tmp_path))
    assert not (tmp_path / "out").exists()


def test_what_is_prepared_serves_without_the_tokenizer_that_it_was_given(prepared: Path, tmp_path: Path) -> None:
    source = tmp_path / "tokenizer"
    ours = preparation_of(Listed(few()), tmp_path / "users", tokenizer=source)
    with pytest.raises(FileNotFoundError, match="no tokenizer.json in "):
        prepare(ours)
    shutil.copytree(prepared / "tokenizer", source)
    manifest = prepare(ours)
    text = (source / "tokenizer.json").read_text()
    (source / "tokenizer.json").write_text(text + " ")
    with pytest.raises(ValueError, match=f"tokenizer was {manifest['tokenizer_fingerprint']}, now"):
        prepare(ours)
    shutil.rmtree(source)
    assert prepare(ours) == manifest
