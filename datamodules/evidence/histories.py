"""What people said in training dialogues, and labels from it or from the corpus: user → attribute → value.

Only training dialogues count: those that are held out, of pre-training users and of target users alike, say nothing
about anybody's profile.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from datamodules.corpora.records import Drops, Post, Profile
from datamodules.evidence.counts import Chunk, is_question, named, posts_matching, said
from datamodules.evidence.language import Attribute, Language
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import comparable, split_dialogues

SEARCHED_AT_ONCE = 150


class Spoken(NamedTuple):
    """A post in a dialogue."""

    post: Post
    answered: str  # the turn before it
    dialogue: str


def histories_of(preparation: Preparation) -> dict[str, list[Spoken]]:
    """Everybody's training posts in time order; without times, as the corpus has them."""
    drops = Drops()
    dialogues = list(preparation.dialogues(drops))
    drops.stop_above(preparation.max_dropped)
    _, splits = split_dialogues(dialogues, preparation.splits)
    histories: dict[str, list[Spoken]] = defaultdict(list)
    for dialogue, author in [*splits["pretrain/train"], *splits["users/train"]]:
        answered = ""
        for turn in dialogue.turns:
            if author in (None, turn.speaker):
                post = Post(turn.speaker, turn.text, turn.time)
                histories[turn.speaker].append(Spoken(post, answered, dialogue.id))
            answered = turn.text
    for posts in histories.values():
        if all(spoken.post.time is not None for spoken in posts):
            posts.sort(key=lambda spoken: comparable(spoken.post.time))
    return histories


def declared_labels(profiles: Iterable[Profile], language: Language, path: Path) -> dict[str, dict[str, str]]:
    """What the corpus declares of users, in attributes that the language of the YAML at `path` has."""
    labels: dict[str, dict[str, str]] = {}
    wrong: Counter[tuple[str, str]] = Counter()
    for profile in profiles:
        if profile.origin != "declared":
            continue
        known = {name: value for name, value in profile.attributes.items() if name in language.attributes}
        wrong.update((name, value) for name, value in known.items() if value not in language.attributes[name].values)
        labels[profile.user] = known
    if wrong:
        examples = ", ".join(f"{name}={value!r} ({count} users)" for (name, value), count in wrong.most_common(5))
        raise ValueError(f"{path} does not have these values, which the corpus declares: {examples}")
    return labels


def distant_labels(
    histories: dict[str, list[Spoken]], language: Language, names: Collection[str]
) -> dict[str, dict[str, str]]:
    """What users say of themselves most, by patterns of these names; their posts that say so are taken out."""
    speaking = label_attributes(language, names)
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for user, history in histories.items():
        hidden, stated = set(stating(history, speaking)), defaultdict(Counter)
        for place in sorted(hidden):
            alone = chunk_of([history[place]])
            for attribute in speaking:
                for (_, value), count in (said(attribute, alone) + named(attribute, alone)).items():
                    stated[attribute.name][value] += count
        for name, values in stated.items():
            (value, count), *others = values.most_common(2)
            if not others or count > others[0][1]:
                labels[user][name] = value
        history[:] = [spoken for place, spoken in enumerate(history) if place not in hidden]
    return labels


def label_attributes(language: Language, names: Collection[str]) -> list[Attribute]:
    """The attributes with only those of their patterns and frames that make distant labels."""
    if unknown := sorted(set(names) - set(language.patterns)):
        raise ValueError(f"data.label_patterns: no pattern is called {unknown[0]!r}; there are {language.patterns}")
    return [
        replace(
            attribute,
            patterns={name: one for name, one in attribute.patterns.items() if name in names},
            places={frame: one for frame, one in attribute.places.items() if frame in names},
        )
        for attribute in language.attributes.values()
    ]


def stating(history: Sequence[Spoken], speaking: Sequence[Attribute]) -> Iterator[int]:
    """The places of a user's posts that match a pattern of distant labels, which are those of `label_attributes`."""
    patterns = [
        pattern
        for attribute in speaking
        for by_value in [*attribute.patterns.values(), attribute.places]
        for pattern in by_value.values()
    ]
    for start in range(0, len(history), SEARCHED_AT_ONCE):
        chunk = chunk_of(history[start : start + SEARCHED_AT_ONCE])
        stating_posts = {number for pattern in patterns for number in posts_matching(pattern, chunk)}
        statements = (position for position, post in enumerate(chunk.posts) if not is_question(post.text))
        yield from (start + position for number, position in enumerate(statements) if number in stating_posts)


def chunk_of(history: Sequence[Spoken]) -> Chunk:
    """Posts of one user as one chunk; there is at least one."""
    posts, answered, _ = zip(*history, strict=True)
    return Chunk(posts[0].author, posts, answered)
