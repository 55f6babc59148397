"""How time and memory of `lightning prepare` grow with the number of posts.

    python -m benchmarks.preparation --posts 1000000 3000000 10000000 --output runs/preparation

Corpora are synthetic networks (`benchmarks/synthetic_network/`), made once for each size. Every measurement is a fresh
process of the command with `POSTS=<corpus>` in its environment and `--output`, `--num_buckets`, `--engine` and, if
asked for, `--num_workers` behind it;
sizes and settings take turns, and the output is deleted when its bytes are counted.

Out, in the directory: `runs.csv` with a line for each run as soon as it has ended, `preparation.png` with time and
memory against posts, logs of the commands. Printed: the table, and for each setting a straight line through its time
and its memory with the largest residual, in per cent of the largest value. Columns:

    posts/s           of wall time, start of the process included
    posts/CPU second  of CPU time of all its processes that were waited for (not the daemons of Ray)
    memory            the most that all its processes held together, PSS, looked at every 0.2 s
    output            bytes of all files
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shlex
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.experiment import exit_on_termination
from benchmarks.process_tree import run
from benchmarks.report import spread, table
from benchmarks.synthetic_network.network import generate
from benchmarks.synthetic_network.people import Settings

COMMAND = "lightning prepare --config experiments/corpus_sns.yaml --corpus.profiles=null --max_tokenizer_texts=200000"
NUM_FILES = 8


@dataclass(frozen=True)
class Setting:
    """How a corpus is prepared; 0 buckets or workers leave their number to the command."""

    engine: str
    num_buckets: int
    num_workers: int

    @property
    def name(self) -> str:
        """As in the table."""
        workers = f", {self.num_workers} workers" if self.num_workers else ""
        buckets = f"{self.num_buckets} bucket{'s' * (self.num_buckets != 1)}" if self.num_buckets else "buckets by size"
        return f"{self.engine}, {buckets}{workers}"

    @property
    def flags(self) -> list[str]:
        """As the command takes them."""
        workers = [f"--num_workers={self.num_workers}"] if self.num_workers else []
        buckets = [f"--num_buckets={self.num_buckets}"] if self.num_buckets else []
        return [*buckets, f"--engine={self.engine}", *workers]


@dataclass(frozen=True)
class Run:
    """One measurement; memory in MB, output in bytes."""

    engine: str
    num_buckets: int
    num_workers: int
    posts: int
    seconds: float
    cpu_seconds: float
    peak_memory: float
    most_processes: int
    output_bytes: int

    @property
    def setting(self) -> Setting:
        """What it was run with."""
        return Setting(self.engine, self.num_buckets, self.num_workers)


def corpus(directory: Path, posts: int) -> Path:
    """The corpus of a size; one that is there is taken if it is the same network."""
    path, settings = directory / f"posts-{posts}", Settings(posts)
    if not path.exists():
        generate(settings, path, NUM_FILES)
    made = json.loads((path / "counts.json").read_text())["settings"]
    if made != asdict(settings):
        raise ValueError(f"{path} is another network, {made}; expected {asdict(settings)}; delete it")
    return path


def measure(command: Sequence[str], posts: int, setting: Setting, directory: Path) -> Run:
    """Prepares a corpus once."""
    output = directory / "prepared"
    shutil.rmtree(output, ignore_errors=True)
    log = directory / f"{setting.engine}-{setting.num_buckets}-{setting.num_workers}-{posts}.log"
    environment = {"POSTS": str(corpus(directory, posts) / "posts-*.jsonl"), "OMP_NUM_THREADS": "1"}
    try:
        usage = run([*command, f"--output={output}", *setting.flags], log, environment)
        written = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        if not written:
            raise RuntimeError(f"the command has written nothing into {output}; its log is {log}")
    finally:
        shutil.rmtree(output, ignore_errors=True)
    return Run(**asdict(setting), posts=posts, **asdict(usage), output_bytes=written)


def straight_line(posts: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Least squares: slope for a million posts, value at none, largest residual in per cent of the largest value."""
    millions = np.asarray(posts) / 1e6
    slope, start = np.polyfit(millions, values, 1)
    residuals = np.abs(slope * millions + start - values)
    return float(slope), float(start), float(100 * residuals.max() / np.max(values))


