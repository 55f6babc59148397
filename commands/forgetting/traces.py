"""What the directories below `runs` have of one person, each with how it is removed.

Links to directories are followed, each directory once. What a link points to is never deleted as a whole: the link
goes, and the report names its target.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from artefacts.files import read_json
from artefacts.layout import ADAPTERS, CARD, MODELS, user_directory

ASIDE = ".forgetting"
"""Suffix of a directory that is being deleted."""
CACHES = {
    (".cache", "embeddings"): "sentence embeddings, known by a hash: all of them, a table encodes them again",
    ("", ".answers"): "answers of chat endpoints, known by a hash: all of them, a run asks (and pays) again",
}


@dataclass(frozen=True)
class Person:
    """A person as files of runs know them.

    Attributes:
        user: the id.
        pair_ids: reply pairs in which the person is speaker or partner.
        talked_with: target users who answer this person in their test dialogues.
    """

    user: str
    pair_ids: Collection[int] = ()
    talked_with: Collection[str] = ()


@dataclass(frozen=True)
class Trace:
    """Something that is stored of a person.

    Attributes:
        path: where.
        what: what, with its number.
        remove: removes it.
        is_certain: whether it shows that the person is known here, and is not removed just in case.
    """

    path: Path
    what: str
    remove: Callable[[], object]
    is_certain: bool = True


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Like `os.walk`, through links to directories, with sorted names; no directory comes twice."""
    seen: set[str] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names.sort()
        yield Path(folder), names, sorted(files)


def traces_in_directory(directory: Path, names: list[str], person: Person) -> Iterator[Trace]:
    """Sub-directories that are removed as a whole.

    Args:
        directory: below runs.
        names: of its sub-directories.
        person: whose traces.
    """
    weights = user_directory(directory, person.user).name
    for name in names:
        path = directory / name
        cache = CACHES.get((directory.name, name)) or CACHES.get(("", name))
        if name.endswith(ASIDE):
            yield Trace(path, "what a killed command was deleting", partial(_discard, path), False)
        elif directory.name in (ADAPTERS, MODELS) and name.partition(".")[0] == weights:  # also .partial, .best, .old
            yield Trace(path, f"weights{_target(path)}", partial(_remove, path))
        elif cache:
            num_files = sum(file.is_file() for file in path.rglob("*"))
            yield Trace(path, f"{num_files:,} files of {cache}", partial(_empty, path), False)
        elif directory.name == "wandb" and "run-" in name and not path.is_symlink() and _has_people(path, person):
            online = "" if name.startswith("offline") else "; delete it on the server as well"
            yield Trace(
                path, f"a W&B run with sample replies or the id: all of it{online}", partial(_remove_wandb, path), False
            )
        elif any(users_of(card) == [person.user] for card in path.glob(f"*.{CARD}")):
            yield Trace(path, f"a run of this person alone{_target(path)}", partial(_remove, path))


def users_of(card: Path) -> list[str] | None:
    """The users that a run was told to take, by its card; None for all."""
    try:
        users = read_json(card)["config"]["data"]["init_args"]["users"]
    except (KeyError, TypeError, ValueError, OSError):
        return None
    return [users] if isinstance(users, str) else users


def _has_people(wandb_run: Path, person: Person) -> bool:
    """Whether a W&B run has sample replies, or the id as a JSON string or an item of a YAML list."""
    if any(wandb_run.rglob("replies_*.table.json")):
        return True
    user = person.user.encode()
    signs = (b"    said:  ", b'"%b"' % user, b"- %b\n" % user, b"- '%b'\n" % user)
    contents = (path.read_bytes() for path in wandb_run.rglob("*") if path.is_file())
    return any(sign in content for content in contents for sign in signs)


def _target(path: Path) -> str:
    return f" (a link; {path.resolve()} stays: delete it yourself)" if path.is_symlink() else ""


def _discard(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def _remove(directory: Path) -> None:
    """Under another name first, so that a kill leaves nothing that is half deleted and not known for what it is."""
    aside = directory.with_name(directory.name + ASIDE)
    if aside.is_symlink() or aside.exists():
        _discard(aside)
    os.replace(directory, aside)
    _discard(aside)


def _remove_wandb(run: Path) -> None:
    """With the links of W&B that point into it (`latest-run`, `debug.log`)."""
    _remove(run)
    for path in run.parent.iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink()


def _empty(directory: Path) -> None:
    """A cache may be a link to a larger disk: the directory stays, if it is one."""
    if not directory.is_symlink():
        _remove(directory)
        return
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
