"""Fingerprints: SHA-256 of what was read or written, in full or in 16 hexadecimal digits."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

DIGITS = 16


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Iterable[Path], name: Callable[[Path], bytes] = lambda path: b"") -> str:
    """SHA-256 over the digests of several files, in the given order; `name` gives what of their names counts."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(name(path) + bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()


def sha256_of_content(content: str | bytes) -> str:
    """SHA-256 of a content, in 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def fingerprint(content: str | bytes) -> str:
    """SHA-256 of a content, in 16 hexadecimal digits."""
    return sha256_of_content(content)[:DIGITS]


def fingerprint_of_sample(path: Path, size: int = 2**22) -> str:
    """Fingerprint of a file's length, beginning, middle and end: tells versions of gigabytes of weights apart."""
    length = path.stat().st_size
    with path.open("rb") as file:
        parts = [length.to_bytes(8, "little")]
        for start in (0, (length - size) // 2, length - size):
            file.seek(max(0, start))
            parts.append(file.read(size))
    return fingerprint(b"".join(parts))


def fingerprint_of(path: Path) -> str | None:
    """SHA-256 of a file in 16 hexadecimal digits; None if there is no such file."""
    return sha256_of(path)[:DIGITS] if path.is_file() else None
