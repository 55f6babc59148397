"""What a preparation is: a corpus, its output, and everything that decides the content of the output."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from artefacts.layout import PROFILES, TOKENIZER, TOKENIZER_FILE
from artefacts.manifest import MANIFEST_VERSION
from artefacts.ranges import AT_LEAST_1, SHARE, Range, require
from datamodules.corpora.posts.reader import Posts
from datamodules.corpora.records import OPTED_OUT, REPEATED, Corpus, Dialogue, Drops, Profile

from .opt_out import names_fingerprint, read_opt_out
from .repeats import Told
from .shards import describe_file
from .splits import SplitRule
from .tokenizer import MIN_VOCABULARY, harmless, load_tokenizer, tokenizer_fingerprint

OF_POSTS = ("max_tokenizer_texts", "engine", "num_workers", "num_buckets", "ray_address")
"""Settings of the path at scale, most of which decide where and how fast, not what."""
UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
MAX_TURN_TOKENS = 65_535  # lengths of turns take two bytes in a shard


@dataclass
class Preparation:
    """Turns a corpus into token shards, once; a second run reuses them.

    Args:
        corpus: the reader of a published data set, for example `datamodules.corpora.ChitChat`, or
            `datamodules.corpora.Posts`. What is below `verify` concerns posts only.
        output: directory of the prepared data.
        splits: who is a target user and how their dialogues are divided.
        vocabulary_size: pieces of the tokenizer (32,000 in the authors' earlier public model; not stated in
            the paper); not looked at with `tokenizer`.
        max_context_turns: turns kept before a response (about 4 in that earlier model; not stated in the paper).
        max_turn_tokens: ids kept of one turn, from its beginning; the rest is cut and counted.
        max_dropped: share of dialogues that may be dropped before preparation stops.
        normalisation: Unicode form of all text; NFKC makes full-width and half-width forms one.
        tokenizer: directory of a tokenizer to take instead of training one: that of a backbone that was trained on
            another corpus, or `tokenizer/` of that corpus, prepared.
        opt_out: text file of people's ids, one a line, who asked to be left out: no dialogue that they take part in is
            used. They do not count against `max_dropped`, which is about broken input. Prepared data are used only if
            none of them is in it.
        verify: compare every file of a finished directory with its checksum. Damaged ones of posts are written again,
            those of dialogues are named. Missing and truncated ones are found without it.
        max_tokenizer_texts: posts that the tokenizer is learnt from, a sample of all.
        engine: `native` for the processes of this machine, or `ray` for those of a Ray cluster; the output is the same.
        num_workers: tasks at once; None takes one for each processor.
        num_buckets: into how many parts posts are dealt, so that a task has only one of them in memory; the output is
            the same. None takes one for each 128 MiB of input.
        ray_address: of a running cluster, with `engine: ray`; None starts one on this machine for the time of the
            preparation. The output has to be in a directory that all its machines share.
    """

    corpus: Corpus | Posts
    output: Path
    splits: SplitRule = field(default_factory=SplitRule)
    vocabulary_size: int = 8000
    max_context_turns: int = 4
    max_turn_tokens: int = 128
    max_dropped: float = 0.01
    normalisation: str = "NFKC"
    tokenizer: Path | None = None
    opt_out: Path | None = None
    verify: bool = False
    max_tokenizer_texts: int = 1_000_000
    engine: Literal["native", "ray"] = "native"
    num_workers: int | None = None
    num_buckets: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        require(
            vars(self),
            self._problems(),
            vocabulary_size=Range(MIN_VOCABULARY),
            max_context_turns=AT_LEAST_1,
            max_turn_tokens=Range(1, MAX_TURN_TOKENS),
            max_dropped=SHARE,
            max_tokenizer_texts=AT_LEAST_1,
            num_workers=AT_LEAST_1.or_none(),
            num_buckets=AT_LEAST_1.or_none(),
        )

    def _problems(self) -> Iterator[str]:
        """What is wrong with the settings but for values out of bounds."""
        if self.normalisation not in UNICODE_FORMS:
            yield f"normalisation is {self.normalisation!r}, expected one of {', '.join(UNICODE_FORMS)}"
        if isinstance(self.corpus, Posts):
            if self.splits.num_target_users != 0:
                yield (
                    f"splits.num_target_users is {self.splits.num_target_users}, but posts are for pre-training alone; "
                    "set it to 0, and give target users their dialogues in a corpus of their own"
                )
        elif given := [name for name in OF_POSTS if getattr(self, name) != getattr(Preparation, name)]:
            yield (
                f"{', '.join(given)} is for posts (corpus: datamodules.corpora.Posts), but the corpus is "
                f"{type(self.corpus).__name__}; leave it out"
            )

    def settings(self) -> dict[str, Any]:
        """What decides the content of the output, as plain values."""
        # The opt-out list may grow after a preparation, and no manifest names a person on it: see `checks.py`.
        excluded = ("corpus", "output", "splits", "tokenizer", "opt_out", "verify", *OF_POSTS)
        values = {setting.name: getattr(self, setting.name) for setting in fields(self) if setting.name not in excluded}
        if self.tokenizer:
            del values["vocabulary_size"]
        if self.has_tokenizer:
            values["tokenizer"] = tokenizer_fingerprint(self.tokenizer)
        if isinstance(self.corpus, Posts):
            values["max_tokenizer_texts"] = self.max_tokenizer_texts
            values["posts"] = self.corpus.settings()
        return {"corpus": type(self.corpus).__name__, **values, "splits": asdict(self.splits)}

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer is given and still there."""
        return self.tokenizer is not None and (self.tokenizer / TOKENIZER_FILE).is_file()

    def manifest(self, directory: Path, target_users: list[str], **contents: Any) -> dict[str, Any]:
        """The manifest of what is written in a directory: what made it, and these contents (counts, drops, splits)."""
        tokenizer = directory / TOKENIZER
        files = [path for path in (*sorted(tokenizer.iterdir()), directory / PROFILES) if path.is_file()]
        return {
            "version": MANIFEST_VERSION,
            "settings": self.settings(),
            "source_fingerprint": self.corpus.fingerprint(),
            "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
            "vocabulary_size": load_tokenizer(tokenizer).get_vocab_size(),
            "target_users": target_users,
            "opted_out": names_fingerprint(self.opted_out),
            "files": {path.relative_to(directory).as_posix(): describe_file(path) for path in files},
            **contents,
        }

    @property
    def opted_out(self) -> frozenset[str]:
        """Ids of people who asked to be left out."""
        return read_opt_out(self.opt_out) if self.opt_out else frozenset()

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        """The corpus' dialogues, normalised and each once, without those of people who opted out."""
        opted_out, told = self.opted_out, Told()
        for dialogue in self.corpus.dialogues(drops):
            speakers = {turn.speaker for turn in dialogue.turns}
            drops.people.ids |= speakers
            if speakers & opted_out:
                drops.reasons.add(OPTED_OUT)
                continue
            turns = (replace(turn, text=self.normalised_text(turn.text)) for turn in dialogue.turns)
            dialogue = replace(dialogue, turns=tuple(turns))
            if told.again(dialogue):
                drops.reasons.add(REPEATED, examples=[dialogue.id])
            else:
                yield dialogue

    def profiles(self) -> Iterator[Profile]:
        """What the corpus declares of its speakers, without those who opted out."""
        opted_out = self.opted_out
        return (profile for profile in self.corpus.profiles() if profile.user not in opted_out)

    def normalised_text(self, text: str) -> str:
        """A text in the Unicode form of all text, with single blanks."""
        return harmless(" ".join(unicodedata.normalize(self.normalisation, text).split()))
