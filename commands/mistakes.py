"""Errors that a person can mend, in one line that names what is wrong and what to do; others keep their traceback."""

import errno
import io
import re
import traceback
from pathlib import Path
from types import TracebackType

from commands.parsing import shortened

OUR_PACKAGES = ("artefacts", "callbacks", "commands", "datamodules", "evaluation", "lightning_modules")
ROOT = Path(__file__).parents[1]
REMEDIES = {
    errno.EROFS: "write to another directory",
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some space and give the same command again",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "is the path right?",
    errno.ENOTDIR: "is the path right?",
    errno.EISDIR: "give a file",
    errno.ENOTSUP: "use a directory on another file system",
    errno.ENOLCK: "use a directory on another file system",
}


def message_for_a_person(error: BaseException | None) -> str | None:
    """What a person has to know of an error, by the first in its chain that is theirs to mend; None for a bug."""
    of_the_parser = None
    while isinstance(error, ValueError | OSError | ImportError) or _is_of_the_trainer(error):
        if (message := _message(error)) is not None:
            return message
        if _is_of_a_setting(error):  # what follows may tell it better
            of_the_parser = shortened(str(error))
        error = error.__cause__ or error.__context__
    return of_the_parser


def one_line_of(error: BaseException) -> str:
    """Type and message of an error, without what follows its first line."""
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    return next(line for line in lines if line and not line[0].isspace())


def _message(error: BaseException) -> str | None:
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OmegaConfBaseException):
        if unset := re.search(r"Environment variable '(\w+)' not found", str(error)):
            key, name = error.full_key, unset.group(1)
            return f"{key} is ${{oc.env:{name}}}, but {name} is not set; set it: {name}=<value> lightning ..."
        return f"{error.full_key}: {error}"
    if isinstance(error, UnicodeDecodeError):
        file = _file_in(error.__traceback__) or "a file"
        return f"{file}: not {error.encoding} text (byte {error.start}: {error.reason}); save it as UTF-8"
    if _is_of_the_trainer(error):
        text = "trainer: " + " ".join(str(error).split())
        return f"{text} Use --trainer.accelerator=auto" if "backend found" in text else text
    if isinstance(error, ImportError):
        return _missing_package(error)
    *_, raised_in = _files_of(error)
    if _is_ours(raised_in) and getattr(error, "errno", None) is None:
        return str(error)
    if isinstance(error, OSError):
        return _of_the_system(error)
    return None


def _files_of(error: BaseException) -> list[Path]:
    """The source files of the functions that the error went through; the last one raised it."""
    return [Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__)]


def _is_ours(source: Path) -> bool:
    return any(source.is_relative_to(ROOT / package) for package in OUR_PACKAGES)


def _is_of_a_setting(error: BaseException) -> bool:
    """Was it raised by jsonargparse, or by a class of a library that it was building, such as an optimizer?"""
    files = _files_of(error)
    last_of_ours = max((number for number, file in enumerate(files) if _is_ours(file)), default=-1)
    return any("jsonargparse" in file.parts for file in files[last_of_ours + 1 :])


def _is_of_the_trainer(error: BaseException | None) -> bool:
    """Is it Lightning's error about settings? Its module is not imported for that."""
    return type(error).__name__ == "MisconfigurationException"


def _of_the_system(error: OSError) -> str:
    """A file and what the operating system says of it; the first line of what a library says."""
    if error.errno is None:
        return str(error).partition("\n")[0] or type(error).__name__
    file = error.filename2 or error.filename or _file_in(error.__traceback__)
    reason = (error.strerror or str(error)).partition("\n")[0]
    remedy = REMEDIES.get(error.errno)
    return f"{f'{file}: ' if file else ''}{reason[:1].lower()}{reason[1:]}{f'; {remedy}' if remedy else ''}"


def _missing_package(error: ImportError) -> str | None:
    """Which package to install; None where the import of a part of a package has failed, or of ours."""
    named = error.name or ""
    if named.partition(".")[0] in OUR_PACKAGES:
        return None
    if isinstance(error, ModuleNotFoundError) and named:
        return f"the package {named} is missing; install it: pip install {named.partition('.')[0]}"
    return " ".join(str(error).split()) if "pip install" in str(error) else None


def _file_in(trace: TracebackType | None) -> str | None:
    """The file that the innermost function with one in its variables was at."""
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            if isinstance(value, Path):
                return str(value)
            if isinstance(value, io.IOBase) and isinstance(getattr(value, "name", None), str):
                return value.name
    return None
