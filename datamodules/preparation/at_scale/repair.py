"""Finds damaged parts of a finished directory that was prepared from posts, and rewrites them from `pairs/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from artefacts.manifest import write_manifest
from datamodules.preparation.checks import is_whole
from datamodules.preparation.shards import part_name

from .stages import Parts, write_shard


def damaged_parts(output: Path, manifest: dict[str, Any], verify: bool) -> list[int]:
    """The parts that are missing or truncated; with `verify`, all whose checksum differs."""
    parts = Parts(*manifest["num_parts"])
    return [part for part in range(len(parts)) if not is_whole(*_described(output, manifest, parts, part), verify)]


def rewrite_parts(output: Path, manifest: dict[str, Any], damaged: Iterable[int]) -> None:
    """Rewrites parts from `pairs/`; ValueError if they do not give the part that the manifest describes."""
    parts = Parts(*manifest["num_parts"])
    for part in damaged:
        path, expected = _described(output, manifest, parts, part)
        print(f"{path} is missing or damaged: writing it again")
        written = write_shard(output, parts, part)["part"]
        # After a person was forgotten, rows are packed into other groups than before.
        if manifest.get("forgotten") and _sizes(written) == _sizes(expected):
            split, number = parts.path(part)
            manifest["splits"][split][number] = expected = written
            write_manifest(output, manifest)
        if written["sha256"] != expected["sha256"]:
            raise ValueError(
                f"{path} cannot be written again: pairs/ gives {written['sha256'][:16]}, the manifest says "
                f"{expected['sha256'][:16]}; delete {output} and prepare it again"
            )


def _described(output: Path, manifest: dict[str, Any], parts: Parts, part: int) -> tuple[Path, dict[str, Any]]:
    """The file of a part, and its description in the manifest."""
    split, number = parts.path(part)
    return output / split / part_name(number), manifest["splits"][split][number]


def _sizes(part: dict[str, Any]) -> list[int]:
    """Pairs, context tokens and response tokens of a part."""
    return [sum(sizes) for sizes in zip(*part["row_groups"], strict=True)]
