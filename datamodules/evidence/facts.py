"""`ChunkFacts`: what a network sees of chunks of posts, as facts in tensors, and what it has to keep to see them again.

HasWord(user, word)  HasGram(user, gram)  Uses(user, form)  Posts(user, hour)
SaysGender(user, pattern, gender) ...     one such predicate for each attribute that has patterns
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artefacts.files import read_object
from artefacts.layout import VOCABULARY
from datamodules.batches import Facts
from datamodules.evidence.counts import NOTHING, Chunk, Words, gram_counts, gram_key, gram_text, named, said, used
from datamodules.evidence.language import Language

HOURS = [str(hour) for hour in range(24)]
Named = Counter[tuple[str, str]]
"""(frame, value) → how often a place is named."""


@dataclass
class ChunkFacts:
    """Turns chunks into facts about the words, n-grams, patterns and forms that a network knows."""

    language: Language
    words: Words
    grams: np.ndarray  # packed n-grams, sorted
    gram_sizes: Sequence[int]
    rarity: Mapping[str, Mapping[tuple[str, str], float]]  # attribute → (frame, value) → how much naming it says

    @classmethod
    def learnt(cls, language: Language, content: Mapping[str, Any]) -> ChunkFacts:
        """As the network saw them that wrote this `vocabulary.json`."""
        words = Words(language.segmenter)
        words.number = {word: place for place, word in enumerate(content["words"])}
        grams = np.array([gram_key(gram) for gram in content["grams"]], dtype=np.int64)
        rarity = {
            name: {(frame, value): share for frame, value, share in entries}
            for name, entries in content["rarity"].items()
        }
        return cls(language, words, grams, sorted({len(gram) for gram in content["grams"]}), rarity)

    def content(self) -> dict[str, Any]:
        """What `learnt` needs, as JSON has it."""
        domains = self.domains
        return {
            "words": domains["word"],
            "grams": domains["gram"],
            "domains": language_domains(self.language),
            "rarity": {
                name: [[*key, share] for key, share in entries.items()] for name, entries in self.rarity.items()
            },
        }

    @property
    def domains(self) -> dict[str, list[str]]:
        """Type → values, as formulas name them."""
        return {
            **language_domains(self.language),
            "word": list(self.words.number),
            "gram": [gram_text(key) for key in self.grams.tolist()],
            "hour": HOURS,
        }

    @property
    def predicates(self) -> dict[str, tuple[str, ...]]:
        """What formulas may say: predicate → types of its arguments."""
        attributes = self.language.attributes.values()
        return {
            **{attribute.predicate: ("user", attribute.name) for attribute in attributes},
            **{attribute.said: ("user", "pattern", attribute.name) for attribute in attributes},
            "HasWord": ("user", "word"),
            "HasGram": ("user", "gram"),
            "Uses": ("user", "form"),
            "Posts": ("user", "hour"),
            "Replies": ("user", "user"),
        }

    def of(self, chunks: Sequence[Chunk], places: Sequence[Mapping[str, Named]]) -> dict[str, Facts]:
        """All that is true of some chunks, but for who replies to whom.

        Args:
            chunks: the first argument of every fact counts within them.
            places: for each chunk, attribute → places in the whole history of its user.
        """
        facts = {}
        for name, counts in (
            ("HasWord", self.words.counts(chunks, grow=False) if self.words.number else NOTHING),
            ("HasGram", gram_counts(chunks, self.gram_sizes).within(self.grams) if len(self.grams) else NOTHING),
        ):
            arguments = np.stack([counts.chunk, counts.item], axis=1)
            facts[name] = Facts(torch.from_numpy(arguments), torch.from_numpy(counts.relative(len(chunks))))
        facts |= self._said(chunks, places)
        forms = {name: place for place, name in enumerate(self.language.forms)}
        uses = [
            (place, forms[form], count)
            for place, chunk in enumerate(chunks)
            for form, count in used(self.language, chunk).items()
        ]
        hours = (Counter(post.time.hour for post in chunk.posts if post.time is not None) for chunk in chunks)
        posted = [(place, hour, count) for place, own in enumerate(hours) for hour, count in own.items()]
        return facts | {"Uses": saturating(uses, 2), "Posts": saturating(posted, 2)}

    def _said(self, chunks: Sequence[Chunk], places: Sequence[Mapping[str, Named]]) -> dict[str, Facts]:
        facts = {}
        patterns = {name: place for place, name in enumerate(self.language.patterns)}
        for attribute in self.language.attributes.values():
            values = {name: place for place, name in enumerate(attribute.values)}
            rare = self.rarity[attribute.name]
            rarest = max(rare.values(), default=1.0)  # of a place that nobody has named before
            entries, shares = [], []
            for place, (chunk, named_by_user) in enumerate(zip(chunks, places, strict=True)):
                for (pattern, value), count in (said(attribute, chunk) + named_by_user[attribute.name]).items():
                    entries.append((place, patterns[pattern], values[value], count))
                    shares.append(rare.get((pattern, value), rarest if pattern in attribute.places else 1.0))
            arguments, degrees = saturating(entries, 3)
            facts[attribute.said] = Facts(arguments, degrees * torch.tensor(shares, dtype=torch.float32))
        return facts

    def places(self, chunks: Sequence[Chunk]) -> dict[str, Named]:
        """Attribute → places in the whole history of a user, which is given."""
        return {
            attribute.name: sum((named(attribute, chunk) for chunk in chunks), Counter())
            for attribute in self.language.attributes.values()
        }


def read_vocabulary(directory: Path, language: Language, path: Path) -> dict[str, Any]:
    """The `vocabulary.json` of a learnt network.

    Raises:
        FileNotFoundError: there is no learnt network.
        ValueError: it was learnt with another language than this one of the YAML at `path`.
    """
    file = directory / VOCABULARY
    if not file.is_file():
        raise FileNotFoundError(
            f"no learnt network in {directory}; learn it with: lightning fit --config <the same experiment>, or name "
            "one as `network`"
        )
    content = read_object(file, "folds", "num_folds", mend=f"delete {directory} and learn the network again")
    if content.get("domains") != language_domains(language):  # weights go by the places of values and patterns
        raise ValueError(f"{path} has other values, patterns or forms than when {directory} was learnt; learn it anew")
    return content


def language_domains(language: Language) -> dict[str, list[str]]:
    """Type → values, of what the language's YAML says."""
    values = {attribute.name: list(attribute.values) for attribute in language.attributes.values()}
    return {**values, "form": list(language.forms), "pattern": language.patterns}


def cut(posts: Sequence, size: int) -> list[Sequence]:
    """Chunks of `size` posts; what is left over at the end joins the last chunk, or is all there is."""
    number = max(1, len(posts) // size)
    return [posts[place * size : (place + 1) * size if place < number - 1 else len(posts)] for place in range(number)]


def rarity(named_by_user: Sequence[Named]) -> dict[tuple[str, str], float]:
    """(frame, value) → 0 if everybody names such a place, nearly 1 if one of many does: 1 - log(1 + users) / log(all).

    The users may be held out or not: labels play no part.
    """
    users = Counter(key for places in named_by_user for key in places)
    everybody = math.log(max(2, len(named_by_user)))
    return {key: max(0.0, 1 - math.log(1 + count) / everybody) for key, count in users.items()}


def saturating(entries: Sequence[tuple], arity: int) -> Facts:
    """Facts from tuples of arguments and a count: once is true to the degree 0.5, often to the degree 1."""
    table = np.array(entries, dtype=np.float64).reshape(-1, arity + 1)
    degrees = (1 - 0.5 ** table[:, arity]).astype(np.float32)
    return Facts(torch.from_numpy(table[:, :arity].astype(np.int64)), torch.from_numpy(degrees))
