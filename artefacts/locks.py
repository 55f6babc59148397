"""A lock between processes: a file beside what they write."""

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems that cannot lock answer, among them NFS and Lustre by their mount options."""


@contextmanager
def locked(path: Path, when_held: Callable[[], None]) -> Iterator[None]:
    """Holds a lock file; the system frees it when the process ends, however it ends.

    `when_held` is called when another process holds it: it may raise; otherwise this waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_held()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            print(f"no lock on {path}: its file system has none; start no second command that writes there", flush=True)
        yield
