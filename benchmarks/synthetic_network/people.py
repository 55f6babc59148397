"""The people of the synthetic network: who they are, how much they write, how much they are heard, whom they know.

In: settings. Out: tables with a row for each person, drawn from the seed alone, and draws of people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.synthetic_network.texts import ATTRIBUTES, first_value, phrases

POSTS_PER_PERSON, PEOPLE_PER_BOT = 50, 2000
LARGEST = 1000.0  # of a power law, against the least


@dataclass(frozen=True)
class Settings:
    """What a network is made from.

    Args:
        posts: How many; broken lines are extra.
        seed: Another seed, another network.
        people: How many, bots not counted; default a fiftieth of the posts.
        heavy: About so many posts are by one person, `u0`; 0 treats him as everybody.
        broken: Broken lines for each post; only in JSON lines.
    """

    posts: int
    seed: int = 0
    people: int = 0
    heavy: int = 0
    broken: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "people", self.people or max(10, self.posts // POSTS_PER_PERSON))
        if self.posts < 1 or self.people < 2 or not 0 <= self.heavy < self.posts or not 0 <= self.broken <= 1:
            raise ValueError(f"{self}: posts from 1, people from 2, heavy from 0 below posts, broken from 0 to 1")


def power_law(rng: np.random.Generator, size: int, exponent: float, largest: float) -> np.ndarray:
    """Draws from a Pareto distribution between 1 and the largest."""
    return (1 - rng.random(size) * (1 - largest**-exponent)) ** (-1 / exponent)


def pick(rng: np.random.Generator, weights: np.ndarray, size: int) -> np.ndarray:
    """Positions, drawn by weight."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right").clip(max=len(weights) - 1)


class People:
    """Everybody, by number: who they are, how much they write, how much they are heard. Bots come after the people."""

    def __init__(self, settings: Settings) -> None:
        rng = np.random.default_rng([settings.seed, 0])
        self.seed, self.num = settings.seed, settings.people
        self.num_bots = max(1, self.num // PEOPLE_PER_BOT)
        activity = power_law(rng, self.num, 1.1, LARGEST)
        if settings.heavy:
            activity[0] = activity[1:].sum() * settings.heavy / (settings.posts - settings.heavy)
        self.cumulative = np.cumsum(activity) / activity.sum()
        self.audience = power_law(rng, self.num, 1.2, LARGEST)
        self.values = self.draw_values(rng)

    def draw_values(self, rng: np.random.Generator) -> np.ndarray:
        """(people, attributes and spouse) numbers of values; occupation and marriage go with age."""
        first, size = first_value(), self.num
        gender, age = rng.integers(0, 2, size), pick(rng, np.array([0.2, 0.35, 0.25, 0.2]), size)
        occupations = np.array([[0.9, 0.08, 0.02], [0.4, 0.5, 0.1], [0.05, 0.75, 0.2], [0.02, 0.6, 0.38]])
        occupation = (rng.random(size)[:, None] > occupations.cumsum(1)[age]).sum(1).clip(max=2)
        single = (rng.random(size) < np.array([0.98, 0.7, 0.35, 0.25])[age]).astype(np.int64)
        num_places = first["spouse"] - first["residence"]
        residence = pick(rng, 1 / (np.arange(num_places) + 3), size)
        own = np.stack([gender, age, occupation, single, residence, 2 * gender + single], axis=1)
        return (own + list(first.values())).astype(np.int16)

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """People by activity."""
        return np.searchsorted(self.cumulative, uniform, side="right").clip(max=self.num - 1)

    def who_answers(self, rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
        """Somebody else whom each person has a tie with; the first ties are the strongest."""
        tie = rng.geometric(0.25, len(person)).astype(np.uint64)
        mixed = (person.astype(np.uint64) << np.uint64(16)) + tie + np.uint64(self.seed << 48 & (2**64 - 1))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finaliser of SplitMix64
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        other = self.draw((mixed >> np.uint64(11)) * 2.0**-53)
        return np.where(other == person, (other + 1) % self.num, other)

    def truth(self) -> pa.Table:
        """What is planted: user, attribute, value."""
        values = pa.array([value for _, value, _ in phrases()])
        users = pc.binary_join_element_wise("u", pa.array(np.arange(self.num)).cast(pa.string()), "")
        tables = [
            pa.table({"user": users, "attribute": pa.repeat(name, self.num), "value": values.take(pa.array(column))})
            for name, column in zip(ATTRIBUTES, self.values.T[: len(ATTRIBUTES)], strict=True)
        ]
        return pa.concat_tables(tables)
