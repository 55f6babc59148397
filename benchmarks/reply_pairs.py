"""How fast reply pairs stream, and whether memory stays flat while the corpus grows.

    python -m benchmarks.reply_pairs
    python -m benchmarks.reply_pairs --peers <python with datasets and webdataset> <python with litdata>

The shards are made here, in a temporary directory: random ids, lengths as in chat, 45 ids a pair on average
before markers and end tokens. One part of 100,000 pairs is written by the project's own writer and stands in the
corpus as often as the size asks for, as hard links of one file; so 100 million pairs are there in seconds and 12 MB.
Planning, shuffling, reading, decompressing, prompts and padding are the same as if all parts were different;
only the disk is spared, because the links share their pages in the file cache.

Every measurement has a fresh process, and the sizes take turns. Columns:

    pairs/s       padded batches from `PairStream`, as `ReplyPairs` hands them out in one process without workers;
                  whole windows after the first one, their reading included
    non-padding   share of the positions of a window's batches that hold a token
    start         from opening the corpus to the first batch, the first window included
    resume        from opening the corpus to the batch in the middle of the epoch
    memory        most resident memory over what was held after the imports

Peers take turns with the sizes, on one part; their code is in `peers/streams.py`. An environment that lacks a
library is asked for the others; a library that no environment has is named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artefacts.layout import TOKENIZER
from artefacts.manifest import write_manifest
from benchmarks.peers.streams import PEERS
from benchmarks.report import peak_memory, spread, table

PAIRS_PER_PART = 100_000
NUM_SPEAKERS = 1000
VOCABULARY_SIZE = 32_000


def write_part(directory: Path) -> dict[str, Any]:
    """Writes a tokenizer and one part of random pairs; returns the part's description."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel

    from datamodules.preparation.shards import schema, write_shards
    from datamodules.preparation.tokenizer import EOS, MARKERS, PAD, UNK, save_tokenizer, tokenizer_fingerprint

    names = (PAD, EOS, UNK, *MARKERS)
    tokenizer = Tokenizer(WordLevel({name: id for id, name in enumerate(names)}, unk_token=UNK))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    save_tokenizer(tokenizer, directory / TOKENIZER)
    columns = schema(VOCABULARY_SIZE, tokenizer_fingerprint(directory / TOKENIZER))
    (part,) = write_shards(random_rows(first_id=len(names)), directory / "part", columns)
    return part


def random_rows(first_id: int) -> Iterator[dict[str, Any]]:
    """Rows of a shard: random ids from `first_id` on, lengths as in chat."""
    import numpy as np

    random = np.random.default_rng(0)
    num_turns = random.choice([1, 2, 3, 4], size=PAIRS_PER_PART, p=[0.08, 0.08, 0.08, 0.76])
    # Log-normal turn lengths; the mean of 45 / (3.52 + 1) ids is that of exp(sigma² / 2) times the median.
    sigma = 0.8
    median = 45 / (num_turns.mean() + 1) / np.exp(sigma**2 / 2)

    def turn() -> list[int]:
        length = int(np.clip(round(random.lognormal(np.log(median), sigma)), 1, 128))
        return random.integers(first_id, VOCABULARY_SIZE, size=length).tolist()

    for number, count in enumerate(num_turns.tolist()):
        context = [turn() for _ in range(count)]
        yield {
            "pair_id": number,
            "dialogue_id": f"d{number // 20}",
            "position": number % 20 + 1,
            "speaker": f"u{number % NUM_SPEAKERS}",
            "partner": f"u{(number + 1) % NUM_SPEAKERS}",
            "context_ids": [id for ids in context for id in ids],
            "context_lengths": [len(ids) for ids in context],
            "context_speakers": [(count - turn_number) % 2 for turn_number in range(count)],
            "response_ids": turn(),
            "time": None,
        }


