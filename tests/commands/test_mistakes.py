"""What a person can mend is one line; a bug keeps its traceback."""

import errno
import os

import pytest
from lightning import Trainer

from commands import cli
from commands.mistakes import message_for_a_person


def failed(function, *arguments):
    """The error of a function, with the traceback it has."""
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("it has not failed")


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "f.bin: read-only file system; write to another directory"),
        (errno.EACCES, "f.bin: permission denied; change its permissions, or give another path"),
        (errno.ENOSPC, "f.bin: no space left on device; free some space and give the same command again"),
        (errno.ENAMETOOLONG, "f.bin: file name too long; give a shorter name"),
        (errno.EIO, "f.bin: input/output error"),
    ],
)
def test_what_the_system_refuses(number, said):
    assert message_for_a_person(failed(fail, OSError(number, os.strerror(number), "f.bin"))) == said


def test_a_write_to_a_full_disk_names_the_file():
    def write(file):
        with open(file, "wb", buffering=0) as output:
            output.write(b"x")

    assert message_for_a_person(failed(write, "/dev/full")).startswith("/dev/full: no space left on device; free some")


def test_another_encoding_names_the_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("jos\n".encode("utf-16"))
    said = message_for_a_person(failed(path.read_text, "utf-8"))
    assert said == f"{path}: not utf-8 text (byte 0: invalid start byte); save it as UTF-8"


def test_settings_that_lightning_refuses():
    assert message_for_a_person(failed(lambda: Trainer(devices=0, accelerator="cpu"))).startswith("trainer: ")


def test_a_missing_package_is_named():
    def load():
        import no_such_package.part  # noqa: F401

    said = "the package no_such_package is missing; install it: pip install no_such_package"
    assert message_for_a_person(failed(load)) == said
    hint = ModuleNotFoundError("Requirement 'mlflow>=1.0.0' not met. HINT: Try running `pip install -U 'mlflow'`")
    assert message_for_a_person(failed(fail, hint)) == str(hint)


def test_bugs_are_none_of_them():
    for bug in (KeyError("x"), TypeError("x"), ValueError("raised elsewhere"), ImportError("x", name="commands.x")):
        assert message_for_a_person(failed(fail, bug)) is None


def test_files_are_private_unless_a_variable_says_otherwise(tmp_path, monkeypatch, capsys):
    before = os.umask(0o022)
    try:
        for mask, mode in ((None, 0o600), ("027", 0o640)):
            monkeypatch.delenv("LIGHTNING_UMASK", raising=False)
            if mask:
                monkeypatch.setenv("LIGHTNING_UMASK", mask)
            cli.main(["--version"])
            (tmp_path / "new").unlink(missing_ok=True)
            (tmp_path / "new").touch()
            assert (tmp_path / "new").stat().st_mode & 0o777 == mode
        monkeypatch.setenv("LIGHTNING_UMASK", "rw")
        with pytest.raises(SystemExit, match="LIGHTNING_UMASK is 'rw'; expected an octal number such as 077 or 022"):
            cli.main(["--version"])
    finally:
        os.umask(before)
    assert os.environ["WANDB_CONSOLE"] == "off"
