"""What the people of the synthetic network write: words, habits, and what gives an attribute away.

In: who writes, as numbers of attribute values. Out: texts, as Arrow arrays, about 60 bytes each.

The attributes, their values and the names of places are those of `experiments/profiles/en.yaml`, so that its patterns
find what is planted here. The words are a hundred frequent English ones and invented ones, 6,000 together, drawn by
Zipf's law: the word of rank r has a share that goes with 1 / (r + 2.7). No text has a quote, a backslash or a line
break, so that it can stand in JSON as it is.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

PLACES = Path(__file__).parents[2] / "experiments" / "profiles" / "states_en.yaml"
NUM_WORDS = 6000
WORDS_PER_POST = 7.6  # on average, beyond the three that every post has
DISCLOSURE, WRONG = 0.05, 0.05  # share of posts with a disclosure; share of disclosures that say what is not so
HABIT, HABITS_PER_VALUE, FIRST_HABIT = 0.3, 12, 150  # share of posts; words for each value; rank of the first
FREQUENT = (
    "the to a and i it you of is in that for on my me we so was have this with but be just not at are what do if "
    "they like good all get can your know up one out really now time when no more about had day go think would how "
    "want see there from as will love too then some very been did well also here over right back still only than "
    "much again new need going today way first off make thing could why who great people always something never "
    "after them even before other last long night best little"
)
PHRASES = {
    "gender": {
        "female": ["i'm a girl", "i'm a mom", "as a woman", "i am a woman"],
        "male": ["i'm a guy", "i'm a dad", "as a man", "i am a man"],
    },
    "age": {
        "under 20": ["i'm 17", "i'm only 16", "i'm in high school", "freshman year"],
        "20s": ["i'm 24", "i'm 27", "in my early 20s", "my roommate"],
        "30s": ["i'm 34", "i'm 38", "in my thirties", "my toddler"],
        "40 and over": ["i'm 47", "i'm 58", "in my forties", "my grandkids"],
    },
    "occupation": {
        "student": ["i'm a student", "i'm studying", "so much homework", "my professor", "on campus"],
        "employed": ["i'm a teacher", "i'm a nurse", "i work at the", "my boss", "my coworkers"],
        "at home": ["i'm a stay at home parent", "i'm retired", "so much housework", "nap time"],
    },
    "marital_status": {
        "married": ["i'm married", "we got married"],
        "single": ["i'm single", "not married"],
    },
    "residence": {},  # by `attribute_values`: one value for each line of the file of places
    "spouse": {  # not an attribute: follows from gender and marital status
        "female married": ["my husband", "my hubby"],
        "female single": ["my boyfriend"],
        "male married": ["my wife"],
        "male single": ["my girlfriend"],
    },
}
ATTRIBUTES = [name for name in PHRASES if name != "spouse"]
ENDINGS = ["", ".", "!", "?", "...", " lol", " haha", " omg", " :)", " <3", "!!", " \U0001f602"]
ENDING_SHARES = [0.35, 0.2, 0.1, 0.08, 0.06, 0.05, 0.04, 0.02, 0.04, 0.01, 0.03, 0.02]
ENDINGS_OF_AGE = [" omg", " lol", " haha", "..."]  # what under 20, 20s, 30s, 40 and over are fond of
ONSETS, VOWELS = "b d f g k l m n p r s t v z ch sh st tr", "aeiou"
CODAS = ["", "", "n", "r", "s", "t", "l"]


@cache
def places() -> dict[str, list[str]]:
    """Values of residence with the names that people use for them."""
    return yaml.safe_load(PLACES.read_text(encoding="utf-8"))


@cache
def phrases() -> list[tuple[str, str, list[str]]]:
    """All values of all attributes, the spouse's last: attribute, value, what people say; the order numbers them."""
    live = {value: [f"i live in {names[0]}", f"i'm from {names[0]}", names[-1]] for value, names in places().items()}
    return [
        (attribute, value, said)
        for attribute, values in {**PHRASES, "residence": live}.items()
        for value, said in values.items()
    ]


@cache
def first_value() -> dict[str, int]:
    """The number of each attribute's first value."""
    first: dict[str, int] = {}
    for number, (attribute, _, _) in enumerate(phrases()):
        first.setdefault(attribute, number)
    return first


