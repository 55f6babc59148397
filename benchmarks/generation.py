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
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer

from benchmarks.adapters import run
from benchmarks.experiment import exit_on_termination, load_experiment
from benchmarks.report import ratios, spread, table

SECONDS = "generation_seconds.txt"
NAMES = {"ours": "ours, `lightning predict`", "switching": "PEFT, one `generate` a reply"}


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
    """All repetitions; ValueError where a reply differs."""
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
    alone: dict[str, list[float]] = {name: [] for name in NAMES}
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    work: dict[str, list[float]] = {name: [] for name in NAMES}
    memory: dict[str, list[float]] = {name: [] for name in NAMES}
    for repetition in range(arguments.repetitions):
        replies = {}
        for name in list(NAMES)[:: -1 if repetition % 2 else 1]:
            output = directory / f"{name}{repetition}"
            command = [*lightning, f"--run={output}"]
            if name == "switching":
                job = {"experiment": str(arguments.experiment), "flags": flags, "output": str(output)}
                command = [sys.executable, "-m", "benchmarks.generation", "worker", json.dumps(job)]
            wall, _, peak = run(command, directory / f"{name}.log", {**os.environ, "PYTHONPATH": root})
            generation, worked = json.loads((output / SECONDS).read_text())
            alone[name].append(generation)
            work[name].append(worked)
            seconds[name].append(wall)
            memory[name].append(peak)
            lines = map(json.loads, (output / "predictions.jsonl").read_text().splitlines())
            replies[name] = {(line["user"], line["pair_id"]): line["candidates"][0] for line in lines}
            print(f"{name}: {wall:.1f} s, of it generation {generation:.1f} s, CPU {worked:.1f} s", file=sys.stderr)
        ours, theirs = replies["ours"], replies["switching"]
        if differing := [pair for pair in ours.keys() | theirs.keys() if ours.get(pair) != theirs.get(pair)]:
            raise ValueError(f"{len(differing)} of {len(ours)} replies differ, such as that to pair {differing[0]}")
    print(f"\n{len(users)} users, {len(ours):,} greedy replies, all the same; {arguments.repetitions} repetitions\n")
    rows = [
        [
            label,
            spread([len(ours) / wall for wall in alone[name]], 1),
            "" if name == "ours" else spread(ratios(alone[name], alone["ours"]), 2),
            spread(work[name], 1),
            "" if name == "ours" else spread(ratios(work[name], work["ours"]), 2),
            spread(seconds[name], 1),
            "" if name == "ours" else spread(ratios(seconds[name], seconds["ours"]), 2),
            spread(memory[name]),
        ]
        for name, label in NAMES.items()
    ]
    faster = "ours is faster by"
    heading = ["", "replies/s (generation alone)", faster, "its CPU time, s", faster, "whole process, s", faster]
    print(table([*heading, "memory, MB"], rows))


def switch(job: dict[str, Any]) -> None:
    """One reply after the other, as somebody would write it with PEFT alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    from artefacts.layout import user_directory

    model, data, _ = load_experiment(Path(job["experiment"]), job["flags"])
    data.prepare_data()
    data.setup("predict")
    tokenizer = AutoTokenizer.from_pretrained(model.init_from)
    backbone = T5ForConditionalGeneration.from_pretrained(model.init_from, dtype=torch.float32)
    names = {user: f"user{number}" for number, user in enumerate(data.users)}  # PEFT allows no dot in a name
    directories = {user: user_directory(model.adapters, user) for user in data.users}
    first, *others = data.users
    peft = PeftModel.from_pretrained(backbone, directories[first], adapter_name=names[first])
    for user in others:
        peft.load_adapter(directories[user], adapter_name=names[user])
    peft.eval()
    loaded = data.splits["test"].load(data.users, data.prompts, data.max_context_tokens)
    output = Path(job["output"])
    output.mkdir()
    began = clocks()
    with (output / "predictions.jsonl").open("w") as file, torch.no_grad():
        for user in data.users:
            for row in loaded.rows[user].tolist():
                inputs = loaded.rendered.inputs
                ids = torch.from_numpy(
                    inputs.values[inputs.offsets[row] : inputs.offsets[row + 1]][None].astype("int64")
                )
                peft.set_adapter(names[user])
                tokens = peft.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    no_repeat_ngram_size=model.decoding.no_repeat_ngram_size,
                    max_new_tokens=model.decoding.max_new_tokens,
                )
                reply = tokenizer.decode(tokens[0], skip_special_tokens=True)
                line = {"user": user, "pair_id": int(loaded.rendered.pair_id[row]), "candidates": [reply]}
                file.write(json.dumps(line) + "\n")
    (output / SECONDS).write_text(json.dumps((clocks() - began).tolist()))


if __name__ == "__main__":
    main()
