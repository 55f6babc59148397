"""Replies of many users' own adapters: `lightning predict` with `UserLora` against one `generate` call for each reply.

    lightning fit --config experiments/lora_r12.yaml        # first, the adapters
    python -m benchmarks.generation                         # all target users' test turns, twice
    python -m benchmarks.generation --users 4 --repetitions 1     # a quick look

    ours         the real command, in full batches of many users; it also scores the real replies, and writes the file
    switching    a PEFT model that holds everyone's adapter: `set_adapter(user)` and a `generate` call for each reply,
                 in the order of the test set, where turns of one user stand together

Both read the same test turns with the same prompts, and decode greedily with `no_repeat_ngram_size` and
`max_new_tokens` of the experiment, in 32 bits. Every reply must be the same, or the benchmark ends with an error.
Each is a process of its own, started anew in every repetition, in changing order. The figure is that of generation
alone: from the moment at which model and data are loaded, in PEFT's case the adapters too, to the last reply; in time
of all threads too, which other work on the machine changes least. Time and memory of the whole process, start, imports
and reading included, stand beside it; the start weighs the less the more is generated.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning import Callback, LightningModule, Trainer

from artefacts.layout import PREDICTIONS, user_directory
from benchmarks.adapters import run
from benchmarks.experiment import exit_on_termination, load_experiment
from benchmarks.report import ratios, spread, table

SECONDS = "generation_seconds.txt"
NAMES = {"ours": "ours, `lightning predict`", "switching": "PEFT, one `generate` a reply"}


class Run(NamedTuple):
    """One run of a competitor: wall and CPU seconds of generation, seconds and peak memory in MB of the process."""

    seconds: float
    cpu_seconds: float
    process_seconds: float
    memory: float


class GenerationTimer(Callback):
    """Writes to the run directory how long a prediction takes, without what comes before it."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = clocks()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(trainer.default_root_dir, SECONDS).write_text(json.dumps((clocks() - self.began).tolist()))


def clocks() -> np.ndarray:
    """Wall and processor time so far, s."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Runs both in turn and prints the table; as `worker`, is the second of them."""
    if sys.argv[1:2] == ["worker"]:
        return switch(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=Path("experiments/lora_r12.yaml"))
    parser.add_argument("--adapters", type=Path, default=Path("runs/lora_r12/adapters"))
    parser.add_argument("--rows", type=int, default=256, help="rows in a batch of ours")
    parser.add_argument("--users", type=int, help="only the first so many target users")
    parser.add_argument("--repetitions", type=int, default=2)
    arguments = parser.parse_args()
    exit_on_termination()
    with tempfile.TemporaryDirectory() as directory:
        return compare(arguments, Path(directory))


def compare(arguments: argparse.Namespace, directory: Path) -> None:
    """All repetitions; ValueError if a reply differs."""
    _, data, _ = load_experiment(arguments.experiment)
    data.prepare_data()
    data.setup("predict")
    users = data.users[: arguments.users]
    (directory / "users.txt").write_text("\n".join(users) + "\n")
    flags = [
        f"--model.adapters={arguments.adapters.resolve()}",
        "--model.decoding.sample=false",
        f"--data.users={directory / 'users.txt'}",
    ]
    lightning = [str(Path(sys.executable).with_name("lightning")), "predict", "--config", str(arguments.experiment)]
    lightning += [*flags, "--trainer.precision=32-true", "--trainer.logger=false"]
    lightning += [f"--data.predict_rows={arguments.rows}", "--trainer.callbacks+=benchmarks.generation.GenerationTimer"]
    root = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    runs: dict[str, list[Run]] = {name: [] for name in NAMES}
    for repetition in range(arguments.repetitions):
        replies = {}
        for name in list(NAMES)[:: -1 if repetition % 2 else 1]:
            output = directory / f"{name}{repetition}"
            job = {"experiment": str(arguments.experiment), "flags": flags, "output": str(output)}
            theirs = [sys.executable, "-m", "benchmarks.generation", "worker", json.dumps(job)]
            command = [*lightning, f"--run={output}"] if name == "ours" else theirs
            wall, _, memory = run(command, directory / f"{name}.log", {**os.environ, "PYTHONPATH": root})
            runs[name].append(Run(*json.loads((output / SECONDS).read_text()), wall, memory))
            replies[name] = replies_in(output)
            print(f"{name}: {runs[name][-1]}", file=sys.stderr)
        require_same(**replies)
    num_replies = len(replies["ours"])
    print(f"\n{len(users)} users, {num_replies:,} greedy replies, all the same; {arguments.repetitions} repetitions\n")
    print(report(runs, num_replies))


