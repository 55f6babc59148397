"""Adapters of many users: `lightning fit` with `UserLora` against a plain PEFT loop and against a Trainer per user.

    python -m benchmarks.adapters                       # all target users, one epoch, twice
    python -m benchmarks.adapters --users 6             # a quick look
    python -m benchmarks.adapters --epochs 8 --repetitions 1     # a whole training; about four times as long

All three train the same users on the same rows, rendered by our prompts, from the same backbone, with the rank,
matrices, AdamW, learning rate, schedule, clipping, rows a step and precision of `experiments/lora_r12.yaml`, for the
same number of epochs (nobody stops early), validate every user after every epoch, and write a PEFT directory with
each user's best weights. First weights are drawn from the same distribution.

    ours      the real command, with its start, checkpoints, logs and progress bar
    loop      torch and PEFT alone: one PEFT model whose adapter is made anew for each user; shuffled batches
    trainer   a `Seq2SeqTrainer` and a PEFT model for each user, all in one process

Each is a process of its own, started anew in every repetition and in changing order. Wall time and memory are those
of the whole process: start, imports and reading included; CPU time is that of all its threads, and says more than
wall time where other work disturbs the machine. The loss is computed afterwards from the adapters that
were written, by one function for all, with plain PEFT in 32 bits: nats per token over all users' validation turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artefacts.layout import ADAPTER_WEIGHTS, ADAPTERS, user_directory
from benchmarks.experiment import exit_on_termination, load_experiment
from benchmarks.report import ratios, spread, table

NAMES = {
    "ours": "ours, `lightning fit`",
    "loop": "plain PEFT loop",
    "trainer": "Seq2SeqTrainer + PEFT per user",
}


class Run(NamedTuple):
    """One run of a competitor: wall and CPU seconds, peak memory in MB, nats per token on the validation turns."""

    seconds: float
    cpu_seconds: float
    memory: float
    loss: float


def job_of(model: Any, data: Any, users: Sequence[str], precision: str | None, tuned: bool) -> dict[str, Any]:
    """What the workers need to know, as plain values."""
    if model.schedule != "linear":
        raise ValueError(f"the other competitors know the linear schedule only, the experiment has {model.schedule!r}")
    return {
        "prepared": str(data.preparation.output),
        "prompt": asdict(data.prompt),
        "profiles": str(data.profiles) if data.profiles else None,
        "max_context_tokens": data.max_context_tokens,
        "rows": data.rows_per_user,
        "users": list(users),
        "backbone": str(model.init_from),
        "lora": {
            "r": model.rank,
            "lora_alpha": model.alpha,
            "use_rslora": model.use_rslora,
            "target_modules": model.target_modules,
            "task_type": "SEQ_2_SEQ_LM",
        },
        "learning_rate": model.learning_rate,
        "warmup_share": model.warmup_share,
        "weight_decay": model.weight_decay,
        "max_grad_norm": model.max_grad_norm,
        "epochs": model.max_epochs,
        "bf16": precision == "bf16-mixed",
        "seed": model.seed,
        "tuned": tuned,
    }


def run(command: Sequence[str], log: Path, environment: dict[str, str]) -> tuple[float, float, float]:
    """Wall and CPU seconds, peak memory in MB of a command; RuntimeError with the end of its log where it fails."""
    with log.open("w") as file:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} failed:\n{log.read_text()[-3000:]}")
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return seconds, usage.ru_utime + usage.ru_stime, memory


class Judge:
    """Validation loss of written adapters, with plain PEFT and in 32 bits."""

    def __init__(self, job: dict[str, Any], data: Any) -> None:
        from peft import LoraConfig, get_peft_model

        from datamodules.batches import collate
        from lightning_modules.backbones.files import load_backbone

        rows = data.splits["validation"].load(job["users"], data.prompts, job["max_context_tokens"])
        rendered = rows.rendered
        self.batches = {
            user: [
                collate(rendered.inputs, rendered.targets, batch, batch * 0, rendered.pair_id)
                for batch in np.array_split(own, -(-len(own) // 64))
            ]
            for user, own in rows.rows.items()
            if len(own)
        }
        self.model = get_peft_model(load_backbone(Path(job["backbone"])).model, LoraConfig(**job["lora"])).eval()

    def loss(self, directories: dict[str, Path] | None) -> float:
        """Nats per token with everyone's adapter, or with none."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        from lightning_modules.backbones.likelihood import row_nll

        nll = tokens = 0.0
        for user, batches in self.batches.items():
            if directories is not None:
                state = load_file(directories[user] / ADAPTER_WEIGHTS)
                if set_peft_model_state_dict(self.model, state).unexpected_keys:
                    raise RuntimeError(f"{directories[user]} does not fit the backbone")
            for batch in batches:
                sums = row_nll(self.model.base_model.model, batch)
                nll += float(sums[0].sum())
                tokens += int(sums[1].sum())
        return nll / tokens


