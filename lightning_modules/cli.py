"""The one command: `lightning fit|validate|test|predict --config experiments/X.yaml`, and `prepare`, `table`, `sweep`.

In: YAML files and flags. Out: a run directory, `runs/<name>/`, with checkpoints, artefacts, logs and a run card.
This is where the rooms meet: it may import all of them. Not its job: anything that is not about running.

The run's name is that of the experiment file, followed by what the flags change in it: `lora_r12`, and
`lora_r12,rank=8` for `--model.rank=8`; so neither an ablation nor a sweep writes over another run. `--run`
overrides it. The same command again continues a run that was stopped and leaves a finished one alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sys
import traceback
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

# Telemetry off, and runs stay on this machine unless WANDB_MODE=online or a sweep agent says otherwise.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # otherwise one for each reading and writing of weights
if "WANDB_SWEEP_ID" not in os.environ:
    os.environ.setdefault("WANDB_MODE", "offline")

from jsonargparse import set_parsing_settings
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from omegaconf.errors import OmegaConfBaseException

OUR_PACKAGES = ("callbacks", "datamodules", "evaluation", "lightning_modules")
RUNS = Path("runs")
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
WRITTEN = {  # by a command that is finished, one of them
    "test": ("test_users.csv", "judgements.parquet"),
    "predict": ("predictions.jsonl", "profiles.parquet", "conversations.jsonl"),
}
TOOLS = {
    "prepare": "datamodules.preview.PrepareAndPreview",
    "table": "evaluation.table.Table",
    "profile_table": "evaluation.profiles.ProfileTable",
    "conversation_table": "evaluation.conversation_table.ConversationTable",
    "human-eval export": "evaluation.human.export.HumanEvalExport",
    "human-eval score": "evaluation.human.score.HumanEvalScore",
    "sweep": "evaluation.sweep.Sweep",
    "forget": "lightning_modules.forget.Forget",
}
HARMLESS_WARNINGS = (
    ".*LightningCLI's args parameter is intended to run from within Python.*",
    ".*does not have many workers.*",  # collation is far faster than a training step
    ".*Your `IterableDataset` has `__len__` defined.*",  # true only of several workers, and there are none
    ".*your dataloader is not resumable.*",  # the data module is
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*LeafSpec.*",
)
PARSER_SETTINGS = {"parser_mode": "omegaconf+", "allow_abbrev": False}
# A tool's file is resolved as it is read: with `omegaconf+` a `${...}` in it leaves the experiments of a table unbuilt.
TOOL_PARSER_SETTINGS = {"parser_mode": "omegaconf", "allow_abbrev": False}
DESCRIPTION = (
    "User-specific dialogue models. Each command takes --config experiments/<name>.yaml and any flag over it. "
    "Besides the trainer's commands below: `lightning prepare` (corpus to token shards), `lightning table` "
    "(predictions to a table), `lightning profile_table` (judgements of profiles to a table), `lightning "
    "conversation_table` (long conversations to a table), `lightning sweep` (every point of a W&B sweep file, here), "
    "`lightning forget` (takes one person out of prepared data and runs), "
    "`lightning human-eval export` (predictions to a page for annotators) and `lightning human-eval score` (their "
    "answers to a table)."
)


class UserDialogueCLI(LightningCLI):
    """LightningCLI with run directories, automatic resume and a run card."""

    def __init__(self, args: Sequence[str]) -> None:
        self.arguments = list(args)
        super().__init__(
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,  # built too early: before an adapter is attached
            load_from_checkpoint_support=False,
            save_config_callback=None,  # the run card keeps the configuration
            seed_everything_default=0,
            parser_kwargs={"description": DESCRIPTION, **PARSER_SETTINGS, **_for_each_subcommand(PARSER_SETTINGS)},
            args=self.arguments,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str | None, default=None, help="Name of the run directory below runs/.")
        parser.add_argument(
            "--checkpoint_every", type=float, default=60.0, help="Seconds of training between checkpoints."
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved configuration of the subcommand, as plain values."""
        parser = self._parser(self.subcommand)
        return json.loads(parser.dump(self.config[self.subcommand], format="json", skip_none=False))

    @property
    def checkpoint(self) -> Path:
        """Where a fit that was stopped goes on."""
        return self.run_directory / "checkpoints" / "last.ckpt"

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        # A sweep has its runs to itself; a trial run (fast_dev_run) never looks like a real one.
        sweep = os.environ.get("WANDB_SWEEP_ID") or os.environ.get("LOCAL_SWEEP")  # of W&B, or of `lightning sweep`
        runs = RUNS / f"sweep-{sweep}" if sweep else RUNS
        self.run_directory = runs / (config.run or self._run_name())
        if config.trainer.fast_dev_run and self.subcommand == "fit":
            self.run_directory = RUNS / "fast_dev_run"
            shutil.rmtree(self.run_directory, ignore_errors=True)
        print(f"run directory: {self.run_directory}")  # read by evaluation/runs.py
        _prefer_fast_precision(config.trainer)
        config.trainer.default_root_dir = str(self.run_directory)
        _send_logs_to(self.run_directory, config.trainer.logger)
        if config.trainer.fast_dev_run:
            return
        if self.subcommand == "fit":  # Lightning ends it behind the batch when it is told to
            self._continue_or_leave()
        else:  # and goes on to the end with anything else, unless somebody has a handler
            self._leave_what_is_there()
            signal.signal(signal.SIGTERM, _end_terminated)

    def _run_name(self) -> str:
        files = self._files()
        if not files:
            return "unnamed"
        only_files = [argument for path in files for argument in ("--config", str(path))]
        without_flags = self.parser.parse_args([self.subcommand, *only_files])[self.subcommand]
        parser = self._parser(self.subcommand)
        before = run_settings(json.loads(parser.dump(without_flags, format="json", skip_none=False)))
        changes = [
            f"{_short(key)}={value}"
            for key, value in sorted(run_settings(self.settings).items())
            if before.get(key) != value and key.rpartition(".")[2] not in NOT_IN_A_NAME
        ]
        name = re.sub(r"[^\w.,+=-]+", "-", ",".join(["+".join(path.stem for path in files), *changes]))
        if len(name) <= LONGEST_NAME:
            return name
        return f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    def _files(self) -> list[Path]:
        """The experiment files, from the arguments: resolving a `${...}` drops them from what was parsed."""
        parser = ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config", "-c", type=Path, action="append", default=[])
        after = self.arguments.index(self.subcommand) + 1
        return parser.parse_known_args(self.arguments[after:])[0].config

    def _continue_or_leave(self) -> None:
        """Compares with the run card that is there: refuses other settings, leaves a finished run, resumes."""
        path = self.run_directory / "fit.card.json"
        if not path.is_file():
            return
        card = json.loads(path.read_text())
        artefacts = (
            "backbone/manifest.json",
            "adapters/*/card.json",
            "models/*/card.json",
            "network/weights.safetensors",
        )
        anything = any(any(self.run_directory.glob(pattern)) for pattern in artefacts)
        if card["status"] != "finished" and not self.checkpoint.is_file() and not anything:
            return  # it was stopped before there was anything to go on from
        theirs, ours = run_settings(card["config"]), run_settings(self.settings)
        if differing := [
            f"{key} was {theirs.get(key)}, now {ours.get(key)}"
            for key in sorted(theirs.keys() | ours.keys())
            if theirs.get(key) != ours.get(key)
        ]:
            raise ValueError(
                f"{self.run_directory} was trained with other settings ({'; '.join(differing)}); "
                "give another --run, or delete that directory"
            )
        if card["status"] == "finished":
            if self._backbone_now() not in (None, card["backbone"]):
                raise ValueError(
                    f"{self.run_directory} was trained on backbone {card['backbone']}, but model.init_from is backbone "
                    f"{self._backbone_now()} now; give another --run, or delete that directory"
                )
            if not anything:
                raise ValueError(
                    f"{self.run_directory} was finished, but what it made is gone; delete it to train anew"
                )
            self._refuse_other_data(card)
            print(f"{self.run_directory} is finished already and is used as it is; delete it to train anew")
            raise SystemExit(0)
        self._refuse_other_data(card)
        if self.checkpoint.is_file() and self.config.fit.ckpt_path is None:
            print(f"continuing from {self.checkpoint}")
            self.config.fit.ckpt_path = str(self.checkpoint)

    def _refuse_other_data(self, card: dict[str, Any]) -> None:
        if self._prepared_now() not in (None, card["prepared"]):
            raise ValueError(
                f"{self.run_directory} was trained on other prepared data than are there now; give another --run, or "
                "delete that directory"
            )
        if self._profiles_now() not in (None, card.get("profiles")):
            raise ValueError(
                f"{self.run_directory} was trained with other profiles than are in the file now; give another --run, "
                "or delete that directory"
            )

    def _leave_what_is_there(self) -> None:
        """Leaves a finished test or prediction alone if it is of the same settings, backbone and adapters."""
        path = self.run_directory / f"{self.subcommand}.card.json"
        if not path.is_file():
            return
        card = json.loads(path.read_text())
        if (
            card["status"] == "finished"
            and self._same_settings(card["config"])
            and self._backbone_now(self.run_directory / "backbone") in (None, card["backbone"])
            and self._prepared_now() in (None, card["prepared"])
            and self._profiles_now() == card.get("profiles")
            and any((self.run_directory / name).is_file() for name in WRITTEN.get(self.subcommand, (path.name,)))
            and all(file.stat().st_mtime < path.stat().st_mtime for file in self._made_from())
        ):
            print(f"{self.subcommand} of {self.run_directory} is done already; delete {path} to do it again")
            for name, value in card["metrics"].items():
                print(f"  {name}: {value:.4g}")
            raise SystemExit(0)

    def _same_settings(self, then: dict[str, Any]) -> bool:
        """Are these the settings of this command? What concerns a test alone counts in a test alone."""
        if self.subcommand == "test":
            return then == self.settings
        flat = (_flatten(config) for config in (then, self.settings))
        before, now = ({key: value for key, value in one.items() if not _of_a_test(key)} for one in flat)
        return before == now

    def _made_from(self) -> list[Path]:
        """What a test or prediction is made from and its card has no fingerprint of."""
        model, data = (self.settings[part]["init_args"] for part in ("model", "data"))
        adapters = Path(model.get("adapters") or self.run_directory / "adapters")
        found = [*adapters.glob("*/card.json"), *self.run_directory.glob("models/*/card.json")]
        if chat_model := (model.get("chat_model") or {}).get("init_args", {}).get("directory"):
            found += [*Path(chat_model).glob("*.safetensors"), Path(chat_model) / "config.json"]
        if data.get("conversations"):
            found += [Path(data["conversations"]), Path(data["network"] or self.run_directory) / "vocabulary.json"]
        return [path for path in found if path.is_file()]

    def _prepared_now(self) -> str | None:
        """Fingerprint of the prepared data, if they are there."""
        from callbacks.run_card import fingerprint_of

        preparation = self.settings["data"]["init_args"].get("preparation") or {}
        return fingerprint_of(Path(preparation.get("output") or ".") / "manifest.json")

    def _profiles_now(self) -> str | None:
        """Fingerprint of the profiles that the prompts are made from, where a file is named."""
        from callbacks.run_card import fingerprint_of_profiles

        return fingerprint_of_profiles(self.settings)

    def _backbone_now(self, first: Path | None = None) -> str | None:
        """Fingerprint of the backbone in a directory, or else of that which `init_from` names; None without one."""
        for directory in (first, self.settings["model"]["init_args"].get("init_from")):
            if directory and (manifest := Path(directory) / "manifest.json").is_file():
                return json.loads(manifest.read_text())["fingerprint"]
        return None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        from callbacks import ResumeCheckpoint, RunCard

        callbacks = list(self._get(self.config_init, "trainer").get("callbacks") or [])
        if self.subcommand == "fit":
            callbacks.append(ResumeCheckpoint(self.checkpoint, self.config.fit.checkpoint_every))
        callbacks.append(RunCard(self.settings))
        if self.config[self.subcommand].trainer.logger in (None, True):
            kwargs["logger"] = CSVLogger(self.run_directory, name="logs")
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)


