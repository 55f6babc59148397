"""Time and memory of a command with all processes that it starts; Linux only, because it reads `/proc`.

In: a command. Out: wall time, CPU time, and the most memory that its processes held together. Memory is PSS, in which
a page shared by n processes counts 1/n in each, so that the sum counts it once; RSS stands in where the kernel does not
tell. Pages of files that are mapped into memory count as long as they are resident, though the kernel may drop them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """What a command took: seconds, CPU seconds of processes that were waited for, MB, and processes at once."""

    seconds: float
    cpu_seconds: float
    peak_memory: float
    most_processes: int


def parents() -> dict[int, int]:
    """The parent of every process; what ends meanwhile is left out."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def memory_of(process: int) -> float:
    """PSS in MB, or RSS; 0 for a process that has ended."""
    try:
        for line in (PROC / str(process) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    except PermissionError:
        pages = int((PROC / str(process) / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return 0.0


def with_descendants(known: set[int]) -> set[int]:
    """Those of the known processes that live, and what they have started; one whose parent has ended stays known."""
    parent = parents()
    family = known & parent.keys()
    while more := {process for process, by in parent.items() if by in family} - family:
        family |= more
    return family


def run(command: Sequence[str], log: Path, environment: Mapping[str, str], interval: float = 0.2) -> Usage:
    """Runs a command to its end, looking at its processes every `interval` seconds.

    Raises:
        RuntimeError: the command failed; says how its log ends.
    """
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **environment}, start_new_session=True
        )
    peak, most, family = 0.0, 0, {process.pid}
    try:
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            family = with_descendants(family)
            peak, most = max(peak, sum(map(memory_of, family))), max(most, len(family))
            time.sleep(interval)
        _, status, usage = ended
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"`{' '.join(command)}` ended with {process.returncode}; its log {log} ends with\n{end}")
    return Usage(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, peak, most)
