"""Processes that are started, waited for and told to end.

Not in `conftest.py`: a child process may find another file of that name.
"""

import os
import time
from pathlib import Path


def run_command(arguments, directory):
    """A command in a process group of its own."""
    from commands.cli import main

    os.setsid()
    os.chdir(directory)
    main(arguments)


def wait_until(condition, is_alive=lambda: True):
    """Waits, as long as the process that is to bring it about is alive."""
    deadline = time.monotonic() + 180
    while not condition():
        assert is_alive() and time.monotonic() < deadline
        time.sleep(0.01)


def terminate(process, written):
    """Tells a command to end as soon as this file is written; returns its exit code."""
    wait_until(written.is_file, process.is_alive)
    process.terminate()
    process.join(30)
    return process.exitcode


def has_ended(pid):
    """Whether a process is gone, or dead and not waited for. Linux only."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.is_file() or ") Z " in stat.read_text()
