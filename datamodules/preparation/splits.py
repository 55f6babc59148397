"""Who is a target user, and which dialogue belongs to which split: first by user, then by time.

A dialogue in which a target user takes part never reaches pre-training. The other dialogues are the pre-training
corpus, of which a share is held out.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from artefacts.ranges import AT_LEAST_0, PART, Range, require
from datamodules.corpora.records import Dialogue

USER_SPLITS = ("users/train", "users/validation", "users/test")
PRETRAIN_SPLITS = ("pretrain/train", "pretrain/validation")

SplitDialogues = dict[str, list[tuple[Dialogue, str | None]]]
"""The dialogues of each split, each with the author whose responses count (None: both people's)."""


@dataclass(frozen=True)
class SplitRule:
    """Sizes of the splits. None of them is stated in the paper.

    Args:
        num_target_users: how many people get an adapter; None takes everybody who is eligible. Nobody is who would
            answer nothing in the training, the validation or the test.
        min_turns: fewest turns of a target user, over all of their dialogues.
        max_turns: most turns of a target user; whoever wrote more serves pre-training.
        min_dialogues: fewest dialogues of a target user.
        train_share: share of a target user's turns, in time order, that is learnt from.
        validation_share: share of a target user's turns that follows; the rest is the test.
        pretrain_validation_share: share of the pre-training dialogues that is held out.
        seed: decides which of the eligible people become target users and what is held out.
    """

    num_target_users: int | None = 24
    min_turns: int = 250
    max_turns: int = 1200
    min_dialogues: int = 10
    train_share: float = 0.8
    validation_share: float = 0.1
    pretrain_validation_share: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        learned = self.train_share + self.validation_share
        require(
            vars(self),
            [] if learned < 1 else [f"train_share and validation_share are {learned:g}, which leaves no test"],
            num_target_users=AT_LEAST_0.or_none(),
            min_turns=AT_LEAST_0,
            max_turns=Range(self.min_turns),
            min_dialogues=AT_LEAST_0,
            train_share=PART,
            validation_share=PART,
            pretrain_validation_share=Range(0, 1, below=True),
        )


def stable_hash(*parts: object) -> int:
    """A 63-bit hash of the parts that is the same in every process and on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def choose_target_users(dialogues: Sequence[Dialogue], rule: SplitRule) -> list[str]:
    """Picks target users by hash of seed and name; sorted by name. ValueError if too few people are eligible."""
    if rule.num_target_users == 0:
        return []
    of_user = _dialogues_in_time(dialogues)
    num_turns = Counter(turn.speaker for dialogue in dialogues for turn in dialogue.turns)
    with_turns = [user for user, count in num_turns.items() if rule.min_turns <= count <= rule.max_turns]
    candidates = [user for user in with_turns if len(of_user[user]) >= rule.min_dialogues]
    eligible = [user for user in candidates if _answers_in_all(of_user[user], user, rule)]
    if num_not := len(candidates) - len(eligible):
        print(
            f"{num_not} people have enough turns, but answer nothing in one of {', '.join(USER_SPLITS)}: not eligible"
        )
    wanted = rule.num_target_users
    if len(eligible) < (wanted or 1):
        raise ValueError(
            f"{'all' if wanted is None else wanted} target users asked for, but only {len(eligible)} of "
            f"{len(num_turns)} people have {rule.min_turns} to {rule.max_turns} turns in {rule.min_dialogues} or more "
            "dialogues, and answers in training, validation and test; "
            f"{_advice(len(with_turns) - len(candidates), num_not)}"
        )
    return sorted(sorted(eligible, key=lambda user: stable_hash(rule.seed, user))[:wanted])


def _advice(num_in_few_dialogues: int, num_without_answers: int) -> str:
    """What may help where too few people are eligible."""
    if num_in_few_dialogues or num_without_answers:
        return (
            f"{num_in_few_dialogues + num_without_answers} people have the turns, but in too few dialogues: a chat "
            "that was exported as one has to be cut into dialogues, for example where nobody wrote for some hours; or "
            "lower min_dialogues, 3 being the fewest that can be divided"
        )
    return "lower num_target_users, or widen min_turns or max_turns"


def _dialogues_in_time(dialogues: Sequence[Dialogue]) -> dict[str, list[Dialogue]]:
    """Everybody's dialogues in time order; without times the corpus' own order stays."""
    of_user: dict[str, list[Dialogue]] = defaultdict(list)
    for dialogue in sorted(dialogues, key=_start):
        for user in {turn.speaker for turn in dialogue.turns}:
            of_user[user].append(dialogue)
    return of_user


def num_answers(dialogue: Dialogue, user: str) -> int:
    """The user's turns that answer one: what becomes their reply pairs."""
    return sum(turn.speaker == user for turn in dialogue.turns[1:])


def _answers_in_all(dialogues: Sequence[Dialogue], user: str, rule: SplitRule) -> bool:
    splits = split_by_time(dialogues, user, rule)
    return {split for dialogue, split in zip(dialogues, splits, strict=True) if num_answers(dialogue, user)} == {
        *USER_SPLITS
    }


def split_by_time(dialogues: Sequence[Dialogue], user: str, rule: SplitRule) -> list[str]:
    """The split of each of one user's dialogues, which come in time order.

    A dialogue goes where the middle of the user's turns in it falls, as a share of all the user's turns, because some
    last dialogues are very short. The last dialogue is always test and the one before it never training.
    """
    counts = np.array([sum(turn.speaker == user for turn in dialogue.turns) for dialogue in dialogues])
    middles = (np.cumsum(counts) - counts / 2) / counts.sum()
    borders = [rule.train_share, rule.train_share + rule.validation_share]
    splits = [USER_SPLITS[number] for number in np.searchsorted(borders, middles, side="right")]
    splits[-1] = "users/test"
    if len(splits) > 1 and splits[-2] == "users/train":
        splits[-2] = "users/validation"
    return splits


def split_dialogues(dialogues: Sequence[Dialogue], rule: SplitRule) -> tuple[list[str], SplitDialogues]:
    """Target users, and the five splits; a dialogue between two target users stands once for each of them."""
    targets = choose_target_users(dialogues, rule)
    splits: SplitDialogues = {name: [] for name in (*PRETRAIN_SPLITS, *USER_SPLITS)}
    for dialogue in dialogues:
        if not {turn.speaker for turn in dialogue.turns} & set(targets):
            held_out = stable_hash(rule.seed, dialogue.id) < rule.pretrain_validation_share * 2**63
            splits[PRETRAIN_SPLITS[held_out]].append((dialogue, None))
    of_user = _dialogues_in_time(dialogues)
    for user in targets:
        for dialogue, split in zip(of_user[user], split_by_time(of_user[user], user, rule), strict=True):
            splits[split].append((dialogue, user))
    return targets, splits


def num_shared_test_turns(splits: SplitDialogues) -> int:
    """Test turns that stand in another target user's training, as context: the two were given the dialogue apart."""
    trained = {id(dialogue) for dialogue, _ in splits["users/train"]}
    return sum(num_answers(dialogue, user) for dialogue, user in splits["users/test"] if id(dialogue) in trained)


def _start(dialogue: Dialogue) -> datetime:
    time = next((turn.time for turn in dialogue.turns if turn.time is not None), None)
    return datetime.min.replace(tzinfo=UTC) if time is None else comparable(time)


def comparable(time: datetime) -> datetime:
    """The time with a zone, UTC where it has none, so that any two can be put in order."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