def replies_in(run: Path) -> dict[tuple[str, int], str]:
    """The reply of each user to each pair."""
    lines = map(json.loads, (run / PREDICTIONS).read_text().splitlines())
    return {(line["user"], line["pair_id"]): line["candidates"][0] for line in lines}


def require_same(ours: dict[tuple[str, int], str], switching: dict[tuple[str, int], str]) -> None:
    """ValueError if a reply differs."""
    if differing := [pair for pair in ours.keys() | switching.keys() if ours.get(pair) != switching.get(pair)]:
        raise ValueError(f"{len(differing)} of {len(ours)} replies differ, such as that to pair {differing[0]}")


def report(runs: dict[str, list[Run]], num_replies: int) -> str:
    """The table."""
    columns = {name: [list(values) for values in zip(*of_name, strict=True)] for name, of_name in runs.items()}

    def against_ours(name: str, column: int) -> str:
        return "" if name == "ours" else spread(ratios(columns[name][column], columns["ours"][column]), 2)

    rows = [
        [
            NAMES[name],
            spread([num_replies / seconds for seconds in generation], 1),
            against_ours(name, 0),
            spread(cpu_seconds, 1),
            against_ours(name, 1),
            spread(process, 1),
            against_ours(name, 2),
            spread(memory),
        ]
        for name, (generation, cpu_seconds, process, memory) in columns.items()
    ]
    faster = "ours is faster by"
    heading = ["", "replies/s (generation alone)", faster, "its CPU time, s", faster, "whole process, s", faster]
    return table([*heading, "memory, MB"], rows)


def switch(job: dict[str, Any]) -> None:
    """One reply after the other, as one would write it with PEFT alone."""
    import torch
    from transformers import AutoTokenizer

    model, data, _ = load_experiment(Path(job["experiment"]), job["flags"])
    data.prepare_data()
    data.setup("predict")
    tokenizer = AutoTokenizer.from_pretrained(model.init_from)
    names = {user: f"user{number}" for number, user in enumerate(data.users)}  # PEFT allows no dot in a name
    peft = with_adapters(model, names)
    loaded = data.splits["test"].load(data.users, data.prompts, data.max_context_tokens)
    output = Path(job["output"])
    output.mkdir()
    began = clocks()
    with (output / PREDICTIONS).open("w") as file, torch.no_grad():
        for user in data.users:
            for row in loaded.rows[user].tolist():
                ids = torch.from_numpy(loaded.rendered.inputs.row(row)[None].astype("int64"))
                peft.set_adapter(names[user])
                tokens = peft.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    no_repeat_ngram_size=model.decoding.no_repeat_ngram_size,
                    max_new_tokens=model.decoding.max_new_tokens,
                )
                reply = tokenizer.decode(tokens[0], skip_special_tokens=True)
                line = {"user": user, "pair_id": str(loaded.rendered.pair_id[row]), "candidates": [reply]}
                file.write(json.dumps(line) + "\n")
    (output / SECONDS).write_text(json.dumps((clocks() - began).tolist()))


def with_adapters(model: Any, names: dict[str, str]) -> Any:
    """A PEFT model that holds the adapters of all users, under these names."""
    import torch
    from peft import PeftModel
    from transformers import T5ForConditionalGeneration

    backbone = T5ForConditionalGeneration.from_pretrained(model.init_from, dtype=torch.float32)
    first, *others = names
    peft = PeftModel.from_pretrained(backbone, user_directory(model.adapters, first), adapter_name=names[first])
    for user in others:
        peft.load_adapter(user_directory(model.adapters, user), adapter_name=names[user])
    return peft.eval()


if __name__ == "__main__":
    main()