@cache
def vocabulary() -> tuple[str, ...]:
    """The words by rank, frequent ones first; the same for every seed."""
    rng = np.random.default_rng(0)
    names = {name for called in places().values() for name in called}
    words = dict.fromkeys(FREQUENT.split())
    syllables = [onset + vowel for onset in ONSETS.split() for vowel in VOWELS]
    while len(words) < NUM_WORDS:
        number = rng.integers(0, len(syllables), 2 if len(words) < 1500 else 3)
        word = "".join(syllables[one] for one in number) + CODAS[rng.integers(0, len(CODAS))]
        if len(set(number)) == len(number) and word not in names:  # "haha" and "mesa" would be evidence
            words[word] = None
    return tuple(words)


@cache
def habits() -> np.ndarray:
    """(values, habits): ranks of the words that each value makes more likely; others use them as well, but less."""
    ranks = FIRST_HABIT + np.random.default_rng(1).permutation(len(phrases()) * HABITS_PER_VALUE)
    return ranks.reshape(len(phrases()), HABITS_PER_VALUE)


class Writing:
    """Tables from which texts are put together."""

    def __init__(self) -> None:
        self.words = pa.array(vocabulary())
        quantile = (np.arange(1 << 16) + 0.5) / (1 << 16)
        shares = np.cumsum(1 / (np.arange(NUM_WORDS) + 3.7))
        self.rank_of_quantile = np.searchsorted(shares / shares[-1], quantile).astype(np.int32)
        said = [said for _, _, said in phrases()]
        self.num_phrases = np.array([len(one) for one in said])
        self.first_phrase = 1 + np.cumsum(self.num_phrases) - self.num_phrases
        self.phrases = pa.array(["", *(f"{phrase}, " for one in said for phrase in one)])
        self.endings = pa.array(ENDINGS)
        self.ending_of_quantile = np.searchsorted(np.cumsum(ENDING_SHARES), (np.arange(256) + 0.5) / 256 - 1e-9)
        self.ending_of_age = np.array([ENDINGS.index(ending) for ending in ENDINGS_OF_AGE])
        sizes = np.bincount([list(first_value()).index(attribute) for attribute, _, _ in phrases()])
        self.first, self.sizes = np.array(list(first_value().values())), sizes

    def draw_words(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Ranks of words by Zipf's law."""
        return self.rank_of_quantile[rng.integers(0, 1 << 16, size, dtype=np.uint16)]

    def write(self, rng: np.random.Generator, values: np.ndarray) -> pa.StringArray:
        """One text for each row of values, (posts, attributes and spouse): disclosure or none, words, ending."""
        size = len(values)
        lengths = 3 + rng.poisson(WORDS_PER_POST, size)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ranks = self.draw_words(rng, offsets[-1])
        habitual = np.flatnonzero(rng.random(size) < HABIT)
        trait = values[habitual, rng.integers(0, len(ATTRIBUTES), len(habitual))]
        ranks[offsets[habitual] + 1] = habits()[trait, rng.integers(0, HABITS_PER_VALUE, len(habitual))]
        phrase = self.disclosures(rng, values)
        body = pc.binary_join(pa.ListArray.from_arrays(offsets.astype(np.int32), self.words.take(pa.array(ranks))), " ")
        disclosed = self.phrases.take(pa.array(phrase))
        return pc.binary_join_element_wise(disclosed, body, self.draw_endings(rng, values, phrase > 0), "")

    def disclosures(self, rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
        """The number of a phrase for each post; 0 is none."""
        phrase = np.zeros(len(values), dtype=np.int64)
        told = np.flatnonzero(rng.random(len(values)) < DISCLOSURE)
        attribute = rng.integers(0, len(self.first), len(told))
        wrong = self.first[attribute] + rng.integers(0, 1 << 16, len(told)) % self.sizes[attribute]
        value = np.where(rng.random(len(told)) < WRONG, wrong, values[told, attribute])
        phrase[told] = self.first_phrase[value] + rng.integers(0, 1 << 16, len(told)) % self.num_phrases[value]
        return phrase

    def draw_endings(self, rng: np.random.Generator, values: np.ndarray, disclosed: np.ndarray) -> pa.StringArray:
        """Marks and smileys, some by age; a post that discloses something is no question."""
        ending = self.ending_of_quantile[rng.integers(0, 256, len(values), dtype=np.uint8)]
        fond = rng.random(len(values)) < 0.15
        ending[fond] = self.ending_of_age[values[fond, ATTRIBUTES.index("age")] - first_value()["age"]]
        ending[disclosed & (ending == ENDINGS.index("?"))] = ENDINGS.index(".")
        return self.endings.take(pa.array(ending))
