"""What a run is called, and whether two configurations give the same weights.

A class declares what an argument of its own is to a run:

    not_in_run_name     it decides speed, memory or what is looked at, so that a test finds the run without it
    changes_on_resume   it decides memory, and a stopped run may resume with another; a finished one is another run
    only_in_test        a run is trained, named and predicted with the same whatever it is
"""

import hashlib
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from artefacts.layout import RUNS

TRAINER_KEYS_OF_A_RUN = (
    "accumulate_grad_batches",
    "gradient_clip_val",
    "limit_train_batches",
    "max_epochs",
    "max_steps",
    "overfit_batches",
    "precision",
)
WITH_FP32_WEIGHTS = ("32-true", "32", "16-mixed", "16", "bf16-mixed", "bf16", "None")
LONGEST_NAME = 120  # bytes of a name that is made here
LONGEST_OWN_NAME = 200  # bytes of --run; file systems take 255, with the suffixes of locks


def run_settings(config: dict[str, Any]) -> dict[str, Any]:
    """What decides the weights a run gives, flattened to `{dotted key: value}`; how it decodes does not."""
    trainer = {key: config["trainer"].get(key) for key in TRAINER_KEYS_OF_A_RUN}
    chosen = {"model": config.get("model"), "data": config.get("data"), "seed": config.get("seed_everything")}
    flat = flattened(_without({**chosen, "trainer": trainer}, "only_in_test"))
    return {key: value for key, value in flat.items() if ".decoding" not in key and not key.endswith("__path__")}


def _without(config: Any, *declarations: Literal["not_in_run_name", "changes_on_resume", "only_in_test"]) -> Any:
    """A configuration without the arguments that the classes in it declare as one of these."""
    if not isinstance(config, dict):
        return config
    kept = {key: _without(value, *declarations) for key, value in config.items()}
    if isinstance(kept.get("init_args"), dict):
        owner = class_at(kept.get("class_path"))
        declared = {name for declaration in declarations for name in getattr(owner, declaration, ())}
        kept["init_args"] = {name: value for name, value in kept["init_args"].items() if name not in declared}
    return kept


def class_at(path: str | None) -> type | None:
    """The class at a dotted path; None if there is none, as in the configuration of an earlier version."""
    module, _, name = (path or "").rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def _short(key: str) -> str:
    """The last part of a dotted key, and the one before where several settings are called so."""
    parts = key.replace(".init_args", "").split(".")
    return ".".join(parts[-2:]) if parts[-1] == "seed" else parts[-1]


def experiment_files(arguments: Sequence[str]) -> list[Path]:
    """The files of `--config`, from a subcommand's arguments: resolving a `${...}` drops them from what was parsed."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-c", type=Path, action="append", default=[])
    return parser.parse_known_args(arguments)[0].config


def follow_run_seed(config: Any) -> None:
    """Gives each argument `seed` of the model and the data that is left open (None) the seed of the run, in place."""
    seed = int(config.seed_everything or 0)

    def fill(settings: Any) -> None:
        for key, value in vars(settings).items():
            if key == "seed" and value is None:
                settings[key] = seed
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Namespace):
                    fill(part)

    fill(config.model)
    fill(config.data)


def run_name(files: Sequence[Path], without_flags: dict[str, Any], now: dict[str, Any]) -> str:
    """The name of a run: those of its experiment files, and what the flags change in the configuration they give."""
    before, after = (run_settings(_without(config, "not_in_run_name")) for config in (without_flags, now))
    for key in after:
        if key.endswith(".seed") and before.get(key) is None and after[key] == after["seed"]:
            after[key] = None  # it would have been the run's anyway
    changed = [(key, value) for key, value in sorted(after.items()) if before.get(key) != value]
    name = _joined(files, changed)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    # What is cut off is of the data, where a file of a whole corpus changes many settings.
    start = _joined(files, sorted(changed, key=lambda change: change[0].startswith("data.")))
    start = start.encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _joined(files: Sequence[Path], changed: Sequence[tuple[str, Any]]) -> str:
    parts = ["+".join(path.stem for path in files), *(f"{_short(key)}={value}" for key, value in changed)]
    return re.sub(r"[^\w.,+=-]+", "-", ",".join(parts))


def require_name(name: str) -> None:
    """ValueError unless `--run` names a directory below `runs/`, in which every command looks for runs."""
    parts = name.split("/")
    if not all(parts) or any(part.startswith(".") for part in parts):
        raise ValueError(
            f"--run is {name!r}; expected the name of a directory below {RUNS}/: no absolute path, no .. and no name "
            "that begins with a dot"
        )
    if max(len(part.encode()) for part in parts) > LONGEST_OWN_NAME:
        raise ValueError(f"--run {name[:20]!r}... is longer than {LONGEST_OWN_NAME} bytes; give a shorter name")


def differences(then: dict[str, Any], now: dict[str, Any], resumes: bool) -> list[str]:
    """What decides the weights and differs between two configurations, a sentence each.

    What only bounds memory or time is not among it, so that a run may move to another machine.
    """
    ignored = ("not_in_run_name", "changes_on_resume") if resumes else ("not_in_run_name",)
    theirs, ours = (run_settings(_without(config, *ignored)) for config in (then, now))
    for settings in (theirs, ours):
        if str(settings.get("trainer.precision")) in WITH_FP32_WEIGHTS:
            settings["trainer.precision"] = "fp32 weights"
    return [
        f"{key} was {theirs.get(key)}, now {ours.get(key)}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]


def same_settings(then: dict[str, Any], now: dict[str, Any], subcommand: str) -> bool:
    """Are these the same for a subcommand? An argument that is declared `only_in_test` counts in a test only."""
    if subcommand == "test":
        return then == now
    before, after = (flattened(_without(config, "only_in_test")) for config in (then, now))
    return before == after


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: `{dotted key: value}`."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in flattened(item, f"{prefix}.{key}".strip(".")).items()}
    return {prefix: value}
