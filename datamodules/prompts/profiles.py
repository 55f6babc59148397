"""Profiles from a `profiles.parquet`, and controls: profiles that are made wrong on purpose. No torch.

What a profile is worth shows against the same prompt with somebody else's profile, or with some of it wrong or
missing; a longer input alone could help as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.preparation.splits import stable_hash

Attributes = Mapping[str, str]


@dataclass(frozen=True)
class ProfileControl:
    """What is done to the profiles of a table before they are used; nothing by default.

    Everything is decided by the seed and the table, so training and test with the same table have the same profiles.

    Args:
        shuffled: everybody gets the whole profile of another user.
        wrong: share of the attributes that get another value, drawn as the values of all users are distributed.
        missing: share of the attributes that are left out.
        seed: of all three; None is the run's (`seed_everything`).
    """

    shuffled: bool = False
    wrong: float = 0.0
    missing: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", self.seed or 0)
        if min(self.wrong, self.missing) < 0 or self.wrong + self.missing > 1:
            raise ValueError(
                f"wrong {self.wrong} and missing {self.missing} are shares: none below 0, and together at most 1"
            )

    def apply(self, profiles: Mapping[str, Attributes]) -> dict[str, dict[str, str]]:
        """The profiles after it; the same ones where nothing is asked for."""
        changed = {user: dict(profile) for user, profile in profiles.items()}
        if self.shuffled:
            changed = self._shuffle(changed)
        if self.wrong or self.missing:
            values: dict[str, Counter[str]] = defaultdict(Counter)
            for profile in profiles.values():
                for name, value in profile.items():
                    values[name][value] += 1
            changed = {user: self._spoil(user, profile, values) for user, profile in changed.items()}
        return changed

    def _shuffle(self, profiles: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        """Everybody in a random circle gets the profile of the next, so that nobody gets their own."""
        if len(profiles) < 2:
            raise ValueError(f"{len(profiles)} profiles cannot be shuffled; there is nobody else's to give")
        circle = sorted(profiles, key=lambda user: stable_hash(self.seed, "shuffled", user))
        return {user: profiles[other] for user, other in zip(circle, [*circle[1:], circle[0]], strict=True)}

    def _spoil(self, user: str, profile: dict[str, str], values: Mapping[str, Counter[str]]) -> dict[str, str]:
        spoilt = {}
        for name, value in profile.items():
            random = np.random.default_rng(stable_hash(self.seed, "spoilt", user, name))
            drawn = random.random()
            if drawn < self.wrong:
                others = {other: count for other, count in sorted(values[name].items()) if other != value}
                if not others:
                    raise ValueError(f"{name} is {value!r} for everybody: there is no wrong value to give")
                shares = np.array(list(others.values())) / sum(others.values())
                spoilt[name] = str(random.choice(list(others), p=shares))
            elif drawn < 1 - self.missing:
                spoilt[name] = value
        return spoilt


def read_profiles(path: Path) -> dict[str, dict[str, str]]:
    """User → attributes from a `profiles.parquet` with the columns user, attribute, value."""
    if not path.is_file():
        raise FileNotFoundError(f"no profiles in {path}")
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); write it anew") from None
    missing = {"user", "attribute", "value"} - set(names)
    if missing:
        raise ValueError(f"{path} lacks the columns {sorted(missing)}; it has {names}")
    profiles: dict[str, dict[str, str]] = {}
    for row in pq.read_table(path, columns=["user", "attribute", "value"]).to_pylist():
        profiles.setdefault(row["user"], {})[row["attribute"]] = row["value"]
    return profiles
