"""Locks on file systems that have none."""

import errno

import pytest

from artefacts.locks import locked
from commands.training.run_directory import one_at_a_time
from datamodules.preparation.run import alone


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch):
    """A file system that answers every lock with an error."""

    def refuse(file, operation):
        raise OSError(request.param, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)


@pytest.mark.parametrize("lock", [lambda path: one_at_a_time(path, "fit"), alone])
def test_a_command_runs_without_a_lock_and_says_so(without_locks, tmp_path, capsys, lock):
    with lock(tmp_path / "runs/one"):
        said = capsys.readouterr().out
    assert said.startswith("no lock on ") and said.count("\n") == 1


def test_other_errors_of_a_lock_are_errors(monkeypatch, tmp_path):
    def fail(file, operation):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OSError, match="broken disk"), locked(tmp_path / "lock", lambda: None):
        pass