def run_settings(config: dict[str, Any]) -> dict[str, Any]:
    """What decides the weights a run gives, flattened to `{dotted key: value}`; how it decodes does not."""
    trainer = {key: config["trainer"].get(key) for key in TRAINER_KEYS_OF_A_RUN}
    chosen = {"model": config.get("model"), "data": config.get("data"), "seed": config.get("seed_everything")}
    flat = _flatten({**chosen, "trainer": trainer})
    return {
        key: value
        for key, value in flat.items()
        if ".decoding" not in key and not key.endswith("__path__") and not _of_a_test(key)
    }


def _of_a_test(key: str) -> bool:
    return key.rpartition(".")[2] in OF_A_TEST


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flatten(item, f"{prefix}.{key}".strip(".")).items()}
    return {prefix: value}


def _short(key: str) -> str:
    """The last part of a dotted key, and the one before where several settings are called so."""
    parts = key.replace(".init_args", "").split(".")
    return ".".join(parts[-2:]) if parts[-1] == "seed" else parts[-1]


def _for_each_subcommand(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: dict(settings) for name in LightningCLI.subcommands()}


def _prefer_fast_precision(trainer: Any) -> None:
    """32-bit precision where 16-bit matrix products are emulated: measured 50 times slower on a CPU with AVX2 only.

    The run keeps its name, so that a backbone is found where the next experiment looks for it.
    """
    import torch

    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.accelerator.is_available())
    if trainer.precision == "bf16-mixed" and on_cpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        print("this CPU has no 16-bit matrix products: precision is 32-true, not bf16-mixed")
        trainer.precision = "32-true"


