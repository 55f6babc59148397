"""What a Markov logic network says of parts of conversations, and of the speakers' training posts.

Both are a `profiles.parquet`, that of the parts as `datamodules/conversation_posts.py` makes them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artefacts.fingerprints import fingerprint_of
from evaluation.results.conversations import Part

Profile = Mapping[str, str]
"""Attribute → value."""


@dataclass(frozen=True)
class PartProfiles:
    """What a network says of parts of conversations, and of the speakers' training posts."""

    of_parts: Mapping[str, Profile]  # by name of a part (`datamodules/conversation_posts.py`)
    of_users: Mapping[str, Profile]  # from training posts
    conversations: str  # their fingerprint
    block_turns: int

    def prior(self, user: str) -> Profile:
        """What the network says of a speaker who says nothing."""
        return self.of_parts[f"{self.conversations}/prior/0/0-0/{user}"]

    def of(self, part: Part, so_far: bool) -> Profile:
        """What it says of a part; of one of which nothing is looked at, what it says without any text."""
        first = 1 if so_far else part.block * self.block_turns + 1
        span = f"{first}-{(part.block + 1) * self.block_turns}"
        name = f"{self.conversations}/{part.system}/{part.conversation}/{span}/{part.speaker}"
        return self.of_parts.get(name) or self.prior(part.speaker)

    def agreement(self, values: Profile, user: str) -> float:
        """Share of the attributes in a user's profile with these values; not a number where the profile is empty."""
        return share_of_equal(self.of_users.get(user, {}), values, self.of_users.get(user, {}))


def share_of_equal(one: Profile, other: Profile, attributes: Profile) -> float:
    """Of these attributes, the share to which both give the same value; not a number where there are none."""
    return float(np.mean([one.get(a) == other.get(a) for a in attributes])) if attributes else np.nan


def read_part_profiles(
    judged: Path, profiles: Path, conversations: Path, block_turns: int, parts: Sequence[Part]
) -> PartProfiles:
    """Reads what a network says of the conversations, and of the users.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it is about other conversations, or blocks of another size.
    """
    fingerprint = fingerprint_of(conversations)
    values = _profiles(judged, "lightning predict --config experiments/conversation_profiles.yaml")
    others = sorted({name.split("/")[0] for name in values} - {fingerprint})
    if others:
        raise ValueError(
            f"{judged} is about the conversations {others[0]}, but {conversations} is {fingerprint}; predict anew "
            "with: lightning predict --config experiments/conversation_profiles.yaml"
        )
    judged_turns = {name.split("/")[3] for name in values} - {"0-0"}
    expected = {f"{part.block * block_turns + 1}-{(part.block + 1) * block_turns}" for part in parts}
    if judged_turns and not expected <= judged_turns:
        raise ValueError(
            f"{judged} has no judgements of the turns {sorted(expected - judged_turns)[0]}, only of "
            f"{sorted(judged_turns)}; set block_turns to the data.block_turns of that prediction"
        )
    known = _profiles(profiles, "lightning predict --config experiments/<the network's experiment>.yaml")
    if silent := sorted({part.speaker for part in parts} - {name.split("/", 4)[4] for name in values}):
        raise ValueError(
            f"{judged} has no judgements of {len(silent)} speakers, among them {silent[0]!r}; predict anew"
        )
    return PartProfiles(values, known, fingerprint, block_turns)


def _profiles(path: Path, command: str) -> dict[str, dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"no profiles in {path}; make them with: {command}")
    try:
        rows = pq.read_table(path, columns=["user", "attribute", "value"]).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} cannot be read as profiles ({error}); write it anew") from None
    by_user: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        by_user[row["user"]][row["attribute"]] = row["value"]
    return dict(by_user)
