"""The path from posts to token shards, stage after stage, for corpora that no memory holds.

In: a `Preparation` whose corpus is `Posts`. Out: the same directory as from dialogues, and `pairs/`, from which a
damaged part is written again alone.

The results of finished tasks are in `results/` of the unfinished directory, so a run that was killed goes on at the
task where it stood. What one stage has written goes as soon as the last stage that reads it is done. The content of
the shards does not depend on the number of buckets, on how the input is cut into files, or on the engine: rows are
ordered by their hashes alone.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from artefacts.manifest import MANIFEST_VERSION, read_manifest, write_manifest
from datamodules.corpora.posts.reader import MALFORMED
from datamodules.preparation.opt_out import names_fingerprint
from datamodules.preparation.shards import ROWS_PER_PART, part_name, sha256_of
from datamodules.preparation.splits import PRETRAIN_SPLITS
from datamodules.preparation.tokenizer import (
    MODEL_FILE,
    convert,
    copy_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_fingerprint,
    train_sentencepiece,
)

from .stages import Job, Parts, chain, clean_authors, clean_posts, infer_profiles, join, tokenise, write_shard

if TYPE_CHECKING:
    from datamodules.preparation.settings import Preparation

BYTES_PER_BUCKET = 128 * 2**20
KEPT = ("tokenizer", "pretrain", "pairs", "profiles.parquet", "manifest.json")


class PostPreparation:
    """Prepares posts in a directory that is not finished yet.

    Args:
        preparation: the settings.
        directory: where everything is written.
    """

    def __init__(self, preparation: Preparation, directory: Path) -> None:
        self.preparation = preparation
        self.directory = directory
        self.num_buckets = preparation.num_buckets or max(1, ceil(preparation.corpus.num_bytes() / BYTES_PER_BUCKET))
        self.dropped: Counter[str] = Counter()

    def write(self) -> dict[str, Any]:
        """Runs what is still to be done; returns the manifest, which is written last.

        Raises:
            ValueError: too much of the input is malformed, or nothing usable is left.
        """
        if self.preparation.corpus.profiles is not None:
            self.preparation.corpus.profiles.check()
        self._begin_or_go_on()
        if not (self.directory / "manifest.json").is_file():
            with self.preparation.make_engine() as self.engine:
                manifest = self._stages()
            write_manifest(self.directory, manifest)
        for path in self.directory.iterdir():
            if path.name not in KEPT:
                _remove(path)
        return read_manifest(self.directory)

    def _begin_or_go_on(self) -> None:
        plan = {
            "settings": self.preparation.settings(),
            "source_fingerprint": self.preparation.corpus.fingerprint(),
            "opted_out": names_fingerprint(self.preparation.opted_out),
            "num_buckets": self.num_buckets,
        }
        path = self.directory / "plan.json"
        if self._planned(path) == json.loads(json.dumps(plan)):
            print(f"going on with {self.directory}, where an earlier preparation stopped")
            return
        if self.directory.exists():
            print(f"{self.directory} is of an earlier preparation with other settings or posts: starting anew")
            shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True)
        path.with_suffix(".partial").write_text(json.dumps(plan, indent=1), encoding="utf-8")
        path.with_suffix(".partial").replace(path)

    def _planned(self, path: Path) -> dict[str, Any] | None:
        """What an earlier run was about; of one that had only to be renamed, as its manifest says."""
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        if not (self.directory / "manifest.json").is_file():
            return None
        manifest = read_manifest(self.directory)
        told = {name: manifest[name] for name in ("settings", "source_fingerprint", "opted_out")}
        return {**told, "num_buckets": self.num_buckets}

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
        num_posts = self._enough(cleaned)
        share = preparation.max_tokenizer_texts / num_posts
        authors = self._run("authors", partial(clean_authors, job, share), buckets, done_with=["posts"])
        self._make_tokenizer()
        tokenised = self._run("tokens", partial(tokenise, job), buckets)
        joined = self._run("edges", partial(join, job), buckets, done_with=["by_id", "replies"])
        parts = self._parts(_total(joined, "edges"))
        chained = self._run("pairs", partial(chain, job, parts), buckets, done_with=["edges"])
        written = self._run("shards", partial(write_shard, self.directory, parts), range(len(parts)))
        num_profiles = 0
        if job.posts.profiles is not None:
            self._run("profiles", partial(infer_profiles, job), buckets)
            num_profiles = self._put_profiles_together()
        return {
            "version": MANIFEST_VERSION,
            "settings": preparation.settings(),
            "source_fingerprint": preparation.corpus.fingerprint(),
            "tokenizer_fingerprint": tokenizer_fingerprint(job.tokenizer),
            "vocabulary_size": load_tokenizer(job.tokenizer).get_vocab_size(),
            "target_users": [],
            "opted_out": names_fingerprint(preparation.opted_out),
            "num_posts": _total(authors, "posts"),
            "num_authors": _total(authors, "authors"),
            "num_dialogues": _total(chained, "dialogues"),
            "dropped": dict(self.dropped),
            "turns_cut": _total(tokenised, "turns cut"),
            "profiles": num_profiles,
            "num_parts": [parts.train, parts.validation],
            "splits": {
                split: [result["part"] for result in written if result["split"] == split] for split in PRETRAIN_SPLITS
            },
        }

    def _run(
        self, name: str, function: Any, tasks: Iterable[Any], done_with: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        results = self.engine.run(name, function, list(tasks), self.directory / "results")
        for result in results:
            self.dropped.update(result.get("dropped", {}))
        for earlier in done_with:
            _remove(self.directory / earlier)
        return results

    def _enough(self, cleaned: list[dict[str, Any]]) -> int:
        """How many posts there are; ValueError where there is none or too many could not be read."""
        kept = _total(cleaned, "posts")
        broken = sum(self.dropped[reason] for reason in MALFORMED)
        examples = {reason: places for result in cleaned for reason, places in result["examples"].items()}
        table = self._dropped_table(examples)
        print(f"{kept:,} posts are used; dropped:\n{table}")
        if broken > self.preparation.max_dropped * (kept + sum(self.dropped.values())):
            raise ValueError(
                f"{broken:,} records could not be read, more than the allowed share {self.preparation.max_dropped:g}:\n"
                f"{table}\nMend the input, or raise max_dropped if this is what the data are like."
            )
        if not kept:
            raise ValueError(f"not one usable post; dropped:\n{table}")
        return kept

    def _dropped_table(self, examples: Mapping[str, Sequence[str]]) -> str:
        lines = []
        for reason, count in self.dropped.most_common():
            such_as = f" (such as {'; '.join(examples[reason])})" if examples.get(reason) else ""
            lines.append(f"  {count:>12,} {reason}{such_as}")
        return "\n".join(lines) or "  nothing"

    def _make_tokenizer(self) -> None:
        directory = self.directory / "tokenizer"
        if (directory / "tokenizer.json").is_file():
            return
        partial_directory = directory.with_name("tokenizer.partial")
        shutil.rmtree(partial_directory, ignore_errors=True)
        if self.preparation.tokenizer is not None:
            copy_tokenizer(self.preparation.tokenizer, partial_directory)
        else:
            print("training the tokenizer ...")
            sample = pq.read_table(self.directory / "sample").sort_by([("hash", "ascending"), ("id", "ascending")])
            texts = (text.as_py() for text in sample["text"])
            model = train_sentencepiece(texts, self.preparation.vocabulary_size)
            save_tokenizer(convert(model), partial_directory)
            (partial_directory / MODEL_FILE).write_bytes(model)
        partial_directory.rename(directory)

    def _parts(self, num_edges: int) -> Parts:
        """As many as the pairs fill, of which there are hardly fewer than edges."""
        if not num_edges:
            raise ValueError(f"not one reply whose post is there as well; dropped:\n{self._dropped_table({})}")
        held_out = num_edges * self.preparation.splits.pretrain_validation_share
        return Parts(*(max(1, ceil(number / ROWS_PER_PART)) for number in (num_edges - held_out, held_out)))

    def _put_profiles_together(self) -> int:
        table = pq.read_table(self.directory / "profiles")
        path = self.directory / "profiles.parquet"
        pq.write_table(table.sort_by([("user", "ascending"), ("attribute", "ascending")]), path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
        return len(table["user"].unique())


def damaged_parts(output: Path, manifest: dict[str, Any], verify: bool) -> list[int]:
    """The parts of a finished directory that are missing or truncated; with `verify`, all that differ."""
    parts = Parts(*manifest["num_parts"])
    found = []
    for part in range(len(parts)):
        split, number = parts.path(part)
        if not _is_whole(output / split / part_name(number), manifest["splits"][split][number], verify):
            found.append(part)
    return found


def mend_parts(output: Path, manifest: dict[str, Any], damaged: Iterable[int]) -> None:
    """Writes parts of a finished directory again, from `pairs/`.

    Raises:
        ValueError: what is in `pairs/` does not give the part that the manifest describes.
    """
    parts = Parts(*manifest["num_parts"])
    for part in damaged:
        split, number = parts.path(part)
        told, path = manifest["splits"][split][number], output / split / part_name(number)
        print(f"{path} is missing or damaged: writing it again")
        found = write_shard(output, parts, part)["part"]
        # Where somebody was forgotten, rows are packed into other groups than they were.
        if manifest.get("forgotten") and _sizes(found) == _sizes(told):
            manifest["splits"][split][number] = told = found
            write_manifest(output, manifest)
        if found["sha256"] != told["sha256"]:
            raise ValueError(
                f"{path} cannot be written again: pairs/ gives {found['sha256'][:16]}, the manifest says "
                f"{told['sha256'][:16]}; delete {output} and prepare it anew"
            )


def _is_whole(path: Path, told: dict[str, Any], verify: bool) -> bool:
    if not path.is_file() or path.stat().st_size != told["bytes"]:
        return False
    return not verify or sha256_of(path) == told["sha256"]


def _sizes(part: dict[str, Any]) -> list[int]:
    """Pairs, context tokens and response tokens of a part."""
    return [sum(sizes) for sizes in zip(*part["row_groups"], strict=True)]


def _total(results: list[dict[str, Any]], key: str) -> int:
    return sum(result[key] for result in results)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
