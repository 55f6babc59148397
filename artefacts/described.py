"""SHA-256 of files in the card that describes them, so that no damaged or exchanged file is used.

A card of an earlier version has none; then nothing is checked.
"""

import zipfile
from pathlib import Path

from artefacts.files import PARTIAL, REPEAT, read_object, write_json, write_text
from artefacts.fingerprints import sha256_of, sha256_of_content
from artefacts.layout import describing_card

FILES = "files"


def described(*paths: Path) -> dict[str, dict[str, str]]:
    """What a card says of files, or of those that get their names soon: `{"files": {name: SHA-256}}`."""
    return {FILES: {path.name.removesuffix(PARTIAL): sha256_of(path) for path in sorted(paths)}}


def require_same(path: Path, sha256: str, card: Path, mend: str) -> None:
    """Checks a file against the SHA-256, or its beginning, in a card or manifest.

    Raises:
        FileNotFoundError: the file is missing; says how to mend it.
        ValueError: it is another one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but {card} describes it; {mend}")
    if not sha256_of(path).startswith(sha256):
        raise ValueError(f"{path} is not the file that {card} describes: it was damaged, edited or exchanged; {mend}")


def require_described(card: Path, mend: str) -> None:
    """Checks every file that a card, if there is one, describes; errors as of `require_same`."""
    for name, sha256 in _files_of(card, mend).items():
        require_same(card.with_name(name), sha256, card, mend)


def _files_of(card: Path, mend: str = REPEAT) -> dict[str, str]:
    return read_object(card, mend=mend).get(FILES, {}) if card.is_file() else {}


def is_whole(path: Path) -> bool:
    """Whether a file is there, has a content, and is the one that its card describes, if a card does."""
    if not path.is_file() or not path.stat().st_size:
        return False
    sha256 = _files_of(describing_card(path)).get(path.name)
    return sha256 is None or sha256_of(path) == sha256


def rewrite(path: Path, text: str) -> None:
    """Replaces a file, and before it its SHA-256 in the card that describes it: after a kill the file is refused."""
    card = describing_card(path)
    if path.name in (files := _files_of(card)):
        files[path.name] = sha256_of_content(text)
        write_json(card, {**read_object(card), FILES: files}, ensure_ascii=False)
    write_text(path, text)


def require_whole_zip(path: Path, mend: str) -> None:
    """Checks the checksums inside a zip file, such as a checkpoint of torch's, which does not look at them."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {mend}") from None
    if damaged:
        raise ValueError(f"{path} is damaged (its part {damaged} has another checksum); {mend}")
