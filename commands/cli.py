"""The one command: `lightning fit|validate|test|predict --config experiments/X.yaml`, and `prepare`, `table`, `sweep`.

In: YAML files and flags. Out: a run directory, `runs/<name>/`, with checkpoints, artefacts, logs and a run card. This
is where the rooms meet: it may import all of them.

The run's name is that of the experiment file, followed by what the flags change in it: `lora_r12`, and
`lora_r12,rank=8` for `--model.rank=8`; so neither an ablation nor a sweep writes over another run. `--run`
overrides it. The same command again continues a run that was stopped and leaves a finished one alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
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
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf.errors import OmegaConfBaseException

from commands.training.run_directory import CHECKPOINT, EarlierRun, one_at_a_time
from commands.training.run_name import experiment_files, run_name

OUR_PACKAGES = ("artefacts", "callbacks", "commands", "datamodules", "evaluation", "lightning_modules")
RUNS, TRIAL = Path("runs"), "fast_dev_run"
TOOLS = {
    "prepare": "commands.prepare.PrepareAndPreview",
    "table": "commands.table.Table",
    "profile_table": "commands.profile_table.ProfileTable",
    "conversation_table": "commands.conversation_table.ConversationTable",
    "human-eval export": "commands.human_eval.HumanEvalExport",
    "human-eval score": "commands.human_eval.HumanEvalScore",
    "sweep": "commands.sweep.Sweep",
    "forget": "commands.forget.Forget",
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
    "Besides the trainer's commands below: `lightning prepare` (corpus to token shards, and a preview of them), "
    "`lightning table` (predictions to a table), `lightning profile_table` (judgements of profiles to a table), "
    "`lightning conversation_table` (long conversations to a table), `lightning sweep` (every point of a W&B sweep "
    "file, here), `lightning forget` (takes one person out of prepared data and runs), "
    "`lightning human-eval export` (predictions to a page for annotators) and `lightning human-eval score` (their "
    "answers to a table)."
)


class UserDialogueCLI(LightningCLI):
    """LightningCLI with run directories, automatic resume and a run card."""

    def __init__(self, args: Sequence[str]) -> None:
        self.arguments = list(args)
        with ExitStack() as self.held:  # everything is run in here
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
        return self._plain(self.config)

    def _plain(self, config: Any) -> dict[str, Any]:
        parser = self._parser(self.subcommand)
        return json.loads(parser.dump(config[self.subcommand], format="json", skip_none=False))

    def _read_again(self, config: dict[str, Any]) -> dict[str, Any]:
        """An earlier configuration with today's defaults for what it lacks; as it is if it cannot be read today."""
        parser = self._parser(self.subcommand)
        exits, parser.exit_on_error = parser.exit_on_error, False
        try:
            return self._plain({self.subcommand: parser.parse_object(deepcopy(config))})
        except (ArgumentError, TypeError, ValueError):
            return config
        finally:
            parser.exit_on_error = exits

    def _run_name(self) -> str:
        files = experiment_files(self.arguments[self.arguments.index(self.subcommand) + 1 :])
        if not files:
            return "unnamed"
        only_files = [argument for path in files for argument in ("--config", str(path))]
        without_flags = self._plain(self.parser.parse_args([self.subcommand, *only_files]))
        return run_name(files, without_flags, self.settings)

    def _directory(self) -> Path:
        """Of the run. A sweep has its runs to itself; a trial run (fast_dev_run) never looks like a real one."""
        config = self.config[self.subcommand]
        if config.trainer.fast_dev_run and self.subcommand == "fit":
            return RUNS / TRIAL
        sweep = os.environ.get("WANDB_SWEEP_ID") or os.environ.get("LOCAL_SWEEP")  # of W&B, or of `lightning sweep`
        return (RUNS / f"sweep-{sweep}" if sweep else RUNS) / (config.run or self._run_name())

    def earlier_run(self) -> EarlierRun:
        """What is in the run's directory already, for settings as they will be."""
        config = self.config[self.subcommand]
        _prefer_fast_precision(config.trainer)
        config.trainer.default_root_dir = str(self.run_directory)
        _send_logs_to(self.run_directory, config.trainer.logger)
        return EarlierRun(self.run_directory, self.subcommand, self.settings, self._read_again)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self.run_directory = self._directory()
        print(f"run directory: {self.run_directory}", flush=True)  # read by commands/experiments/child_process.py
        self.held.enter_context(one_at_a_time(self.run_directory, self.subcommand))
        if self.run_directory == RUNS / TRIAL:
            shutil.rmtree(self.run_directory, ignore_errors=True)
        earlier = self.earlier_run()
        if config.trainer.fast_dev_run:
            return
        if self.subcommand == "fit":  # Lightning ends it behind the batch when it is told to
            checkpoint = earlier.checkpoint_of_a_fit()
            if checkpoint is not None and config.ckpt_path is None:
                print(f"continuing from {checkpoint}")
                config.ckpt_path = str(checkpoint)
        else:  # and goes on to the end with anything else, unless somebody has a handler
            earlier.leave_if_done()
            signal.signal(signal.SIGTERM, _end_terminated)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        from callbacks import ResumeCheckpoint, RunCard

        callbacks = list(self._get(self.config_init, "trainer").get("callbacks") or [])
        if self.subcommand == "fit":
            callbacks.append(ResumeCheckpoint(self.run_directory / CHECKPOINT, self.config.fit.checkpoint_every))
        callbacks.append(RunCard(self.settings))
        if self.config[self.subcommand].trainer.logger in (None, True):
            kwargs["logger"] = CSVLogger(self.run_directory, name="logs")
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)


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
        if isinstance(error, SIGTERMException):  # with which Lightning would end with 0, as if all was done
            _end_terminated(signal.SIGTERM, None)
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
    description = (tool.__doc__ or "").partition("\n\n")[0]  # the flags show the arguments
    parser = LightningArgumentParser(prog=f"lightning {name}", description=description, **TOOL_PARSER_SETTINGS)
    if "config" not in signature(tool).parameters:  # a sweep reads its file itself: the keys in it are W&B's
        parser.add_argument("--config", "-c", action="config", help="YAML file with these settings.")
    names = parser.add_class_arguments(tool)
    switches = {f"--{name}" for name in names if isinstance(parser.get_defaults().get(name), bool)}
    following = [*arguments, "--"][1:]
    given = [
        f"{argument}=true" if argument in switches and after.startswith("-") else argument  # a switch alone is on
        for argument, after in zip(arguments, following, strict=True)
    ]
    config = parser.instantiate_classes(parser.parse_args(given))
    return {name: config[name] for name in names}, tool


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
