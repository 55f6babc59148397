"""Pre-training speed: ours against Hugging Face's `Seq2SeqTrainer`, with its default and with length-grouped sampling.

    python -m benchmarks.pretraining                     # about 10 minutes on two CPU cores
    python -m benchmarks.pretraining --tuned-trainer     # the Trainer gets our attention as well

Ours is what `lightning fit --config experiments/pretrain_small.yaml` does: the Lightning Trainer, `ProfileSeq2Seq`,
batches of `ReplyPairs`. All three have the same

- pairs, rendered by our prompts, model, first weights, precision, gradient clipping, optimizer, schedule, threads,
- number of steps, and about the same tokens per step: the Trainer's fixed number of rows is our mean number of rows,
- things left out: validation, checkpoints, progress bars. The Trainer's pairs lie in memory when its clock starts,
  ours are read from the shards while it runs.

Each is a process of its own, and they train in turns, a slice of steps each, in changing order (`turns.py`). A slice
has as many steps as the Trainer groups by length at a time (50), for within a group its batches go from long to
short. The first slice is the warm-up: it contains the trainer's start, the first read and the building of most
kernels, and is left out of all columns but one.

    tokens/s      tokens that are not padding, inputs and labels, per second: median (lowest–highest slice)
    ours ÷ this   the same as ratios, slice by slice
    padding       share of the positions of the batches that hold no token
    of peak       6 × parameters touched × tokens that are not padding per second, as a share of what a large bf16
                  matrix product reached between the slices. Touched: encoder and the cross-attention's keys and
                  values by input tokens, the rest of the decoder and the vocabulary projection by label tokens;
                  attention scores and look-ups are not counted
    loss          nats per token on the validation split, in 32 bits, after all steps
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.experiment import exit_on_termination, load_experiment
from benchmarks.report import ratios, spread, table
from benchmarks.turns import Worker

NAMES = {
    "ours": "ours (Lightning, ReplyPairs)",
    "random": "Seq2SeqTrainer, default sampling",
    "group_by_length": "Seq2SeqTrainer, group_by_length",
}


def prepare(experiment: Path, directory: Path) -> tuple[Any, int]:
    """Writes the first weights and the rendered pairs; returns the data module and our mean number of rows."""
    import torch

    from lightning_modules.backbones.t5 import new_model

    model, data, _ = load_experiment(experiment)
    data.prepare_data()
    data.setup("fit")
    reader = data.sources[0].reader
    rendered = data.prompts.render(reader.read(range(len(reader.groups))), data.max_context_tokens)
    np.savez(
        directory / "pairs.npz",
        input_values=rendered.inputs.values,
        input_offsets=rendered.inputs.offsets,
        label_values=rendered.targets.values,
        label_offsets=rendered.targets.offsets,
    )
    torch.manual_seed(0)
    new_model(model.size, data.prompts.tokenizer.get_vocab_size(), model.dropout).save_pretrained(directory / "initial")
    for file in data.tokenizer_directory.iterdir():
        shutil.copy(file, directory / "initial")
    return data, round(sum(reader.group_sizes) / len(data.train_dataloader()))


def matrix_rate(size: int = 2048, seconds: float = 1.0) -> float:
    """Operations per second of a large bf16 matrix product, right now."""
    import torch

    a, b = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        a @ b
        rates.append(2 * size**3 / (time.perf_counter() - began))
    return statistics.median(rates)


def model_operations(model: Any, input_tokens: int, label_tokens: int) -> float:
    """Six operations for each parameter touched by a token; see the module's docstring."""
    by_input = by_label = 0
    for name, parameter in model.named_parameters():
        if "block" not in name or parameter.ndim < 2 or "relative_attention_bias" in name:
            continue
        if name.startswith("encoder") or "EncDecAttention.k" in name or "EncDecAttention.v" in name:
            by_input += parameter.numel()
        else:
            by_label += parameter.numel()
    by_label += model.lm_head.weight.numel()
    return 6.0 * (by_input * input_tokens + by_label * label_tokens)


def held_out_loss(model: Any, data: Any) -> float:
    """Nats per token on the validation split."""
    from lightning_modules.backbones.likelihood import row_nll

    sums = [row_nll(model.eval(), batch) for batch in data.val_dataloader()]
    return sum(float(nll.sum()) for nll, _ in sums) / sum(int(tokens.sum()) for _, tokens in sums)