def _send_logs_to(directory: Path, loggers: Any) -> None:
    """Points loggers that were given no directory of their own at the run directory."""
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        arguments = getattr(logger, "init_args", None)
        if arguments is not None and arguments.get("save_dir") in (".", None):
            arguments.save_dir = str(directory)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; mistakes of the person at the keyboard end in one line, not in a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.argv[1:] = arguments  # what Lightning starts further processes with
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    for message in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message)
    try:
        if tool := _tool(arguments):
            run_tool(tool, arguments[len(tool.split()) :])
        else:
            UserDialogueCLI(arguments)
    except KeyboardInterrupt:
        _end_interrupted()
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning has caught it and ends with 1
            _end_interrupted()
        raise
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if unset := re.search(r"Environment variable '(\w+)' not found", str(error)):
            name = unset.group(1)
            sys.exit(f"error: {key} is ${{oc.env:{name}}}, but {name} is not set; set it: {name}=<value> lightning ...")
        sys.exit(f"error: {key}: {error}")
    except (ValueError, FileNotFoundError) as error:
        ours = _raised_by_us(error)
        if ours is None:
            raise
        sys.exit(f"error: {ours}")


def _end_terminated(number: int, _: Any) -> NoReturn:
    """Ends a command that is told to end by a signal."""
    raise SystemExit(128 + number)


