"""How much of a user's history is learnt from, and what is made wrong in it on purpose. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from datamodules.preparation.splits import stable_hash
from datamodules.shards.ragged import Ragged
from datamodules.shards.reader import TokenPairs


@dataclass(frozen=True)
class TrainingRows:
    """Rows that a user is trained on, oldest first: row `places[i]` of `authors[i]`, its reply cut to `lengths[i]`."""

    authors: list[str]
    places: np.ndarray  # (turns,), counted in the author's own training rows
    lengths: np.ndarray  # (turns,), ids of the reply without its end token


@dataclass(frozen=True)
class History:
    """A part of each user's training turns, and what is wrong with it; all of them, and nothing, by default.

    Only training rows are changed. Which ones is decided by seed, user and row, whoever else is trained; those that are
    changed by a share are among those that are changed by a larger one. Exactly the share is changed (rounded to
    rows), and the number of rows, so that of steps, stays. The three shares take different rows.

    Args:
        num_turns: the most recent training turns, those before the held-out dialogues: what somebody with a short
            history has. Who has fewer keeps them. None takes all.
        duplicated: share of the rows that are replaced by copies of other rows of the user, left as they are.
        truncated: share of the replies that are cut at a random token. The end token follows all the same, so a user
            seems to stop there; one token stays at least, and of a reply of one token only the end token.
        wrong_author: share of the rows that are replaced by training rows of another target user, reply and context.
            The profile in the prompt, if any, stays the user's.
        seed: of what is drawn; None is the run's (`seed_everything`).
    """

    num_turns: int | None = None
    duplicated: float = 0.0
    truncated: float = 0.0
    wrong_author: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", self.seed or 0)
        shares = {name: getattr(self, name) for name in ("duplicated", "truncated", "wrong_author")}
        if not all(0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1:
            raise ValueError(f"data.history: {shares} are shares of a user's rows: from 0 to 1, and together at most 1")
        if self.num_turns is not None and self.num_turns < 1:
            raise ValueError(f"data.history.num_turns must be at least 1, got {self.num_turns}; null takes all turns")

    def rows_of(self, user: str, lengths: Mapping[str, np.ndarray]) -> TrainingRows:
        """The rows that a user is trained on; `lengths` is target user → ids of each training reply, (turns,)."""
        places = np.arange(len(lengths[user]))[-self.num_turns if self.num_turns else None :]
        kept, authors = lengths[user][places], [user] * len(places)
        order = sorted(range(len(places)), key=lambda row: stable_hash(self.seed, "history", user, places[row]))
        shares = np.cumsum([self.duplicated, self.truncated, self.wrong_author])
        ends = np.rint(shares * len(places)).astype(int)  # of the three kinds in the order of rows
        unchanged = order[ends[2] :]
        if ends[0] and not unchanged:
            raise ValueError(
                f"data.history.duplicated: no row of {user!r} is left as it is to be copied; lower a share"
            )
        for number, row in enumerate(order[: ends[0]]):  # from the end, so that a larger share takes the same copies
            other = unchanged[-1 - number % len(unchanged)]
            places[row], kept[row] = places[other], kept[other]
        for row in order[ends[0] : ends[1]]:
            random = np.random.default_rng(stable_hash(self.seed, "truncated", user, places[row]))
            kept[row] = random.integers(min(1, kept[row] - 1), kept[row]) if kept[row] else 0
        others = sorted(other for other in lengths if other != user and len(lengths[other]))
        for row in order[ends[1] : ends[2]]:
            if not others:
                raise ValueError(f"data.history.wrong_author: there is nobody but {user!r} to take rows from")
            random = np.random.default_rng(stable_hash(self.seed, "wrong author", user, places[row]))
            authors[row] = others[random.integers(len(others))]
            places[row] = random.integers(len(lengths[authors[row]]))
            kept[row] = lengths[authors[row]][places[row]]
        return TrainingRows(authors, places, kept)

    def report(self, users: Iterable[str], lengths: Mapping[str, np.ndarray]) -> None:
        """Prints how many of these users have fewer turns than asked for."""
        turns = [len(lengths[user]) for user in users]
        if self.num_turns is not None and (fewer := [count for count in turns if count < self.num_turns]):
            print(
                f"{len(fewer)} of {len(turns)} users have fewer than {self.num_turns} training turns and keep "
                f"what they have, {min(fewer)} to {max(fewer)}"
            )


def taken(pairs: TokenPairs, chosen: Mapping[str, TrainingRows]) -> TokenPairs:
    """The rows of these users, one user after the other, each as a row of that user, whoever wrote it."""
    index = {name: number for number, name in enumerate(pairs.speakers)}
    authors = {author for rows in chosen.values() for author in rows.authors}
    own = {author: np.flatnonzero(pairs.speaker == index[author]) for author in authors}
    source = np.array(
        [
            own[author][place]
            for rows in chosen.values()
            for author, place in zip(rows.authors, rows.places, strict=True)
        ]
    )
    responses = pairs.response.take(source)
    lengths = np.concatenate([rows.lengths for rows in chosen.values()])
    inside = np.arange(len(responses.values)) - np.repeat(responses.offsets[:-1], responses.lengths)
    return replace(
        pairs,
        pair_id=pairs.pair_id[source],
        speakers=list(chosen),
        speaker=np.repeat(np.arange(len(chosen)), [len(rows.places) for rows in chosen.values()]),
        partner=pairs.partner[source],
        context=pairs.context.take(source),
        context_lengths=pairs.context_lengths.take(source),
        context_speakers=pairs.context_speakers.take(source),
        response=Ragged.from_lengths(responses.values[inside < np.repeat(lengths, responses.lengths)], lengths),
    )
