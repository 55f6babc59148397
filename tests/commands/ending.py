"""Processes that are told to end."""

import time


def terminate(process, written):
    """Tells a command to end as soon as this file is written; returns its exit code."""
    deadline = time.monotonic() + 90
    while not written.is_file():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    process.join(30)
    return process.exitcode