def _end_interrupted() -> NoReturn:
    """Ends as a shell expects it after Ctrl-C, in one line; the same command goes on where this one was."""
    print("interrupted", file=sys.stderr)
    raise SystemExit(130) from None


def _tool(arguments: list[str]) -> str | None:
    """The tool that the first words name, one or two; None for a subcommand of the trainer."""
    for name in TOOLS:
        if name.split() == arguments[: len(name.split())]:
            return name
    if seconds := [name.split()[1] for name in TOOLS if arguments and name.startswith(f"{arguments[0]} ")]:
        got = arguments[1] if len(arguments) > 1 else "nothing"
        raise ValueError(f"`lightning {arguments[0]}` is followed by {' or '.join(seconds)}, got {got}")
    return None


def run_tool(name: str, arguments: Sequence[str]) -> None:
    """A subcommand besides the trainer's: a class whose arguments are the flags, and its `run`."""
    config, tool = read_tool(name, arguments)
    tool(**config).run()


def read_tool(name: str, arguments: Sequence[str]) -> tuple[dict[str, Any], Callable[..., Any]]:
    """The settings of such a subcommand, built, and its class."""
    module, _, class_name = TOOLS[name].rpartition(".")
    tool = getattr(import_module(module), class_name)
    parser = LightningArgumentParser(prog=f"lightning {name}", description=tool.__doc__, **TOOL_PARSER_SETTINGS)
    settings = signature(tool).parameters
    if "config" not in settings:  # a sweep reads its file itself: the keys in it are W&B's
        parser.add_argument("--config", "-c", action="config", help="YAML file with these settings.")
    parser.add_class_arguments(tool)
    switches = {f"--{name}" for name, setting in settings.items() if isinstance(setting.default, bool)}
    following = [*arguments[1:], "--"]
    given = [
        f"{argument}=true" if argument in switches and after.startswith("-") else argument  # a switch alone is on
        for argument, after in zip(arguments, following, strict=True)
    ]
    config = parser.instantiate_classes(parser.parse_args(given))
    return {name: config[name] for name in settings}, tool


def _raised_by_us(error: BaseException | None) -> BaseException | None:
    """This error, or what it was made of, if our own code raised it: then its message was written for a person."""
    root = Path(__file__).parents[1]
    while isinstance(error, ValueError | FileNotFoundError):
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if any(raised_in.is_relative_to(root / package) for package in OUR_PACKAGES):
            return error
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    main()
