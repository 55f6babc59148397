"""The path from posts to token shards, stage after stage, for corpora that no memory holds.

Results of tasks stay in `results/` of the unfinished directory, so that a killed run resumes. What a stage has written
is deleted after the last stage that reads it. The content of the shards depends neither on the number of buckets, nor
on how the input is cut into files, nor on the engine: rows are ordered by their hashes alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from artefacts.files import read_json, replacing, replacing_directory, write_json
from artefacts.layout import MANIFEST, PROFILES, TOKENIZER, TOKENIZER_FILE
from artefacts.manifest import read_manifest, write_manifest
from datamodules.corpora.people import some
from datamodules.corpora.posts.reader import MALFORMED
from datamodules.corpora.records import Reasons
from datamodules.preparation.opt_out import names_fingerprint
from datamodules.preparation.settings import Preparation
from datamodules.preparation.shards import ROWS_PER_PART
from datamodules.preparation.splits import PRETRAIN_SPLITS
from datamodules.preparation.tokenizer import MODEL_FILE, convert, copy_tokenizer, save_tokenizer, train_sentencepiece

from .stages import Job, Parts, chain, clean_authors, clean_posts, infer_profiles, join, tokenise, write_shard
from .task_engine import Engine

BYTES_PER_BUCKET = 128 * 2**20
PLAN = "plan.json"
KEPT = (TOKENIZER, "pretrain", "pairs", PROFILES, MANIFEST)


class PostPreparation:
    """Prepares posts in an unfinished directory, to which everything is written."""

    def __init__(self, preparation: Preparation, directory: Path) -> None:
        self.preparation = preparation
        self.directory = directory
        self.num_buckets = preparation.num_buckets or max(1, ceil(preparation.corpus.num_bytes() / BYTES_PER_BUCKET))
        self.dropped = Reasons()

    def write(self) -> dict[str, Any]:
        """Runs the remaining stages; returns the manifest, which is written last."""
        if self.preparation.corpus.profiles is not None:
            self.preparation.corpus.profiles.check()
        self._begin_or_resume()
        if not (self.directory / MANIFEST).is_file():
            with make_engine(self.preparation) as self.engine:
                manifest = self._stages()
            write_manifest(self.directory, manifest)
        for path in self.directory.iterdir():
            if path.name not in KEPT:
                _remove(path)
        return read_manifest(self.directory)

    def _begin_or_resume(self) -> None:
        plan = {
            "settings": self.preparation.settings(),
            "source_fingerprint": self.preparation.corpus.fingerprint(),
            "opted_out": names_fingerprint(self.preparation.opted_out),
            "num_buckets": self.num_buckets,
        }
        if self._earlier_plan() == json.loads(json.dumps(plan)):
            print(f"going on with {self.directory}, where an earlier preparation stopped")
            return
        if self.directory.exists():
            print(f"{self.directory} is of an earlier preparation with other settings or posts: starting anew")
            shutil.rmtree(self.directory)
        write_json(self.directory / PLAN, plan)

    def _earlier_plan(self) -> dict[str, Any] | None:
        """The plan of an earlier run; from the manifest, if that run had only to rename the directory."""
        if (self.directory / PLAN).is_file():
            return read_json(self.directory / PLAN)
        if not (self.directory / MANIFEST).is_file():
            return None
        manifest = read_manifest(self.directory)
        plan = {name: manifest[name] for name in ("settings", "source_fingerprint", "opted_out")}
        return {**plan, "num_buckets": self.num_buckets}

    def _stages(self) -> dict[str, Any]:
        preparation = self.preparation
        job = Job(
            posts=preparation.corpus,
            opted_out=preparation.opted_out,
            directory=self.directory,
            num_buckets=self.num_buckets,
            max_context_turns=preparation.max_context_turns,
            max_turn_tokens=preparation.max_turn_tokens,
            held_out_share=preparation.splits.pretrain_validation_share,
            seed=preparation.splits.seed,
        )
        buckets = range(self.num_buckets)
        cleaned = self._run("posts", partial(clean_posts, job), list(enumerate(job.posts.units())))
        self._report_people(cleaned)
        share = preparation.max_tokenizer_texts / self._num_posts(cleaned)
        authors = self._run("authors", partial(clean_authors, job, share), buckets, done_with=["posts"])
        self._make_tokenizer()
        tokenised = self._run("tokens", partial(tokenise, job), buckets)
        joined = self._run("edges", partial(join, job), buckets, done_with=["by_id", "replies"])
        parts = self._parts(_total(joined, "edges"))
        chained = self._run("pairs", partial(chain, job, parts), buckets, done_with=["edges"])
        written = self._run("shards", partial(write_shard, self.directory, parts), range(len(parts)))
        num_profiles = self._infer_profiles(job)
        return preparation.manifest(
            self.directory,
            [],
            num_posts=_total(authors, "posts"),
            num_authors=_total(authors, "authors"),
            num_dialogues=_total(chained, "dialogues"),
            dropped=dict(self.dropped),
            turns_cut=_total(tokenised, "turns cut"),
            profiles=num_profiles,
            num_parts=[parts.train, parts.validation],
            splits={split: [done["part"] for done in written if done["split"] == split] for split in PRETRAIN_SPLITS},
        )

    def _run(
        self, name: str, function: Any, tasks: Iterable[Any], done_with: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        results = self.engine.run(name, function, list(tasks), self.directory / "results")
        for result in results:
            self.dropped.update(result.get("dropped", {}))
            self.dropped.examples |= result.get("examples", {})
        for earlier in done_with:
            _remove(self.directory / earlier)
        return results

    def _report_people(self, cleaned: list[dict[str, Any]]) -> None:
        """Says how many posts had an author in another spelling, and who of those who opted out is no author."""
        if num := _total(cleaned, "respelled"):
            print(f"{num:,} posts have an author's id in another spelling, which was read as the usual one")
        if self.preparation.opt_out is not None:
            ids = sorted(self.preparation.opted_out)
            matched = {number for result in cleaned for number in result["opted out"]}
            missing = [repr(id) for number, id in enumerate(ids) if number not in matched]
            nobody = f"; nobody in this corpus: {some(missing)}" if missing else ""
            print(f"{self.preparation.opt_out}: {len(ids):,} ids, {len(matched):,} matched{nobody}")

    def _num_posts(self, cleaned: list[dict[str, Any]]) -> int:
        """The number of usable posts; ValueError if it is 0, or if too many records could not be read."""
        kept = _total(cleaned, "posts")
        broken = sum(self.dropped[reason] for reason in MALFORMED)
        table = self.dropped.table()
        print(f"{kept:,} posts are used; dropped:\n{table}")
        if broken > self.preparation.max_dropped * (kept + self.dropped.total()):
            raise ValueError(
                f"{broken:,} records could not be read, more than the allowed share {self.preparation.max_dropped:g}:\n"
                f"{table}\nMend the input, or raise max_dropped if this is what the data are like."
            )
        if not kept:
            raise ValueError(f"not one usable post; dropped:\n{table}")
        return kept

    def _make_tokenizer(self) -> None:
        directory = self.directory / TOKENIZER
        if (directory / TOKENIZER_FILE).is_file():
            return
        with replacing_directory(directory) as unfinished:
            if self.preparation.tokenizer is not None:
                copy_tokenizer(self.preparation.tokenizer, unfinished)
                return
            print("training the tokenizer ...")
            sample = pq.read_table(self.directory / "sample").sort_by([("hash", "ascending"), ("id", "ascending")])
            texts = (text.as_py() for text in sample["text"])
            model = train_sentencepiece(texts, self.preparation.vocabulary_size)
            save_tokenizer(convert(model), unfinished)
            (unfinished / MODEL_FILE).write_bytes(model)

    def _parts(self, num_edges: int) -> Parts:
        """As many parts as the pairs fill; there are hardly fewer pairs than edges."""
        if not num_edges:
            raise ValueError(f"not one reply whose post is there as well; dropped:\n{self.dropped.table()}")
        held_out = num_edges * self.preparation.splits.pretrain_validation_share
        return Parts(*(max(1, ceil(number / ROWS_PER_PART)) for number in (num_edges - held_out, held_out)))

    def _infer_profiles(self, job: Job) -> int:
        """Writes the profiles of all buckets into one file; returns the number of users."""
        if job.posts.profiles is None:
            return 0
        self._run("profiles", partial(infer_profiles, job), range(self.num_buckets))
        table = pq.read_table(self.directory / "profiles")
        with replacing(self.directory / PROFILES) as path:
            pq.write_table(table.sort_by([("user", "ascending"), ("attribute", "ascending")]), path)
        return len(table["user"].unique())


def make_engine(preparation: Preparation) -> Engine:
    """By default it runs as many tasks at once as this machine has processors."""
    return Engine(preparation.engine, preparation.num_workers or os.cpu_count() or 1, preparation.ray_address)


def _total(results: list[dict[str, Any]], key: str) -> int:
    return sum(result[key] for result in results)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