def by_setting(runs: Sequence[Run]) -> dict[Setting, list[Run]]:
    """The runs of each setting, by size."""
    groups: dict[Setting, list[Run]] = defaultdict(list)
    for one in sorted(runs, key=lambda one: one.posts):
        groups[one.setting].append(one)
    return groups


def report(runs: Sequence[Run]) -> str:
    """The table, and a line of text for each straight line."""
    rows, lines = [], []
    for setting, group in by_setting(runs).items():
        for posts, same in itertools.groupby(group, key=lambda one: one.posts):
            part = list(same)
            cells = [
                spread([posts / one.seconds for one in part]),
                spread([posts / one.cpu_seconds for one in part]),
                spread([one.peak_memory for one in part]),
                spread([one.output_bytes / 1e6 for one in part], 1),
            ]
            rows.append([f"{posts:,} posts, {setting.name}", *cells])
        sizes = [one.posts for one in group]
        if len(set(sizes)) > 1:
            for what, unit in (("seconds", "s"), ("peak_memory", "MB")):
                slope, start, worst = straight_line(sizes, [getattr(one, what) for one in group])
                text = f"{start:,.1f} {unit} + {slope:,.1f} {unit} for a million posts, largest residual {worst:.1f} %"
                lines.append(f"{setting.name}: {text}")
    header = ["", "posts/s", "posts/CPU second", "memory, MB", "output, MB"]
    return "\n".join([table(header, rows), "", *lines])


def draw(runs: Sequence[Run], path: Path) -> None:
    """Time and memory against posts, with straight lines where there are two sizes or more."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    panels = (("seconds", "wall time, s"), ("peak_memory", "peak memory of all processes, MB"))
    for axis, (what, label) in zip(axes, panels, strict=True):
        for number, (setting, group) in enumerate(by_setting(runs).items()):
            millions, values = [one.posts / 1e6 for one in group], [getattr(one, what) for one in group]
            text = setting.name
            if len(set(millions)) > 1:
                slope, start, worst = straight_line([one.posts for one in group], values)
                ends = np.array([0, max(millions)])
                axis.plot(ends, start + slope * ends, color=f"C{number}", linewidth=1)
                text += f"\n{start:,.0f} + {slope:,.1f} per million, residuals up to {worst:.1f} %"
            axis.plot(millions, values, "o", color=f"C{number}", label=text)
        axis.set(xlabel="million posts", ylabel=label, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def compare(
    command: Sequence[str], sizes: Sequence[int], settings: Sequence[Setting], repetitions: int, directory: Path
) -> list[Run]:
    """Measures everything in turn; a run that has ended is in the file, whatever happens to the next."""
    directory.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    with (directory / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Run.__dataclass_fields__))
        writer.writeheader()
        for _, posts, setting in itertools.product(range(repetitions), sizes, settings):
            runs.append(measure(command, posts, setting, directory))
            writer.writerow(asdict(runs[-1]))
            file.flush()
            print(json.dumps(asdict(runs[-1])), file=sys.stderr)
    return runs


def main() -> None:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, nargs="+", default=[500_000, 1_000_000, 2_000_000], help="sizes")
    parser.add_argument("--num_buckets", type=int, nargs="+", default=[0], help="numbers of buckets; 0: by size")
    parser.add_argument(
        "--num_workers", type=int, nargs="+", default=[0], help="of processes; 0: as the command has it"
    )
    parser.add_argument("--engines", nargs="+", default=["native"], help="native, ray")
    parser.add_argument("--repetitions", type=int, default=1, help="processes for each size and setting")
    parser.add_argument("--command", default=COMMAND, help="what is measured, without the flags named above")
    parser.add_argument("--output", type=Path, default=Path("runs/preparation"), help="also holds the corpora")
    flags = parser.parse_args()
    exit_on_termination()
    settings = [Setting(*one) for one in itertools.product(flags.engines, flags.num_buckets, flags.num_workers)]
    try:
        runs = compare(shlex.split(flags.command), flags.posts, settings, flags.repetitions, flags.output)
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))
    print(report(runs))
    draw(runs, flags.output / "preparation.png")


if __name__ == "__main__":
    main()
