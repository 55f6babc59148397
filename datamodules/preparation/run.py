"""Runs a preparation, once; a second run checks and reuses what is there.

<output>/manifest.json                    settings, counts, drops by reason, fingerprints; written last
         tokenizer/                       for `AutoTokenizer.from_pretrained`
         profiles.parquet                 user, attribute, value, origin; only if there are profiles
         pretrain/{train,validation}/     token shards of all people who are not target users
         users/{train,validation,test}/   token shards of the target users, in time order; not from posts
         pairs/                           from which a damaged part is rewritten; from posts only

Everything is written to `<output>.partial`, which is renamed when it is complete. After a kill dialogues start over
(`in_memory.py`), posts resume (`at_scale/`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

from artefacts.files import partial_of, publish_directory
from artefacts.layout import MANIFEST
from artefacts.locks import locked
from artefacts.manifest import num_pairs, read_manifest
from datamodules.corpora.posts.reader import Posts

from .at_scale.pipeline import PostPreparation
from .at_scale.repair import damaged_parts, rewrite_parts
from .checks import require_no_opted_out, require_same_settings, require_same_source, require_whole
from .in_memory import DialoguePreparation
from .settings import Preparation


def prepare(preparation: Preparation) -> dict[str, Any]:
    """Prepares the corpus, or checks that it is prepared; returns the manifest.

    Raises:
        ValueError: other settings or another source made the finished directory, too much had to be dropped, nothing
            usable remains, or another preparation is at work on it.
    """
    output = preparation.output
    if (output / MANIFEST).is_file():
        return _reuse(preparation)
    with alone(output):
        if (output / MANIFEST).is_file():  # another preparation has just finished
            return read_manifest(output)
        if output.exists():
            raise ValueError(f"{output} exists but is no prepared corpus (no manifest.json); choose another output")
        kind = PostPreparation if isinstance(preparation.corpus, Posts) else DialoguePreparation
        manifest = kind(preparation, partial_of(output)).write()
        publish_directory(partial_of(output), output)
        print(f"{output} is prepared: {_summary(manifest)}")
        return manifest


def _reuse(preparation: Preparation) -> dict[str, Any]:
    output = preparation.output
    manifest = read_manifest(output)
    require_same_settings(preparation, manifest["settings"])
    require_same_source(preparation, manifest["source_fingerprint"])
    if isinstance(preparation.corpus, Posts) and (damaged := damaged_parts(output, manifest, preparation.verify)):
        with alone(output):
            rewrite_parts(output, manifest, damaged)
    require_whole(output, manifest, preparation.verify)
    require_no_opted_out(preparation, manifest)
    print(f"{output} is prepared already: {_summary(manifest)}")
    return manifest


def _summary(manifest: dict[str, Any]) -> str:
    pairs = ", ".join(f"{num_pairs(manifest, split):,} {split}" for split in manifest["splits"])
    shared = ""
    if num_shared := manifest.get("shared_test_turns"):
        share = num_shared / num_pairs(manifest, "users/test")
        shared = (
            f"; {num_shared:,} of the test turns ({share:.1%}) are also context in another target user's training: "
            "matters where one model learns from several users"
        )
    return f"{len(manifest['target_users'])} target users; reply pairs: {pairs}{shared}"


def alone(output: Path) -> AbstractContextManager[None]:
    """Holds a lock beside the directory, so that no two processes write the same one."""

    def refuse() -> NoReturn:
        raise ValueError(f"another preparation is at work on {output}; wait for it, or give another output")

    return locked(output.with_name(output.name + ".lock"), refuse)
