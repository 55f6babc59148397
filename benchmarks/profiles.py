"""Profiles from text: `ProfilePosts` and `ProfileNetwork` against scikit-learn on the same words, and learning.

    REAL_PERSONA_CHAT=<its folder> python -m benchmarks.profiles                  # about 15 minutes
    ... python -m benchmarks.profiles --network runs/profile_mln_ja/network       # without learning

Users are those of RealPersonaChat, again under other names where more are asked for. Both get their posts in memory,
in chunks of 150, and end with the posteriors of five attributes for every chunk, in batches of the same size.

    ours           `Trainer.predict` of `experiments/profile_mln_ja.yaml` with its callback, which decides on every
                   user and writes the profiles: words, patterns, places, forms, and six networks at once
    ours, n + 1    the same, evidence made by n processes beside the one that infers
    scikit-learn   TfidfVectorizer on the same words of fugashi, and a LogisticRegression for each attribute

Each measurement is a process of its own, with one thread, in turns. Rates are posts per second of wall time, and of
CPU time of all its processes, which says more where other work disturbs the machine. Memory is the most that the
process has held beyond what it held with all posts read, before the first was looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.experiment import exit_on_termination, load_experiment
from benchmarks.report import peak_memory, ratios, spread, table

EXPERIMENT = Path("experiments/profile_mln_ja.yaml")
POSTS, PIPELINE = "posts.pickle", "scikit-learn.pickle"
Measured = dict[str, float]


def cpu_seconds() -> float:
    """CPU time of this process and of those it has started and waited for."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measured(work: Callable[[], Any], num_posts: int) -> Measured:
    """Rates and memory of some work; what is held now is not counted."""
    held, cpu, began = peak_memory(), cpu_seconds(), time.perf_counter()
    work()
    wall, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    return {"rate": num_posts / wall, "cpu": num_posts / cpu, "memory": peak_memory() - held}


