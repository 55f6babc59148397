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

from datamodules.corpora.records import Dialogue

USER_SPLITS = ("users/train", "users/validation", "users/test")
PRETRAIN_SPLITS = ("pretrain/train", "pretrain/validation")

SplitDialogues = dict[str, list[tuple[Dialogue, str | None]]]
"""The dialogues of each split, each with the author whose responses count (None: both people's)."""


@dataclass(frozen=True)
class SplitRule:
    """Sizes of the splits. None of them is stated in the paper.

    Args:
        num_target_users: how many people get an adapter; None takes everybody who is eligible.
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
        if not 0 < self.train_share < self.train_share + self.validation_share < 1:
            raise ValueError(
                f"train_share {self.train_share} and validation_share {self.validation_share} must be positive and "
                "leave something for the test"
            )


def stable_hash(*parts: object) -> int:
    """A 63-bit hash of the parts that is the same in every process and on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def choose_target_users(dialogues: Sequence[Dialogue], rule: SplitRule) -> list[str]:
    """Picks target users by hash of seed and name; sorted by name. ValueError if too few people are eligible."""
    if rule.num_target_users == 0:
        return []
    num_turns: Counter[str] = Counter()
    num_dialogues: Counter[str] = Counter()
    for dialogue in dialogues:
        speakers = [turn.speaker for turn in dialogue.turns]
        num_turns.update(speakers)
        num_dialogues.update(set(speakers))
    eligible = [
        user
        for user, count in num_turns.items()
        if rule.min_turns <= count <= rule.max_turns and num_dialogues[user] >= rule.min_dialogues
    ]
    wanted = rule.num_target_users
    if len(eligible) < (wanted or 1):
        raise ValueError(
            f"{wanted or 'all'} target users asked for, but only {len(eligible)} of {len(num_turns)} people have "
            f"{rule.min_turns} to {rule.max_turns} turns in {rule.min_dialogues} or more dialogues; "
            "lower num_target_users, or widen min_turns, max_turns or min_dialogues"
        )
    return sorted(sorted(eligible, key=lambda user: stable_hash(rule.seed, user))[:wanted])


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
    of_user: dict[str, list[Dialogue]] = defaultdict(list)
    wanted = set(targets)
    for dialogue in dialogues:
        people = {turn.speaker for turn in dialogue.turns} & wanted
        for user in people:
            of_user[user].append(dialogue)
        if not people:
            held_out = stable_hash(rule.seed, dialogue.id) < rule.pretrain_validation_share * 2**63
            splits[PRETRAIN_SPLITS[held_out]].append((dialogue, None))
    for user in targets:
        in_time = sorted(of_user[user], key=_start)  # stable: without times the corpus' own order stays
        for dialogue, split in zip(in_time, split_by_time(in_time, user, rule), strict=True):
            splits[split].append((dialogue, user))
    return targets, splits


def _start(dialogue: Dialogue) -> datetime:
    time = next((turn.time for turn in dialogue.turns if turn.time is not None), None)
    return datetime.min.replace(tzinfo=UTC) if time is None else comparable(time)


def comparable(time: datetime) -> datetime:
    """The time with a zone, UTC where it has none, so that any two can be put in order."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
