"""Is the output the same however a preparation went? Buckets, engines, and kills at random moments, on one corpus.

    python -m benchmarks.synthetic_network.network --posts 2000000 --output data/network
    POSTS='data/network/posts-*.jsonl' python -m benchmarks.preparation_faults --output data/faults

Prepares the same posts several times, each time into a directory of its own: with 1 and with 16 buckets, on a Ray of
this machine, and with a kill (SIGKILL to the command and everything that it has started) at each of several random
moments, after each of which the same command goes on. Prints the fingerprint of each output, and fails unless all are
the same.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from artefacts.files import partial_of
from artefacts.manifest import read_manifest, split_fingerprint
from benchmarks.report import table

SECONDS_TO_BEGIN = 4


def command(output: Path, *flags: str) -> list[str]:
    """The preparation under test; a small tokenizer, so that its training is not most of the time."""
    lightning = [sys.executable, "-m", "commands.cli", "prepare", "--config", "experiments/corpus_sns.yaml"]
    return [
        *lightning,
        "--max_tokenizer_texts=100000",
        "--vocabulary_size=8000",
        "--corpus.profiles=null",
        f"--output={output}",
        *flags,
    ]


def run(output: Path, *flags: str) -> float:
    """Prepares anew; returns the seconds it took."""
    shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(partial_of(output), ignore_errors=True)
    start = time.monotonic()
    subprocess.run(command(output, *flags), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def run_with_kills(output: Path, moments: list[float], *flags: str) -> int:
    """Prepares anew, and kills the command after each of these seconds; returns how many kills it took to finish."""
    shutil.rmtree(output, ignore_errors=True)
    for number, seconds in enumerate(moments):
        process = subprocess.Popen(
            command(output, *flags), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(seconds)
            return number
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert not output.exists()
    subprocess.run(command(output, *flags), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return len(moments)


def main() -> None:
    """Prints the table; ends with 1 if an output differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory for the prepared corpora")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    rows, outputs, times = [], set(), []

    def add(name: str, output: Path, seconds: str) -> None:
        manifest = read_manifest(output)
        fingerprint = " ".join(split_fingerprint(manifest, split) for split in manifest["splits"])
        outputs.add((fingerprint, str(sorted(manifest["dropped"].items()))))
        rows.append([name, seconds, fingerprint])
        print(rows[-1], flush=True)

    for name, flags in {
        "1 bucket": ["--num_buckets=1"],
        "16 buckets": ["--num_buckets=16"],
        "16 buckets, Ray, 2 workers": ["--num_buckets=16", "--engine=ray", "--num_workers=2"],
    }.items():
        output = arguments.output / name.replace(",", "").replace(" ", "_")
        seconds = run(output, *flags)
        times.append(seconds)
        add(name, output, f"{seconds:.0f}")
    # A command takes some seconds to begin; then no run gets so far that there is nothing left for the next.
    moments = [SECONDS_TO_BEGIN + random.uniform(0, min(times) / arguments.kills) for _ in range(arguments.kills)]
    output = arguments.output / "killed"
    kills = run_with_kills(output, moments, "--num_buckets=16")
    seconds = ", ".join(f"{moment:.0f}" for moment in moments[:kills])
    add(f"16 buckets, killed {kills} times", output, f"after {seconds}")
    print(table(["preparation", "seconds", "fingerprints of training and validation"], rows))
    sys.exit(len(outputs) != 1)


if __name__ == "__main__":
    main()
