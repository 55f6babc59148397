"""How often words, character n-grams, patterns and forms occur in chunks of posts.

Everything is counted by arrays where there is much of it: character n-grams of up to three characters are numbers of
63 bits, 21 bits a character, so that they are exact.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import repeat

import numpy as np

from datamodules.corpora.records import Post
from datamodules.evidence.language import Attribute, Language, Pattern
from datamodules.evidence.pattern_search import Lines, occurrences

BITS = 21  # of a Unicode code point
BREAK = ord("\n")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
QUESTION_ENDS = ("?", "？", *(f"{verb}か{stop}" for verb in ("です", "ます", "でしょう") for stop in ("", "。", ".")))


@dataclass(frozen=True)
class Chunk:
    """Consecutive posts of one user, in time order, and the turns that they answer."""

    user: str
    posts: tuple[Post, ...]
    answered: tuple[str, ...]  # the turn before each post, empty at the beginning of a dialogue

    @cached_property
    def statements(self) -> list[tuple[Post, str]]:
        """The posts that are no questions, each with the turn that it answers."""
        pairs = zip(self.posts, self.answered, strict=True)
        return [(post, answered) for post, answered in pairs if not is_question(post.text)]

    @cached_property
    def lines(self) -> Lines:
        return Lines([post.text for post in self.posts])

    @cached_property
    def stated(self) -> Lines:
        return Lines([post.text for post, _ in self.statements])

    @cached_property
    def replied_to(self) -> Lines:
        return Lines([answered for _, answered in self.statements])


def is_question(text: str) -> bool:
    """Whether a post asks."""
    return text.rstrip().endswith(QUESTION_ENDS)


@dataclass(frozen=True)
class Counts:
    """How often what occurs where; parallel arrays, sorted by chunk and item."""

    chunk: np.ndarray  # (entries,) int64
    item: np.ndarray  # (entries,) int64; a packed n-gram, or a number of a word
    count: np.ndarray  # (entries,) int64

    def within(self, items: np.ndarray) -> Counts:
        """Entries of some items, which are sorted; each item becomes its place among them."""
        place = np.searchsorted(items, self.item)
        known = place < len(items)
        known[known] = items[place[known]] == self.item[known]
        return Counts(self.chunk[known], place[known], self.count[known])

    def relative(self, num_chunks: int) -> np.ndarray:
        """The degree of each: the logarithm of the count, over the length of the chunk's vector of them."""
        degree = 1 + np.log(self.count)
        norm = np.sqrt(np.bincount(self.chunk, weights=degree**2, minlength=num_chunks))
        return (degree / norm[self.chunk]).astype(np.float32)

    @staticmethod
    def of(chunk: np.ndarray, item: np.ndarray) -> Counts:
        """Counts equal (chunk, item)."""
        order = np.lexsort((item, chunk))
        chunk, item = chunk[order], item[order]
        is_new = (np.diff(chunk, prepend=-1) != 0) | (np.diff(item, prepend=-1) != 0)
        starts = np.flatnonzero(is_new)
        return Counts(chunk[starts], item[starts], np.diff(np.append(starts, len(item))))


NOTHING = Counts(*(np.zeros(0, dtype=np.int64) for _ in range(3)))


def gram_counts(chunks: Sequence[Chunk], sizes: Iterable[int]) -> Counts:
    """Character n-grams within posts, as packed code points; letters are lower case, digits as they are."""
    texts = [post.text.lower() for chunk in chunks for post in chunk.posts]
    owner = np.repeat(np.arange(len(chunks)), [len(chunk.posts) for chunk in chunks])
    joined = "".join(text + "\n" for text in texts)
    points = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    chunk_of = np.repeat(owner, [len(text) + 1 for text in texts])
    chunks_of, keys = [NOTHING.chunk], [NOTHING.item]
    for size in sizes:
        if not 1 <= size <= 3:
            raise ValueError(f"n-grams have 1 to 3 characters, got {size}")
        if len(points) < size:
            continue
        grams = np.lib.stride_tricks.sliding_window_view(points, size)  # (n-grams, size)
        whole = (grams != BREAK).all(axis=1)
        keys.append((grams @ (1 << BITS * np.arange(size)[::-1]))[whole])
        chunks_of.append(chunk_of[: len(grams)][whole])
    return Counts.of(np.concatenate(chunks_of), np.concatenate(keys))


def gram_text(key: int) -> str:
    """The characters of a packed n-gram."""
    return gram_text(key >> BITS) + chr(key & ((1 << BITS) - 1)) if key else ""


def gram_key(text: str) -> int:
    """An n-gram as a number."""
    return reduce(lambda key, character: (key << BITS) | ord(character), text, 0)


