"""Who is a target user, and which dialogue goes where: worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from datamodules.corpora import Corpus, Dialogue, Drops, Turn
from datamodules.preparation.splits import (
    PRETRAIN_SPLITS,
    USER_SPLITS,
    SplitRule,
    choose_target_users,
    num_shared_test_turns,
    split_by_time,
    split_dialogues,
    stable_hash,
)


def dialogue(id: str, first: str, second: str, num_each: int = 1, day: int | None = None) -> Dialogue:
    time = None if day is None else datetime(2024, 3, day, tzinfo=UTC)
    return Dialogue(id, tuple(Turn(person, "word", time) for person in (second, first) * num_each), "invented")


def rule(**changes: Any) -> SplitRule:
    return SplitRule(**{"num_target_users": 1, "min_turns": 10, "max_turns": 10, "min_dialogues": 10, **changes})


def test_partners_turns_do_not_count() -> None:
    turns = tuple(Turn(person, "word") for person in ("ben", "ada", "ben"))
    dialogues = [dialogue(str(number), "ada", "ben") for number in range(9)] + [Dialogue("9", turns, "invented")]
    assert split_by_time(dialogues, "ada", rule())[7:] == ["users/train", "users/validation", "users/test"]


@pytest.mark.parametrize(
    ("counts", "splits"),
    [
        ((1,) * 10, ["users/train"] * 8 + ["users/validation", "users/test"]),
        # Shares count turns: the middles lie at 0.3, 0.7, 0.85 and 0.95 of 10.
        ((6, 2, 1, 1), ["users/train"] * 2 + ["users/validation", "users/test"]),
        ((1, 1, 20), ["users/train", "users/validation", "users/test"]),  # the last one alone is 91 % of all turns
        ((20, 1, 1), ["users/train", "users/test", "users/test"]),  # the middle of the second lies at 0.93
        ((1, 1), ["users/validation", "users/test"]),
        ((5,), ["users/test"]),
    ],
)
def test_splits_by_time_with_a_last_dialogue_that_is_always_test(counts: tuple[int, ...], splits: list[str]) -> None:
    dialogues = [dialogue(str(number), "ada", "ben", count) for number, count in enumerate(counts)]
    assert split_by_time(dialogues, "ada", rule()) == splits


def test_dialogues_are_taken_in_time_order_whatever_their_order_in_the_corpus() -> None:
    days = [7, 3, 10, 1, 9, 2, 8, 5, 4, 6]
    dialogues = [dialogue(f"day {day}", "ada", "ben", day=day) for day in days]
    dialogues += [dialogue(f"more {number}", "ben", "cleo") for number in range(3)]  # ben has 13 turns
    targets, splits = split_dialogues(dialogues, rule())
    assert targets == ["ada"]
    assert [dialogue.id for dialogue, _ in splits["users/train"]] == [f"day {day}" for day in range(1, 9)]
    assert [dialogue.id for dialogue, _ in splits["users/validation"]] == ["day 9"]
    assert [dialogue.id for dialogue, _ in splits["users/test"]] == ["day 10"]
    assert {author for name in USER_SPLITS for _, author in splits[name]} == {"ada"}
    without_times = [dialogue(str(number), "ada", f"guest {number}") for number in range(10)]
    _, splits = split_dialogues(without_times, rule())  # the order of the corpus stays
    assert [dialogue.id for name in USER_SPLITS for dialogue, _ in splits[name]] == [str(n) for n in range(10)]


def test_times_with_and_without_a_zone_are_put_in_one_order() -> None:
    naive = Dialogue("naive", tuple(Turn(p, "x", datetime(2024, 3, 2)) for p in ("ben", "ada")), "invented")
    dialogues = [dialogue("late", "ada", "ben", day=3), naive, dialogue("early", "ada", "ben", day=1)]
    _, splits = split_dialogues(dialogues, rule(min_turns=3, max_turns=3, min_dialogues=3))
    assert [dialogue.id for name in USER_SPLITS for dialogue, _ in splits[name]][::2] == ["early", "late"]


def test_no_target_user_reaches_pre_training(invented_corpus: Corpus, split_rule: SplitRule) -> None:
    dialogues = list(invented_corpus.dialogues(Drops()))
    targets, splits = split_dialogues(dialogues, split_rule)
    assert targets == ["ada", "ben", "cleo", "dan"]
    of_split = {name: [dialogue for dialogue, _ in members] for name, members in splits.items()}
    for name in PRETRAIN_SPLITS:
        assert of_split[name]
        assert not {turn.speaker for dialogue in of_split[name] for turn in dialogue.turns} & set(targets)
        assert {author for _, author in splits[name]} == {None}
    ids = [dialogue.id for members in of_split.values() for dialogue in members]
    assert sorted(ids) == sorted(dialogue.id for dialogue in dialogues)  # everything somewhere, nothing twice
    for user in targets:
        times = [[d.turns[0].time for d, author in splits[name] if author == user] for name in USER_SPLITS]
        assert [len(part) for part in times] == [8, 1, 1]
        assert max(times[0]) < times[1][0] < times[2][0]


def test_a_dialogue_of_two_target_users_stands_once_for_each() -> None:
    dialogues = [dialogue(str(number), "ada", "ben", num_each=2) for number in range(10)]
    targets, splits = split_dialogues(dialogues, rule(num_target_users=2, min_turns=20, max_turns=20))
    assert targets == ["ada", "ben"]
    assert sorted(author for _, author in splits["users/test"]) == ["ada", "ben"]
    assert splits["pretrain/train"] == splits["pretrain/validation"] == []
    assert num_shared_test_turns(splits) == 0


def test_test_turns_that_another_target_user_is_trained_on_are_counted() -> None:
    talks = [dialogue(f"a{number}", "ada", "guest") for number in range(9)]
    shared = [dialogue("shared", "ada", "ben", num_each=2)]  # ada's last, ben's first
    talks += shared + [dialogue(f"b{number}", "ben", "guest") for number in range(9)]
    targets, splits = split_dialogues(talks, rule(num_target_users=2, max_turns=11))
    assert targets == ["ada", "ben"]
    assert [author for one, author in splits["users/test"] if one.id == "shared"] == ["ada"]
    assert num_shared_test_turns(splits) == 2


def test_who_would_answer_nothing_in_one_part_is_not_eligible(capsys: pytest.CaptureFixture[str]) -> None:
    """With seed 1 of Chit-Chat, a target user had no turns for validation."""
    opened = [dialogue("opened", "guest", "ada"), dialogue("last", "ada", "guest", num_each=2)]  # answers nothing in it
    dialogues = [dialogue(str(number), "ada", "ben") for number in range(8)] + opened
    dialogues += [dialogue(f"c{number}", "cleo", "guest") for number in range(11)]
    assert choose_target_users(dialogues, rule(max_turns=11)) == ["cleo"]
    assert capsys.readouterr().out.startswith("1 people have enough turns, but answer nothing in one of users/train")
    with pytest.raises(
        ValueError, match="only 1 of 4 .* 1 people have the turns, but in too few dialogues: a chat that"
    ):
        choose_target_users(dialogues, rule(num_target_users=2, max_turns=11))


def test_the_splits_are_the_same_each_time_and_the_seed_changes_them(invented_corpus: Corpus) -> None:
    dialogues = list(invented_corpus.dialogues(Drops()))

    def chosen(seed: int) -> list[str]:
        choice = SplitRule(num_target_users=3, min_turns=50, max_turns=100, min_dialogues=10, seed=seed)
        return choose_target_users(dialogues, choice)

    assert chosen(0) == chosen(0) == sorted(chosen(0))
    assert choose_target_users(dialogues[::-1], SplitRule(3, 50, 100, 10)) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(5)}) > 1


def test_the_hash_is_the_same_in_every_process() -> None:
    # blake2b("0\x1fada"), 8 bytes, halved: made with hashlib on the command line.
    assert stable_hash(0, "ada") == 2934465642437181981
    assert 0 <= stable_hash("x") < 2**63
    assert stable_hash("a", "bc") != stable_hash("ab", "c")


def test_eligible_are_those_within_all_bounds() -> None:
    dialogues = [dialogue(str(number), "ada", f"guest {number}") for number in range(10)]  # ada: 10 in 10
    dialogues += [dialogue("long", "ben", "cleo", num_each=10)]  # ben and cleo: 10 turns, one dialogue
    dialogues += [dialogue(f"talk {number}", "dan", f"guest {number}") for number in range(11)]  # dan: 11 turns
    assert choose_target_users(dialogues, rule()) == ["ada"]
    with pytest.raises(ValueError, match="2 target users asked for, but only 1 of 15 people have 10 to 10 turns in 10"):
        choose_target_users(dialogues, rule(num_target_users=2))
    assert choose_target_users(dialogues, rule(num_target_users=0)) == []


@pytest.mark.parametrize(("train", "validation"), [(0.9, 0.1), (0.0, 0.1), (0.8, 0.0), (1.2, 0.1)])
def test_shares_that_leave_no_test_are_refused(train: float, validation: float) -> None:
    with pytest.raises(ValueError, match="(above 0 and below 1|which leaves no test)"):
        SplitRule(train_share=train, validation_share=validation)


def test_the_held_out_share_of_pre_training_is_about_as_asked() -> None:
    dialogues = [dialogue(f"talk {number}", "ada", "ben") for number in range(2000)]
    _, splits = split_dialogues(dialogues, rule(num_target_users=0, pretrain_validation_share=0.1))
    assert len(splits["pretrain/validation"]) == pytest.approx(200, abs=40)


def test_without_a_number_everybody_eligible_is_a_target_user() -> None:
    # ada and ben have twenty turns in ten dialogues; cleo and dan one in one.
    dialogues = [dialogue(str(number), "ada", "ben", num_each=2) for number in range(10)]
    dialogues.append(dialogue("10", "cleo", "dan"))
    assert choose_target_users(dialogues, rule(num_target_users=None, max_turns=20)) == ["ada", "ben"]
    with pytest.raises(ValueError, match="all target users asked for, but only 0 of 2 people"):
        choose_target_users(dialogues[10:], rule(num_target_users=None))
