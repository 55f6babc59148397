"""Atomic and durable writing: a reader meets the old file, the new one or none, whenever a process or machine dies.

A file is written to a temporary name beside it, flushed to the disk and renamed; so is a directory.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""Suffix of what is being written, or was when its process died."""
REPEAT = "repair it, or delete it and repeat the command that wrote it"


def partial_of(path: Path) -> Path:
    """The temporary name of a file or directory."""
    return path.with_name(path.name + PARTIAL)


def publish(partial: Path, path: Path) -> None:
    """Flushes a finished file and renames it to `path`, over an earlier one."""
    _flush(partial)
    os.replace(partial, path)
    _flush(path.parent)


@contextmanager
def replacing(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yields a temporary path to write to; it becomes `path` at the end of the block, and is deleted on an error.

    With `shared`, several processes may write this file at once: each gets a temporary name of its own.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}") if shared else partial_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """Writes a UTF-8 file with its line ends as they are."""
    with replacing(path, shared) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any, **options: Any) -> None:
    """Writes a JSON file, indented by one blank; `options` go to `json.dumps`."""
    write_text(path, json.dumps(value, indent=1, **options) + "\n")


def read_json(path: Path, mend: str = REPEAT) -> Any:
    """The content of a JSON file; ValueError names a damaged one, and how to mend it."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); {mend}") from error


def read_object(path: Path, *keys: str, mend: str = REPEAT) -> dict[str, Any]:
    """The object in a JSON file, with at least these keys; errors name the file, and how to mend it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    record = read_json(path, mend)
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(record).__name__}; {mend}")
    if missing := [key for key in keys if key not in record]:
        raise ValueError(f"{path}: the keys {', '.join(missing)} are missing; {mend}")
    return record


def publish_directory(partial: Path, directory: Path) -> None:
    """Flushes a finished directory and renames it; an earlier one is renamed out of the way first and deleted last."""
    for path in (*partial.rglob("*"), partial):
        _flush(path)
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        os.replace(directory, old)
    os.replace(partial, directory)
    _flush(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def replacing_directory(directory: Path) -> Iterator[Path]:
    """Yields an empty temporary directory; it becomes `directory` at the end of the block, and stays on an error."""
    partial = partial_of(directory)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    publish_directory(partial, directory)


def _flush(path: Path) -> None:
    """Waits until a file or the entries of a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