def segmenter(name: str) -> Callable[[str], list[str]]:
    """Words of a text: `unidic` for Japanese (fugashi with unidic-lite), `words` for what blanks separate."""
    if name == "words":
        return lambda text: WORD.findall(text.lower())
    try:
        import fugashi
        import unidic_lite
    except ImportError:
        raise ValueError(
            "Japanese words need fugashi and unidic-lite; install them with: pip install -e '.[profiles]'"
        ) from None
    tagger = fugashi.GenericTagger(f"-O wakati -r {unidic_lite.DICDIR}/mecabrc -d {unidic_lite.DICDIR}")
    return lambda text: tagger.parse(text).split()


class Words:
    """Numbers of words, given as they are met."""

    def __init__(self, name: str) -> None:
        self.segment = segmenter(name)
        self.number: dict[str, int] = {}

    def counts(self, chunks: Sequence[Chunk], grow: bool) -> Counts:
        """Words within posts; new ones get a number if `grow`, and are left out otherwise."""
        numbers, sizes = [NOTHING.item], []
        for chunk in chunks:
            words = [word for post in chunk.posts for word in self.segment(post.text)]
            if grow:
                for word in words:
                    self.number.setdefault(word, len(self.number))
            numbers.append(np.fromiter(map(self.number.get, words, repeat(-1)), np.int64, len(words)))
            sizes.append(len(words))
        chunk_of, item = np.repeat(np.arange(len(chunks)), sizes), np.concatenate(numbers)
        return Counts.of(chunk_of[item >= 0], item[item >= 0])


@dataclass(frozen=True)
class Vocabulary:
    """Items that are looked at, and for each of several learners which of them it may use."""

    items: np.ndarray  # (items,), sorted
    allowed: np.ndarray  # (learners, items) bool


def choose(counts: Counts, user: np.ndarray, learners: np.ndarray, min_users: int, max_items: int) -> Vocabulary:
    """Chooses items by the number of users who have them, for each learner on its own training users.

    Args:
        counts: of all chunks.
        user: number of each chunk's user, (chunks,).
        learners: (learners, users) bool, whom each of them learns from.
        min_users: fewest training users who have the item.
        max_items: most items of a learner; those of most users are kept.
    """
    items, place = np.unique(counts.item, return_inverse=True)
    num_users = learners.shape[1]
    pairs = np.unique(place * num_users + user[counts.chunk])
    allowed = np.zeros((len(learners), len(items)), dtype=bool)
    for row, learns in zip(allowed, learners, strict=True):
        mine = pairs[learns[pairs % num_users]]
        spread = np.bincount(mine // num_users, minlength=len(items))
        best = np.lexsort((items, -spread))[:max_items]
        row[best] = spread[best] >= min_users
    kept = allowed.any(axis=0)
    return Vocabulary(items[kept], allowed[:, kept])


def posts_matching(pattern: Pattern, chunk: Chunk) -> list[int]:
    """Numbers of the statements in which the pattern occurs; with `asked`, of answers to what matches it only."""
    if pattern.asked is None:
        return chunk.stated.matching(pattern.said, pattern.needs)
    answers = chunk.replied_to.matching(pattern.asked, pattern.needs)
    return [number for number in answers if pattern.said.search(chunk.stated.texts[number])]


def matches(pattern: Pattern, chunk: Chunk) -> list[re.Match[str]]:
    """Where the pattern occurs in posts that are no questions; with `asked`, in answers to what matches it only."""
    if pattern.asked is None:
        return occurrences(pattern.said, chunk.stated, pattern.needs)
    texts = chunk.stated.texts
    return [match for number in posts_matching(pattern, chunk) for match in pattern.said.finditer(texts[number])]


def said(attribute: Attribute, chunk: Chunk) -> Counter[tuple[str, str]]:
    """(pattern, value) → how often it occurs in posts that are no questions."""
    return +Counter(
        {
            (name, value): len(matches(pattern, chunk))
            for name, by_value in attribute.patterns.items()
            for value, pattern in by_value.items()
        }
    )


def named(attribute: Attribute, chunk: Chunk) -> Counter[tuple[str, str]]:
    """(frame, value) → how often posts that are no questions name a place or an area that means it."""
    # Few posts name a place, and there are many frames.
    naming = posts_matching(attribute.any_name, chunk) if attribute.places else []
    if not naming:
        return Counter()
    few = Chunk(chunk.user, *zip(*(chunk.statements[number] for number in naming), strict=True))
    return Counter(
        (frame, value)
        for frame, pattern in attribute.places.items()
        for match in matches(pattern, few)
        for value in attribute.values_of(frame, match[1])
    )


def used(language: Language, chunk: Chunk) -> Counter[str]:
    """Form → how often it is used."""
    forms = language.forms.items()
    return +Counter({name: len(occurrences(form.said, chunk.lines, form.needs)) for name, form in forms})
