"""Whether a finished directory is what a preparation asks for: settings, source, people who opted out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from artefacts.files import write_text
from artefacts.fingerprints import sha256_of
from artefacts.layout import MANIFEST
from artefacts.people import clean_id
from datamodules.corpora.people import People, some
from datamodules.corpora.posts.reader import Posts

from .opt_out import names_fingerprint
from .settings import Preparation

CHECKED_OPT_OUT = "opt_out.looked_at"
"""Fingerprint of the last opt-out list with nobody in the shards. The manifest stays: runs know their data by it."""


def require_same_settings(preparation: Preparation, settings: dict[str, Any]) -> None:
    """ValueError if other settings decided the content of the directory."""
    ours = json.loads(json.dumps(preparation.settings()))
    if preparation.tokenizer is not None and not preparation.has_tokenizer:  # no longer needed
        ours["tokenizer"] = settings.get("tokenizer")
    corpus = preparation.corpus
    if isinstance(corpus, Posts) and corpus.profiles is not None and ours["posts"]["profiles"] is None:
        ours["posts"]["profiles"] = settings.get("posts", {}).get("profiles")
    differing = [
        f"{key} was {settings.get(key)}, now {ours.get(key)}"
        for key in sorted(ours.keys() | settings.keys())
        if ours.get(key) != settings.get(key)
    ]
    if differing:
        raise ValueError(
            f"{preparation.output} was prepared with other settings ({'; '.join(differing)}); "
            "give another output, or delete that directory to prepare it again"
        )


def require_same_source(preparation: Preparation, fingerprint: str) -> None:
    """ValueError if the files of the corpus have changed; missing files are no longer needed."""
    try:
        ours = preparation.corpus.fingerprint()
    except FileNotFoundError:
        return
    if ours != fingerprint:
        files = ", ".join(str(path) for path in preparation.corpus.files)
        raise ValueError(
            f"{preparation.output} was prepared from other files than {files}, or from an older state of them; give "
            "another output, or delete that directory to prepare it again"
        )


def is_whole(path: Path, expected: dict[str, Any], verify: bool) -> bool:
    """Whether a file is as long as described; with `verify`, whether its checksum is the same, too."""
    is_complete = path.is_file() and path.stat().st_size == expected["bytes"]
    return is_complete and (not verify or sha256_of(path) == expected["sha256"])


def require_whole(output: Path, manifest: dict[str, Any], verify: bool) -> None:
    """ValueError if a file of a prepared directory is missing, truncated or, with `verify`, another one."""
    described = {f"{split}/{part['file']}": part for split, parts in manifest["splits"].items() for part in parts}
    described |= manifest.get("files", {})
    if damaged := [name for name, expected in described.items() if not is_whole(output / name, expected, verify)]:
        raise ValueError(
            f"{', '.join(str(output / name) for name in damaged)}: missing, or not what {MANIFEST} describes; delete "
            f"{output} and prepare it again: lightning prepare --config experiments/corpora/<the corpus>.yaml"
        )
    if verify:
        print(f"{len(described)} files of {output} are what {MANIFEST} describes")


def require_no_opted_out(preparation: Preparation, manifest: dict[str, Any]) -> None:
    """ValueError if a person who opted out is in the shards, which are read once for each state of the list."""
    output, opted_out = preparation.output, preparation.opted_out
    current, checked = names_fingerprint(opted_out), output / CHECKED_OPT_OUT
    made_with = manifest.get("opted_out", names_fingerprint(frozenset()))
    if current == made_with or (checked.is_file() and checked.read_text() == current):
        return
    present = {
        person
        for split, parts in manifest["splits"].items()
        for part in parts
        for column in pq.read_table(output / split / part["file"], columns=["speaker", "partner"]).columns
        for person in column.unique().to_pylist()
    }
    people = People(present)
    if alike := [missing for missing in people.missing(opted_out) if "there is" in missing]:
        print(f"{preparation.opt_out}: not in {output}: {some(alike)}")
    if count := sum(clean_id(person) in opted_out for person in present):
        raise ValueError(
            f"{count} of the people in {preparation.opt_out} are in {output}: take each out with `lightning forget "
            "--user <id>`, or delete that directory to prepare it again without them"
        )
    write_text(checked, current)