def main() -> None:
    """Starts the competitors, gives them turns, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=Path("experiments/pretrain_small.yaml"))
    parser.add_argument("--slices", type=int, default=3, help="slices that are measured, besides the warm-up")
    parser.add_argument("--steps", type=int, default=50, help="optimizer steps of a slice")
    parser.add_argument("--tuned-trainer", action="store_true", help="give the Trainer our CPU settings")
    arguments = parser.parse_args()
    exit_on_termination()
    with tempfile.TemporaryDirectory() as directory:
        compare(arguments, Path(directory))


def compare(arguments: argparse.Namespace, directory: Path) -> None:
    """One run of all competitors."""
    data, rows = prepare(arguments.experiment, directory)
    job = {
        "experiment": str(arguments.experiment),
        "directory": str(directory),
        "steps": arguments.steps,
        "num_steps": arguments.steps * (arguments.slices + 1),
        "rows": rows,
        "tuned": arguments.tuned_trainer,
    }
    trained = train_in_turns(job, arguments.slices + 1)
    print(
        f"\n{arguments.slices} slices of {arguments.steps} steps, {rows} rows a step for the Trainer, "
        f"{'/'.join(map(str, sorted(trained.threads)))} threads; bf16 matrix product: "
        f"{spread([rate / 1e9 for rate in trained.matrix_rates])} billion operations a second"
        f"{'; the Trainer has our CPU settings' if arguments.tuned_trainer else ''}\n"
    )
    print(report(trained, arguments.steps, data, directory))


class Trained(NamedTuple):
    """What the competitors took and saw.

    Attributes:
        threads: Numbers of threads that they have.
        matrix_rates: Operations per second of a matrix product before each slice.
        seconds: Of each slice, by competitor.
        ends: The last word of each competitor: counts of its batches, peak memory in MB.
    """

    threads: set[int]
    matrix_rates: list[float]
    seconds: dict[str, list[float]]
    ends: dict[str, dict[str, Any]]


def train_in_turns(job: dict[str, Any], num_slices: int) -> Trained:
    """Starts all competitors and gives each a slice of steps in turn, in changing order."""
    command, directory = [sys.executable, "-m", "benchmarks.peers.pretraining"], Path(job["directory"])
    workers: dict[str, Worker] = {}
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    rates = []
    try:
        for name in NAMES:
            named = json.dumps({**job, "name": name})
            workers[name] = Worker([*command, named], directory / f"{name}.log", os.environ)
        threads = {worker.hear()["threads"] for worker in workers.values()}
        for number in range(num_slices):
            rates.append(matrix_rate())
            for name in list(NAMES)[number % 3 :] + list(NAMES)[: number % 3]:
                seconds[name].append(workers[name].turn()["seconds"])
            print(f"slice {number}: { ({name: round(s[-1], 1) for name, s in seconds.items()}) } s", file=sys.stderr)
        return Trained(threads, rates, seconds, {name: worker.turn() for name, worker in workers.items()})
    finally:
        for worker in workers.values():
            worker.stop()


def report(trained: Trained, num_steps: int, data: Any, directory: Path) -> str:
    """The table."""
    import torch
    from transformers import T5ForConditionalGeneration

    speeds: dict[str, np.ndarray] = {}  # (slices,), the warm-up first
    lines = []
    for name, label in NAMES.items():
        model = T5ForConditionalGeneration.from_pretrained(directory / name, dtype=torch.float32)
        counts = np.array(trained.ends[name]["counts"]).reshape(-1, num_steps, 3).sum(1)  # (slices, 3)
        seconds = np.array(trained.seconds[name])
        speeds[name] = counts[:, :2].sum(1) / seconds
        inputs, labels, positions = counts.sum(0)
        operations = np.array([model_operations(model, *count[:2]) for count in counts])
        peak = operations / seconds / np.array(trained.matrix_rates)
        lines.append(
            [
                label,
                spread(speeds[name][1:]),
                "" if name == "ours" else spread(ratios(speeds["ours"][1:], speeds[name][1:]), 2),
                f"{(inputs + labels) / seconds.sum():,.0f}",
                f"{1 - (inputs + labels) / positions:.1%}",
                f"{statistics.median(peak[1:]):.1%}",
                f"{inputs + labels:,}",
                f"{held_out_loss(model, data):.3f}",
                f"{trained.ends[name]['memory']:,.0f}",
            ]
        )
    header = ["tokens/s", "ours ÷ this", "with warm-up", "padding", "of peak", "tokens seen", "loss", "memory, MB"]
    return table(["", *header], lines)


if __name__ == "__main__":
    main()
