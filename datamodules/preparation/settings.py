"""Preparation as a whole: a corpus in, one finished directory out.

In: a `Corpus`. Out, below `output`:

    manifest.json                       settings, counts, drops by reason, fingerprints; written last
    tokenizer/                          for `AutoTokenizer.from_pretrained`
    profiles.parquet                    user, attribute, value, origin; only if the corpus declares any
    pretrain/{train,validation}/        token shards of everybody who is not a target user
    users/{train,validation,test}/      token shards of the target users, in time order

Everything is written to `<output>.partial` and renamed when it is complete, so that a killed
preparation leaves nothing that looks finished.

Dialogues take the light path (`in_memory.py`): a preparation that was killed starts anew. Posts take the path at scale
(`at_scale/`): there are no target users then, so no `users/`, but `pairs/`, from which a damaged part is written
again; and a preparation that was killed goes on. Here are the settings of both, and what is done with a directory that
is there already.
"""

from __future__ import annotations

import fcntl
import json
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from artefacts.manifest import num_pairs, read_manifest
from datamodules.corpora.posts.reader import Posts
from datamodules.corpora.records import Corpus, Dialogue, Drops, Profile
from datamodules.preparation.at_scale.pipeline import PostPreparation, damaged_parts, mend_parts
from datamodules.preparation.at_scale.task_engine import Engine

from .in_memory import DialoguePreparation
from .opt_out import names_fingerprint, read_opt_out
from .splits import SplitRule
from .tokenizer import harmless, tokenizer_fingerprint

OF_POSTS = (
    "max_tokenizer_texts",
    "engine",
    "num_workers",
    "num_buckets",
    "ray_address",
    "verify",
)
"""Settings of the path at scale, most of which decide where and how fast, not what."""