def make_corpus(source: Path, part: dict[str, Any], directory: Path, num_pairs: int) -> None:
    """A prepared corpus whose parts are all links of the one part."""
    parts = []
    split = directory / "pretrain" / "train"
    split.mkdir(parents=True)
    (directory / TOKENIZER).symlink_to(source / TOKENIZER)
    for number in range(num_pairs // PAIRS_PER_PART):
        name = f"part-{number:05d}.parquet"
        os.link(source / "part" / part["file"], split / name)
        parts.append({**part, "file": name})
    write_manifest(directory, {"splits": {"pretrain/train": parts}})


def measure(directory: Path, pairs_to_time: int, tokens_per_batch: int) -> dict[str, float]:
    """All columns for one corpus, in this process."""
    from datamodules.prompts.loading import load_prompts
    from datamodules.prompts.template import PromptTemplate
    from datamodules.shards.reader import ShardReader
    from datamodules.streaming.pair_stream import PairStream, Source

    held = peak_memory()

    def opened() -> PairStream:
        reader = ShardReader(directory, "pretrain/train")
        prompts = load_prompts(PromptTemplate(), directory, None)
        return PairStream([Source(reader, prompts, 64)], tokens_per_batch, shuffle=True)

    began = time.perf_counter()
    stream = opened()
    batches = (batch for epoch in range(1_000_000) for batch in stream.batches(epoch))
    next(batches)
    start = time.perf_counter() - began
    rate, density = measure_windows(stream, batches, pairs_to_time)
    began = time.perf_counter()
    stream = opened()
    next(stream.batches(0, stream.num_batches_in_epoch(0) // 2))
    resume = time.perf_counter() - began
    return {"rate": rate, "density": density, "start": start, "resume": resume, "memory": peak_memory() - held}


def measure_windows(stream: Any, batches: Iterator[Any], pairs_to_time: int) -> tuple[float, float]:
    """Pairs per second of whole windows after the first one, whose first batch is taken; and the non-padding share."""
    from datamodules.batches import IGNORED

    def window_sizes() -> Iterator[tuple[int, int]]:
        for epoch in range(1_000_000):
            for window in stream.windows(epoch):
                yield stream.num_batches(window), stream.num_pairs(window)

    sizes = window_sizes()
    for _ in range(next(sizes)[0] - 1):
        next(batches)
    num_pairs = 0
    began = time.perf_counter()
    while num_pairs < pairs_to_time:
        num_batches, pairs_in_window = next(sizes)
        num_pairs += pairs_in_window
        for _ in range(num_batches):
            next(batches)
    rate = num_pairs / (time.perf_counter() - began)
    tokens = positions = 0  # of one more window, counted while no clock runs
    for _ in range(next(sizes)[0]):
        batch = next(batches)
        tokens += int(batch.attention_mask.sum() + (batch.labels != IGNORED).sum())
        positions += batch.input_ids.numel() + batch.labels.numel()
    return rate, tokens / positions


def run_peer(python: str, *arguments: Any) -> str:
    """Runs one step of a peer in its environment; returns what it says."""
    script = Path(__file__).with_name("peers") / "streams.py"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, str(script), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=alone).stdout


def find_peers(pythons: list[str]) -> dict[str, str]:
    """The first of these interpreters that has it, for each library."""
    found: dict[str, str] = {}
    for name in PEERS if pythons else ():
        for python in pythons:
            has_it = subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 0
            if has_it and name not in found:
                found[name] = python
        if name not in found:
            print(f"{name} is left out: none of {pythons} has it", file=sys.stderr)
    return found


def peers_table(of_peers: dict[str, list[dict[str, Any]]]) -> str:
    """The peers' table."""
    columns = {"rate": 0, "start": 2, "resume": 2, "disk": 0, "memory": 0}
    rows = [
        [
            name,
            *(
                "no state" if runs[0][column] is None else spread([run[column] for run in runs], digits)
                for column, digits in columns.items()
            ),
        ]
        for name, runs in of_peers.items()
    ]
    return table(["library", "pairs/s", "start, s", "resume, s", "bytes a pair", "memory, MB"], rows)


def main() -> None:
    """Writes the corpora, measures each in turn, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000, 100_000_000], help="reply pairs"
    )
    parser.add_argument("--repetitions", type=int, default=3, help="fresh processes for each size")
    parser.add_argument("--pairs", type=int, default=500_000, help="pairs timed in each process, at least")
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--peers", nargs="+", default=[], help="interpreters of environments with other libraries")
    parser.add_argument("--peer-pairs", type=int, default=20_000, help="pairs each peer gets")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.pairs, arguments.tokens_per_batch)))
        return
    if wrong := [size for size in arguments.sizes if size < PAIRS_PER_PART or size % PAIRS_PER_PART]:
        parser.error(f"sizes must be multiples of {PAIRS_PER_PART:,}, got {wrong}")
    with tempfile.TemporaryDirectory() as temporary:
        compare(arguments, Path(temporary))


def compare(arguments: argparse.Namespace, directory: Path) -> None:
    """All repetitions of all sizes and peers."""
    settings = ["--pairs", str(arguments.pairs), "--tokens-per-batch", str(arguments.tokens_per_batch)]
    results: dict[int, list[dict[str, float]]] = {size: [] for size in arguments.sizes}
    of_peers: dict[str, list[dict[str, Any]]] = {}
    part = write_part(directory)
    for size in arguments.sizes:
        make_corpus(directory, part, directory / str(size), size)
    peers = find_peers(arguments.peers)
    pairs = [directory / "part" / part["file"], arguments.peer_pairs]
    for peer, python in peers.items():
        run_peer(python, "write", peer, *pairs, directory / peer)
    for _ in range(arguments.repetitions):
        for size in arguments.sizes:
            command = [sys.executable, "-m", "benchmarks.reply_pairs", "--measure", str(directory / str(size))]
            run = subprocess.run(command + settings, stdout=subprocess.PIPE, check=True, text=True)
            results[size].append(json.loads(run.stdout))
            print(f"{size:,} pairs: {run.stdout.strip()}", file=sys.stderr)
        for peer, python in peers.items():
            measured = json.loads(run_peer(python, "measure", peer, *pairs, directory / peer))
            of_peers.setdefault(f"{peer} {measured.pop('version')}", []).append(measured)
            print(f"{peer}: {measured}", file=sys.stderr)
    columns = {"rate": 0, "density": 2, "start": 2, "resume": 2, "memory": 0}
    rows = [
        [f"{size:,}", *(spread([run[name] for run in runs], digits) for name, digits in columns.items())]
        for size, runs in results.items()
    ]
    print(table(["pairs in the corpus", "pairs/s", "non-padding", "start, s", "resume, s", "memory, MB"], rows))
    if of_peers:
        print()
        print(peers_table(of_peers))


if __name__ == "__main__":
    main()
