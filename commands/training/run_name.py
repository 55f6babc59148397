"""The settings of runs: what of them makes another run, what a run is called for it, and whether two are the same.

In: configurations as plain values, and the arguments of a command. Out: names and differences.
"""

from __future__ import annotations

import hashlib
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TRAINER_KEYS_OF_A_RUN = (
    "accumulate_grad_batches",
    "gradient_clip_val",
    "limit_train_batches",
    "max_epochs",
    "max_steps",
    "overfit_batches",
    "precision",
)
# They decide speed, memory or what is looked at, not the weights, so a test finds the run without them.
NOT_IN_A_NAME = (
    "adapters",
    "allow_sending_text",
    "api_key_variable",
    "cache",
    "concurrency",
    "max_retries",
    "max_users_at_once",
    "min_train_turns",
    "predict_rows",
    "price_per_million",
    "rows_at_once",
    "timeout",
    "tuned",
    "users_per_batch",
)
# They concern a test alone: a run is trained, named and predicted with the same whatever they are.
OF_A_TEST = ("num_swaps", "test_general_pairs", "test_train_turns")
LONGEST_NAME = 120


def run_settings(config: dict[str, Any]) -> dict[str, Any]:
    """What decides the weights a run gives, flattened to `{dotted key: value}`; how it decodes does not."""
    trainer = {key: config["trainer"].get(key) for key in TRAINER_KEYS_OF_A_RUN}
    chosen = {"model": config.get("model"), "data": config.get("data"), "seed": config.get("seed_everything")}
    flat = flattened({**chosen, "trainer": trainer})
    return {
        key: value
        for key, value in flat.items()
        if ".decoding" not in key and not key.endswith("__path__") and not _of_a_test(key)
    }


def _of_a_test(key: str) -> bool:
    return key.rpartition(".")[2] in OF_A_TEST


def _short(key: str) -> str:
    """The last part of a dotted key, and the one before where several settings are called so."""
    parts = key.replace(".init_args", "").split(".")
    return ".".join(parts[-2:]) if parts[-1] == "seed" else parts[-1]


def experiment_files(arguments: Sequence[str]) -> list[Path]:
    """The files of `--config`, from a subcommand's arguments: resolving a `${...}` drops them from what was parsed."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-c", type=Path, action="append", default=[])
    return parser.parse_known_args(arguments)[0].config


def run_name(files: Sequence[Path], without_flags: dict[str, Any], now: dict[str, Any]) -> str:
    """The name of a run: those of its experiment files, and what the flags change in them.

    Args:
        files: the experiment files.
        without_flags: the configuration that they give.
        now: the configuration with the flags.
    """
    before = run_settings(without_flags)
    changes = [
        f"{_short(key)}={value}"
        for key, value in sorted(run_settings(now).items())
        if before.get(key) != value and key.rpartition(".")[2] not in NOT_IN_A_NAME
    ]
    name = re.sub(r"[^\w.,+=-]+", "-", ",".join(["+".join(path.stem for path in files), *changes]))
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What decides the weights and is not the same in two configurations, a sentence each."""
    theirs, ours = run_settings(then), run_settings(now)
    return [
        f"{key} was {theirs.get(key)}, now {ours.get(key)}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]


def same_settings(then: dict[str, Any], now: dict[str, Any], subcommand: str) -> bool:
    """Are these the same for a subcommand? What concerns a test alone counts in a test alone."""
    if subcommand == "test":
        return then == now
    flat = (flattened(config) for config in (then, now))
    before, after = ({key: value for key, value in one.items() if not _of_a_test(key)} for one in flat)
    return before == after


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: `{dotted key: value}`."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in flattened(item, f"{prefix}.{key}".strip(".")).items()}
    return {prefix: value}