def main() -> None:
    """Runs the competitors in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=Path("experiments/lora_r12.yaml"))
    parser.add_argument("--backbone", type=Path, help="instead of the experiment's")
    parser.add_argument("--users", type=int, help="only the first so many target users")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--tuned-baselines", action="store_true", help="give the others our CPU settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a flag of `lightning fit`")
    arguments = parser.parse_args()
    exit_on_termination()
    with tempfile.TemporaryDirectory() as directory:
        compare(arguments, Path(directory))


def compare(arguments: argparse.Namespace, directory: Path) -> None:
    """All repetitions of all competitors."""
    overrides = [f"--model.max_epochs={arguments.epochs}", f"--model.patience={arguments.epochs}"]
    overrides += [f"--{setting}" for setting in arguments.set]
    if arguments.backbone:
        overrides.append(f"--model.init_from={arguments.backbone}")
    model, data, trainer = load_experiment(arguments.experiment, overrides)
    data.prepare_data()
    data.setup("fit")
    users = data.users[: arguments.users]
    job = job_of(model, data, users, trainer.get("precision"), arguments.tuned_baselines)
    judge = Judge(job, data)
    without = judge.loss(None)  # as long as the adapter is fresh
    (directory / "users.txt").write_text("\n".join(users) + "\n")
    lightning = [str(Path(sys.executable).with_name("lightning")), "fit", "--config", str(arguments.experiment)]
    lightning += [*overrides, f"--data.users={directory / 'users.txt'}"]
    runs: dict[str, list[Run]] = {name: [] for name in NAMES}
    for repetition in range(arguments.repetitions):
        first = repetition % len(NAMES)
        for name in list(NAMES)[first:] + list(NAMES)[:first]:
            output = directory / f"{name}{repetition}"
            theirs = [sys.executable, "-m", "benchmarks.peers.adapters", name]
            theirs += [json.dumps({**job, "output": str(output)})]
            command = [*lightning, f"--run={output}"] if name == "ours" else theirs
            usage = run(command, directory / f"{name}.log", dict(os.environ))
            runs[name].append(Run(*usage, judge.loss(adapters_of(name, output, users))))
            print(f"{name}: {runs[name][-1]}", file=sys.stderr)
    num_turns = arguments.epochs * sum(data.splits["train"].num_turns[user] for user in users)
    print(
        f"\n{len(users)} users, {num_turns:,} turns in {arguments.epochs} epochs, rank {model.rank}, "
        f"precision {trainer.get('precision') or '32-true'}, {arguments.repetitions} repetitions; validation loss "
        f"without adapters {without:.3f}{'; the others have our CPU settings' if job['tuned'] else ''}\n"
    )
    print(report(runs, num_turns))


def report(runs: dict[str, list[Run]], num_turns: int) -> str:
    """The table."""
    columns = {name: [list(values) for values in zip(*of_name, strict=True)] for name, of_name in runs.items()}
    ours = columns["ours"][0]
    rows = [
        [
            NAMES[name],
            spread(seconds, 1),
            spread([num_turns / wall for wall in seconds]),
            "" if name == "ours" else spread(ratios(seconds, ours), 2),
            spread(cpu_seconds, 1),
            spread(losses, 3),
            spread(memory),
        ]
        for name, (seconds, cpu_seconds, memory, losses) in columns.items()
    ]
    header = ["", "wall time, s", "turns/s", "ours is faster by", "CPU time, s", "validation loss", "memory, MB"]
    return table(header, rows)


def adapters_of(name: str, output: Path, users: Sequence[str]) -> dict[str, Path]:
    """Where a competitor has put every user's adapter."""
    return {user: user_directory(output / ADAPTERS, user) if name == "ours" else output / user for user in users}


if __name__ == "__main__":
    main()