@dataclass
class Preparation:
    """Turns a corpus into token shards, once; a second run finds the work done and says so.

    Args:
        corpus: the reader of a published data set, for example `datamodules.corpora.ChitChat`, or
            `datamodules.corpora.Posts`. What is below `tokenizer` concerns posts only.
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
            used. They do not count against `max_dropped`, which is about broken input. What is prepared already is
            used only if none of them is in it.
        max_tokenizer_texts: posts that the tokenizer is learnt from, a sample of all.
        engine: `native` for the processes of this machine, or `ray` for those of a Ray cluster; the output is the same.
        num_workers: tasks at once; None takes one for each processor.
        num_buckets: into how many parts posts are dealt, so that a task has only one of them in memory; the output is
            the same. None takes one for each 128 MiB of input.
        ray_address: of a running cluster, with `engine: ray`; None starts one on this machine for the time of the
            preparation. The output has to be in a directory that all its machines share.
        verify: compare every part of a finished directory with its checksum, and write damaged ones again. Missing
            and truncated ones are found without it.
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
    max_tokenizer_texts: int = 1_000_000
    engine: Literal["native", "ray"] = "native"
    num_workers: int | None = None
    num_buckets: int | None = None
    ray_address: str | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.corpus, Posts):
            if self.splits.num_target_users != 0:
                raise ValueError(
                    f"splits.num_target_users is {self.splits.num_target_users}, but posts are for pre-training alone; "
                    "set it to 0, and give target users their dialogues in a corpus of their own"
                )
        elif given := [one.name for one in fields(self) if one.name in OF_POSTS and not _is_default(self, one)]:
            raise ValueError(
                f"{', '.join(given)} is for posts (corpus: datamodules.corpora.Posts), but the corpus is "
                f"{type(self.corpus).__name__}; leave it out"
            )

    @property
    def _is_at_scale(self) -> bool:
        return isinstance(self.corpus, Posts)

    def make_engine(self) -> Engine:
        """Who runs the tasks of the path at scale."""
        return Engine(self.engine, self.num_workers or os.cpu_count() or 1, self.ray_address)

    def settings(self) -> dict[str, Any]:
        """What decides the content of the output, as plain values."""
        # Who opted out is looked for in what is prepared: so the list may grow, and no manifest names them.
        left_out = ("corpus", "output", "splits", "tokenizer", "opt_out", *OF_POSTS)
        values = {one.name: getattr(self, one.name) for one in fields(Preparation) if one.name not in left_out}
        if self.tokenizer:
            del values["vocabulary_size"]
        if self._has_tokenizer:
            values["tokenizer"] = tokenizer_fingerprint(self.tokenizer)
        if isinstance(self.corpus, Posts):
            values["max_tokenizer_texts"] = self.max_tokenizer_texts
            values["posts"] = self.corpus.settings()
        return {"corpus": type(self.corpus).__name__, **values, "splits": asdict(self.splits)}

    @property
    def _has_tokenizer(self) -> bool:
        return self.tokenizer is not None and (self.tokenizer / "tokenizer.json").is_file()

    def run(self) -> dict[str, Any]:
        """Prepares the corpus unless that is done; returns the manifest.

        Raises:
            ValueError: other settings or another source made the finished directory, too much had to be
                dropped, or another preparation is at work on it.
        """
        if (self.output / "manifest.json").is_file():
            manifest = read_manifest(self.output)
            self._refuse_other_settings(manifest["settings"])
            self._refuse_other_source(manifest["source_fingerprint"])
            if self._is_at_scale and (damaged := damaged_parts(self.output, manifest, self.verify)):
                with alone(self.output):
                    mend_parts(self.output, manifest, damaged)
            self._refuse_opted_out(manifest)
            print(f"{self.output} is prepared already: {_summary(manifest)}")
            return manifest
        with alone(self.output):
            if (self.output / "manifest.json").is_file():  # another preparation has just finished
                return read_manifest(self.output)
            if self.output.exists():
                raise ValueError(
                    f"{self.output} exists but is no prepared corpus (no manifest.json); choose another output"
                )
            partial = self.output.with_name(self.output.name + ".partial")
            if self._is_at_scale:
                manifest = PostPreparation(self, partial).write()
            else:
                manifest = DialoguePreparation(self, partial).write()
            partial.rename(self.output)
            print(f"{self.output} is prepared: {_summary(manifest)}")
            return manifest

    def _refuse_other_settings(self, settings: dict[str, Any]) -> None:
        ours = json.loads(json.dumps(self.settings()))
        if self.tokenizer is not None and not self._has_tokenizer:  # what is prepared serves without it
            ours["tokenizer"] = settings.get("tokenizer")
        if isinstance(self.corpus, Posts) and self.corpus.profiles is not None and ours["posts"]["profiles"] is None:
            ours["posts"]["profiles"] = settings.get("posts", {}).get("profiles")
        differing = [
            f"{key} was {settings.get(key)}, now {ours.get(key)}"
            for key in sorted(ours.keys() | settings.keys())
            if ours.get(key) != settings.get(key)
        ]
        if differing:
            raise ValueError(
                f"{self.output} was prepared with other settings ({'; '.join(differing)}); "
                "give another output, or delete that directory to prepare it anew"
            )

    def _refuse_other_source(self, fingerprint: str) -> None:
        try:
            ours = self.corpus.fingerprint()
        except FileNotFoundError:  # what is prepared serves without its source
            return
        if ours != fingerprint:
            files = ", ".join(str(path) for path in self.corpus.files)
            raise ValueError(
                f"{self.output} was prepared from other files than {files}, or from an older state of them; give "
                "another output, or delete that directory to prepare it anew"
            )

    def _refuse_opted_out(self, manifest: dict[str, Any]) -> None:
        """Looks at who is in the shards, once for each state of the list."""
        opted_out = self.opted_out
        now, looked_at = names_fingerprint(opted_out), self.output / "opt_out.looked_at"  # no change of the manifest
        made_with = manifest.get("opted_out", names_fingerprint(frozenset()))
        if now == made_with or (looked_at.is_file() and looked_at.read_text() == now):
            return
        present: set[str] = set()
        for split, parts in manifest["splits"].items():
            for part in parts:
                table = pq.read_table(self.output / split / part["file"], columns=["speaker", "partner"])
                present.update(*(table[name].unique().to_pylist() for name in table.column_names))
        if count := sum(person.strip() in opted_out for person in present):
            raise ValueError(
                f"{count} of the people in {self.opt_out} are in {self.output}: take each out with `lightning forget "
                "--user <id>`, or delete that directory to prepare it anew without them"
            )
        looked_at.write_text(now)

    @property
    def opted_out(self) -> frozenset[str]:
        """Ids of people who asked to be left out."""
        return read_opt_out(self.opt_out) if self.opt_out else frozenset()

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        """The corpus' dialogues, normalised, without those of people who opted out, which `drops` counts apart."""
        opted_out = self.opted_out
        for dialogue in self.corpus.dialogues(drops):
            if opted_out and any(turn.speaker.strip() in opted_out for turn in dialogue.turns):
                drops.num_opted_out += 1
            else:
                yield self.normalised(dialogue)

    def profiles(self) -> Iterator[Profile]:
        """What the corpus declares of its speakers, without those who opted out."""
        opted_out = self.opted_out
        return (profile for profile in self.corpus.profiles() if profile.user.strip() not in opted_out)

    def normalised(self, dialogue: Dialogue) -> Dialogue:
        """The dialogue with its texts in the Unicode form of all text, and single blanks."""
        turns = tuple(replace(turn, text=self.normalised_text(turn.text)) for turn in dialogue.turns)
        return replace(dialogue, turns=turns)

    def normalised_text(self, text: str) -> str:
        """A text in the Unicode form of all text, with single blanks."""
        return harmless(" ".join(unicodedata.normalize(self.normalisation, text).split()))


def _is_default(preparation: Preparation, setting: Field) -> bool:
    default = setting.default if setting.default_factory is MISSING else setting.default_factory()
    return getattr(preparation, setting.name) == default


def _summary(manifest: dict[str, Any]) -> str:
    pairs = ", ".join(f"{num_pairs(manifest, split):,} {split}" for split in manifest["splits"])
    return f"{len(manifest['target_users'])} target users; reply pairs: {pairs}"


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Holds a lock beside the directory, so that no two processes write the same one."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.with_name(output.name + ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another preparation is at work on {output}; wait for it, or give another output"
            ) from None
        yield
