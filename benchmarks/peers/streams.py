"""How fast other libraries stream the same reply pairs: HF `datasets`, webdataset, litdata.

Run by `benchmarks.reply_pairs --peers`, in the peers' own environment: of this project it knows only the Parquet
part. Each reads what it is made for (`datasets` Parquet in row groups of 8,192, the others their own format),
shuffles (in a buffer of 10,000 pairs; litdata within its chunks) and gives padded arrays of 90 pairs, as many as a
batch of 4,096 tokens holds; rows of like length share no batch here. One process, no workers. Prints one JSON line:

    rate     pairs/s in padded batches, after the first batch
    start    seconds from opening the data to the first batch
    resume   seconds from opening the data to the batch in the middle of it, by the library's own state
    disk     bytes on the disk for each pair
    memory   MB, most resident memory over what was held after the imports
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 90
BUFFER = 10_000
Pair = dict[str, Any]  # context, response: a list or an array of ids each


def pairs_of(part: Path) -> Iterator[Pair]:
    """The pairs of a Parquet part."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(part).iter_batches(8192, columns=["context_ids", "response_ids"]):
        for context, response in zip(batch["context_ids"], batch["response_ids"], strict=True):
            yield {name: ids.values.to_numpy() for name, ids in (("context", context), ("response", response))}


class HuggingFace:
    """`datasets`, streaming."""

    module = "datasets"

    def __init__(self, part: Path, directory: Path) -> None:
        self.files = [directory / "pairs.parquet"]

    def write(self, pairs: Iterator[Pair]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [{"context_ids": pair["context"], "response_ids": pair["response"]} for pair in pairs]
        kind = pa.schema([(name, pa.list_(pa.uint16())) for name in rows[0]])
        pq.write_table(pa.Table.from_pylist(rows, kind), self.files[0], row_group_size=8192, compression="zstd")

    def open(self, state: dict[str, Any] | None = None) -> Any:
        from datasets import load_dataset

        files = [str(path) for path in self.files]
        data = load_dataset("parquet", data_files=files, split="train", streaming=True)
        data = data.select_columns(["context_ids", "response_ids"]).shuffle(seed=0, buffer_size=BUFFER)
        if state:
            data.load_state_dict(state)
        return data

    def batches(self, data: Any) -> Iterator[list[Pair]]:
        for batch in data.iter(batch_size=ROWS):
            rows = zip(batch["context_ids"], batch["response_ids"], strict=True)
            yield [{"context": context, "response": response} for context, response in rows]


class WebDataset:
    """webdataset: one tar, two members a pair. It keeps no position."""

    module = "webdataset"

    def __init__(self, part: Path, directory: Path) -> None:
        self.files = [directory / "pairs.tar"]

    def write(self, pairs: Iterator[Pair]) -> None:
        import webdataset

        with webdataset.TarWriter(str(self.files[0])) as writer:
            for number, pair in enumerate(pairs):
                members = {f"{name}.ids": ids.tobytes() for name, ids in pair.items()}
                writer.write({"__key__": f"{number:09d}", **members})

    def open(self, state: None = None) -> Any:
        import webdataset

        return webdataset.WebDataset(str(self.files[0]), shardshuffle=False).shuffle(BUFFER)

    def batches(self, data: Any) -> Iterator[list[Pair]]:
        names = ("context", "response")
        items = ({name: np.frombuffer(item[f"{name}.ids"], dtype=np.uint16) for name in names} for item in data)
        return batched(items)


class LitData:
    """litdata: chunks of 64 MB."""

    module = "litdata"

    def __init__(self, part: Path, directory: Path) -> None:
        self.directory = directory

    def write(self, pairs: Iterator[Pair]) -> None:
        from litdata.streaming.cache import Cache

        cache = Cache(str(self.directory), chunk_bytes="64MB")
        for number, pair in enumerate(pairs):
            cache[number] = pair
        cache.done()
        cache.merge()

    @property
    def files(self) -> list[Path]:
        return list(self.directory.glob("*.bin"))

    def open(self, state: dict[str, Any] | None = None) -> Any:
        from litdata import StreamingDataLoader, StreamingDataset

        data = StreamingDataset(str(self.directory), shuffle=True, seed=0)
        loader = StreamingDataLoader(data, batch_size=ROWS, collate_fn=list, num_workers=0)
        if state:
            loader.load_state_dict(state)
        return loader

    def batches(self, data: Any) -> Iterator[list[Pair]]:
        return iter(data)


PEERS = {"datasets": HuggingFace, "webdataset": WebDataset, "litdata": LitData}


def batched(items: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Lists of `ROWS` items."""
    iterator = iter(items)
    while rows := list(islice(iterator, ROWS)):
        yield rows


def pad(rows: list[Pair]) -> dict[str, np.ndarray]:
    """Two matrices, filled up with zeros on the right."""
    found = {}
    for name in ("context", "response"):
        matrix = np.zeros((len(rows), max(len(row[name]) for row in rows)), dtype=np.int64)
        for number, row in enumerate(rows):
            matrix[number, : len(row[name])] = row[name]
        found[name] = matrix
    return found


def peak_memory() -> float:
    """Most resident memory so far, in MB."""
    # Not `getrusage`: there a process begins with what the one that started it held.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def timed(make: Callable[[], Any]) -> float:
    """Seconds it takes."""
    began = time.perf_counter()
    make()
    return time.perf_counter() - began


def measure(peer: Any, num_pairs: int) -> dict[str, float | None]:
    """All columns."""
    held = peak_memory()
    began = time.perf_counter()
    data = peer.open()
    batches = map(pad, peer.batches(data))
    next(batches)
    start = time.perf_counter() - began
    began, seen = time.perf_counter(), 0
    while seen < num_pairs // 2:
        seen += len(next(batches)["context"])
    seconds = time.perf_counter() - began
    state = data.state_dict() if hasattr(data, "state_dict") else None
    began = time.perf_counter()
    later = sum(len(batch["context"]) for batch in batches)
    seconds += time.perf_counter() - began
    if seen + later + ROWS != num_pairs:
        raise RuntimeError(f"{seen + later + ROWS} of {num_pairs} pairs came")
    memory = peak_memory() - held
    return {
        "rate": (seen + later) / seconds,
        "start": start,
        "resume": timed(lambda: pad(next(peer.batches(peer.open(state))))) if state else None,
        "disk": sum(path.stat().st_size for path in peer.files) / num_pairs,
        "memory": memory,
    }


def main() -> None:
    """One step of one peer; writing has a process of its own, so that its memory does not count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["write", "measure"])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("part", type=Path, help="Parquet part")
    parser.add_argument("pairs", type=int, help="pairs of it that are taken")
    parser.add_argument("directory", type=Path, help="directory for what is written")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    kind = PEERS[arguments.peer]
    version = importlib.import_module(kind.module).__version__
    peer = kind(arguments.part, arguments.directory)
    if arguments.step == "write":
        peer.write(islice(pairs_of(arguments.part), arguments.pairs))
    else:
        print(json.dumps({"version": version, **measure(peer, arguments.pairs)}))


if __name__ == "__main__":
    main()