def stored(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Users and their posts, read one after the other, so that memory never holds more than is asked for."""
    with path.open("rb") as file:
        for _ in range(pickle.load(file)):
            yield pickle.load(file)


def load(directory: Path, num_users: int | None, network: Path, num_workers: int = 0) -> tuple[Any, Any]:
    """The model, and the data module with so many users, everything read; None are all there are, each once."""
    import torch

    torch.set_num_threads(1)
    model, data, _ = load_experiment(EXPERIMENT, [f"--data.network={network}", f"--data.num_workers={num_workers}"])
    originals = list(islice(stored(directory / POSTS), num_users))
    copies = [
        (number // len(originals), *originals[number % len(originals)]) for number in range(num_users or len(originals))
    ]
    data.histories = lambda: {f"{user} {copy}" if copy else user: posts for copy, user, posts in copies}
    data.setup("predict")
    return model, data


def ours(directory: Path, num_users: int, network: Path, num_workers: int) -> Measured:
    """From posts in memory to a file of profiles."""
    from lightning import Trainer

    from callbacks import ProfileWriter

    model, data = load(directory, num_users, network, num_workers)
    with tempfile.TemporaryDirectory() as root:
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            default_root_dir=root,
            callbacks=[ProfileWriter()],
            enable_progress_bar=False,
        )
        num_posts = sum(len(chunk.posts) for chunk in data.chunks)
        return measured(lambda: trainer.predict(model, data, return_predictions=False), num_posts)


def words_of(chunk: Any) -> list[str]:
    """The analyzer of the pipeline."""
    if words_of.segment is None:
        from datamodules.evidence.counts import segmenter

        words_of.segment = segmenter("unidic")
    return [word for post in chunk.posts for word in words_of.segment(post.text)]


words_of.segment = None


def learn_theirs(directory: Path, network: Path) -> Measured:
    """Fits the vectorizer and the classifiers on everybody once, where ours learns six networks; keeps them."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    _, data = load(directory, None, network)
    began = time.process_time()
    vectorizer = TfidfVectorizer(analyzer=words_of, sublinear_tf=True, vocabulary=data.facts.words.number)
    vectors = vectorizer.fit_transform(data.chunks)
    classifiers = []
    for labels in data.labels[data.user_of_chunk].T:
        classifiers.append(LogisticRegression(max_iter=200).fit(vectors[labels >= 0], labels[labels >= 0]))
    (directory / PIPELINE).write_bytes(pickle.dumps((vectorizer, classifiers)))
    return {"cpu": time.process_time() - began}


def theirs(directory: Path, num_users: int, network: Path) -> Measured:
    """From posts in memory to posteriors."""
    _, data = load(directory, num_users, network)
    vectorizer, classifiers = pickle.loads((directory / PIPELINE).read_bytes())
    size = data.chunks_per_batch
    batches = [data.chunks[start : start + size] for start in range(0, len(data.chunks), size)]

    def work() -> None:
        for batch in batches:
            vectors = vectorizer.transform(batch)
            for classifier in classifiers:
                classifier.predict_proba(vectors)

    return measured(work, sum(len(chunk.posts) for chunk in data.chunks))


def read(directory: Path) -> None:
    """Reads the corpus once and keeps the posts of all who have enough of them."""
    from datamodules.evidence.histories import histories_of

    _, data, _ = load_experiment(EXPERIMENT)
    histories = {user: posts for user, posts in histories_of(data.preparation).items() if len(posts) >= data.min_posts}
    with (directory / POSTS).open("wb") as file:
        for part in (len(histories), *histories.items()):
            pickle.dump(part, file)


def start(task: str, directory: Path, *numbers: Any) -> Measured:
    """Does a task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.profiles", "--task", json.dumps([task, str(directory), *numbers])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def carry_out(task: str, directory: str, *rest: Any) -> Measured | None:
    """The other end of `start`."""
    where = Path(directory)
    if task == "read":
        return read(where)
    if task == "learn_theirs":
        return learn_theirs(where, Path(rest[0]))
    num_users, network = rest[0], Path(rest[1])
    return theirs(where, num_users, network) if task == "theirs" else ours(where, num_users, network, rest[2])


def learn(directory: Path) -> Path:
    """Learns with the real command; says how long it took."""
    command = [str(Path(sys.executable).with_name("lightning")), "fit", "--config", str(EXPERIMENT)]
    run = directory / "run"
    cpu, began = cpu_seconds(), time.perf_counter()
    with (directory / "fit.log").open("w") as log:
        subprocess.run([*command, f"--run={run}"], stdout=log, stderr=log, check=True)
    print(f"learning, reading included: {time.perf_counter() - began:.0f} s, CPU {cpu_seconds() - cpu:.0f} s")
    return run / "network"


def compare(sizes: Sequence[int], repetitions: int, num_workers: int, network: Path | None, directory: Path) -> None:
    """Learns, measures everything in turn, prints the tables."""
    network = network or learn(directory)
    start("read", directory)
    print(f"learning, scikit-learn, without reading: CPU {start('learn_theirs', directory, str(network))['cpu']:.0f} s")
    tasks = {"ours": ("ours", 0), f"ours, {num_workers} + 1": ("ours", num_workers), "scikit-learn": ("theirs", 0)}
    results: dict[tuple[int, str], list[Measured]] = {(size, name): [] for size in sizes for name in tasks}
    for _ in range(repetitions):
        for (size, name), runs in results.items():
            task, workers = tasks[name]
            runs.append(start(task, directory, size, str(network), workers))
            print(f"{size} users, {name}: {json.dumps(runs[-1])}", file=sys.stderr)
    rows = []
    for (size, name), runs in results.items():
        cells = [spread([run[column] for run in runs]) for column in ("rate", "cpu", "memory")]
        against = [run["rate"] for run in results[size, "scikit-learn"]]
        rows.append([f"{size:,} users, {name}", *cells, spread(ratios([run["rate"] for run in runs], against), 2)])
    print(table(["", "posts/s", "posts per CPU second", "memory, MB", "posts/s, of scikit-learn's"], rows))


def main() -> None:
    """Reads the flags; a task is for one of its own processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 400], help="users")
    parser.add_argument("--repetitions", type=int, default=3, help="processes for each size and competitor")
    parser.add_argument("--workers", type=int, default=2, help="processes that make evidence")
    parser.add_argument("--network", type=Path, help="a network that has been learnt; without it, learning is timed")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(carry_out(*json.loads(arguments.task))))
        return
    if not os.environ.get("REAL_PERSONA_CHAT"):
        sys.exit("set REAL_PERSONA_CHAT to the folder of RealPersonaChat; its authors publish it")
    exit_on_termination()
    with tempfile.TemporaryDirectory() as directory:
        compare(arguments.sizes, arguments.repetitions, arguments.workers, arguments.network, Path(directory))


if __name__ == "__main__":
    main()
