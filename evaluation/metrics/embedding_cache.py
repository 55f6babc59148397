"""Sentence embeddings on disk, so that a text that was encoded for one table is not encoded again for the next.

One SQLite file for each encoder (its name, and the fingerprint of its files): it survives a kill, and two tables at the
same time. A text is known by its SHA-256, so no text of anybody is written. An embedding stands there as the encoder
gave it, in 32 bits, with a checksum: a damaged file is set aside, and what was in it is encoded anew. A cache that
cannot be read or written (a full disk, no permission) is done without.
"""

import hashlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from artefacts.fingerprints import DIGITS, sha256_of_files

_AT_ONCE = 500  # keys of one query
_CHECK = 8  # bytes of the checksum behind an embedding
_PATIENCE = 30.0  # seconds to wait for another process that is writing


class EmbeddingCache:
    """The embeddings of one encoder, in a file that is made, with its directory, at the first embedding."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of these texts that are known, each `(dimension,)` float32."""
        if not texts or not self.path.is_file():
            return {}
        try:
            return self._read(texts)
        except sqlite3.OperationalError as error:
            print(f"{self.path} cannot be read ({error}); embeddings are made anew")
        except sqlite3.DatabaseError as error:
            aside = self.path.with_suffix(".damaged")
            os.replace(self.path, aside)
            print(
                f"{self.path} is damaged ({error}), is now {aside.name}, and can be deleted; embeddings are made anew"
            )
        return {}

    def _read(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        by_key = {_key(text): text for text in texts}
        keys = list(by_key)
        found = {}
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, value BLOB)")
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                for key, value in database.execute(f"SELECT key, value FROM embeddings WHERE key IN ({marks})", some):
                    if value[-_CHECK:] != _checksum(key, value[:-_CHECK]):
                        raise sqlite3.DatabaseError("an embedding is not what was written")
                    found[by_key[key]] = np.frombuffer(value[:-_CHECK], dtype=np.float32)
        return found

    def write(self, embeddings: Mapping[str, np.ndarray]) -> None:
        """Adds embeddings, each `(dimension,)` float32; all of them, or none if it is killed."""
        rows = []
        for text, vector in embeddings.items():
            key, value = _key(text), np.asarray(vector, dtype=np.float32).tobytes()
            rows.append((key, value + _checksum(key, value)))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, value BLOB)")
                database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
        except (sqlite3.DatabaseError, OSError) as error:
            print(f"{self.path} cannot be written ({error}); the next table will encode these texts again")


def fingerprint_of_directory(directory: Path) -> str:
    """SHA-256 over the names and contents of all files below a directory, in 16 hexadecimal digits."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sha256_of_files(paths, lambda path: path.relative_to(directory).as_posix().encode() + b"\0")[:DIGITS]


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _checksum(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + value).digest()[:_CHECK]
