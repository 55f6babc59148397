"""`lightning fit|validate|test|predict --config experiments/X.yaml`: a run in `runs/<name>/`, with its run card.

The run's name is that of the experiment file, followed by what the flags change in it: `lora_r12`, and
`lora_r12,rank=8` for `--model.rank=8`; so neither an ablation nor a sweep overwrites another run. `--run` overrides
it. The same command again resumes a run that was stopped and leaves a finished one alone.
"""

import json
import os
import shutil
import signal
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import set_parsing_settings
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from artefacts.layout import CHECKPOINT, RUNS
from artefacts.ranges import AT_LEAST_0, Range, require
from commands.experiments.outcome import Report
from commands.parsing import ExplainedExit, with_names
from commands.training.run_directory import EarlierRun, one_at_a_time
from commands.training.run_name import experiment_files, follow_run_seed, require_name, run_name
from commands.training.writers import as_list, missing_writer

TRIAL = "fast_dev_run"
MLFLOW_DIRECTORY = "./mlruns"  # the default of its logger
USERS = ("--data.users", "--data.init_args.users")
PARSER_SETTINGS = {"parser_mode": "omegaconf+", "allow_abbrev": False}


def run_trainer(arguments: Sequence[str], report: Report) -> None:
    """Runs a command of the trainer; it fails when it is terminated, where Lightning would end as if all was done."""
    try:
        TrainerCLI(arguments, report)
    except SIGTERMException:
        _end_terminated(signal.SIGTERM, None)


class TrainerParser(ExplainedExit, LightningArgumentParser):
    """The parser of a command of the trainer."""


class TrainerCLI(LightningCLI):
    """LightningCLI with run directories, automatic resume and a run card; the report is told the directory."""

    def __init__(self, args: Sequence[str], report: Report | None = None) -> None:
        self.arguments = with_names(args, USERS)
        self.report = report or Report()
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        _let_loggers_choose_no_directory()
        with ExitStack() as self.held:  # everything is run in here
            super().__init__(
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,  # built too early: before an adapter is attached
                load_from_checkpoint_support=False,
                save_config_callback=None,  # the run card keeps the configuration
                seed_everything_default=0,
                parser_class=TrainerParser,
                parser_kwargs={**PARSER_SETTINGS, self.arguments[0]: dict(PARSER_SETTINGS)},
                args=self.arguments,
            )

    def subcommands(self) -> dict[str, set[str]]:
        """The subcommand that is run alone: the parsers of the others would take longer than the rest of `--help`."""
        return {self.arguments[0]: LightningCLI.subcommands()[self.arguments[0]]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str | None, default=None, help="Name of the run directory below runs/.")
        parser.add_argument(
            "--checkpoint_every", type=float, default=60.0, help="Seconds of training between checkpoints."
        )
        parser.add_argument(
            "--log_users", type=bool, default=False, help="Whether loggers get the ids in data.users, not their number."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        config = self.config[self.arguments[0]]
        require(config, seed_everything=Range(0, 2**32 - 1).or_none(), checkpoint_every=AT_LEAST_0)

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved configuration of the subcommand, as plain values."""
        return self._plain(self.config)

    def _plain(self, config: Any) -> dict[str, Any]:
        parser = self._parser(self.subcommand)
        return json.loads(parser.dump(config[self.subcommand], format="json", skip_unset=False))

    def _reread(self, config: dict[str, Any]) -> dict[str, Any]:
        """An earlier configuration with today's defaults for what it lacks; unchanged if it cannot be read today."""
        parser = self._parser(self.subcommand)
        exits, parser.exit_on_error = parser.exit_on_error, False
        try:
            read = parser.parse_object(deepcopy(config))
            follow_run_seed(read)
            return self._plain({self.subcommand: read})
        except (ArgumentError, TypeError, ValueError):
            return config
        finally:
            parser.exit_on_error = exits

    def _run_name(self) -> str:
        files = experiment_files(self.arguments[1:])
        if not files:
            return "unnamed"
        only_files = [argument for path in files for argument in ("--config", str(path))]
        without_flags = self._plain(self.parser.parse_args([self.subcommand, *only_files]))
        return run_name(files, without_flags, self.settings)

    def _directory(self) -> Path:
        """Of the run. A sweep has a directory of its own; a trial run (fast_dev_run) never looks like a real one."""
        config = self.config[self.subcommand]
        if config.trainer.fast_dev_run and self.subcommand == "fit":
            return RUNS / TRIAL
        sweep = os.environ.get("WANDB_SWEEP_ID") or os.environ.get("LOCAL_SWEEP")  # of W&B, or of `lightning sweep`
        if config.run is not None:
            require_name(config.run)
        return (RUNS / f"sweep-{sweep}" if sweep else RUNS) / (config.run or self._run_name())

    def earlier_run(self) -> EarlierRun:
        """What an earlier command left in the run directory, for the settings as they will be."""
        config = self.config[self.subcommand]
        _prefer_fast_precision(config.trainer)
        config.trainer.default_root_dir = str(self.run_directory)
        _send_logs_to(self.run_directory, config.trainer.logger)
        self._add_writer()
        follow_run_seed(config)
        return EarlierRun(self.run_directory, self.subcommand, self.settings, self._reread)

    def _add_writer(self) -> None:
        """Adds the callback that writes what the command is for, where the given ones lack it."""
        config = self.config[self.subcommand]
        given = [one.class_path for one in as_list(config.trainer.callbacks)]
        files = experiment_files(self.arguments[1:])
        if writer := missing_writer(config.model.class_path, self.subcommand, given, files):
            print(f"trainer.callbacks has no {writer['class_path']}, which {self.subcommand} needs; it is added")
            added = [*self.arguments, f"--trainer.callbacks+={json.dumps(writer)}"]
            config.trainer.callbacks = self.parser.parse_args(added)[self.subcommand].trainer.callbacks

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if self.subcommand == "fit":
            _require_training(config.trainer)
        self.run_directory = self._directory()
        _refuse_requeued(self.run_directory)
        print(f"run directory: {self.run_directory}", flush=True)
        self.report.begin(self.run_directory)
        self.held.enter_context(one_at_a_time(self.run_directory, self.subcommand))
        if self.run_directory == RUNS / TRIAL:
            shutil.rmtree(self.run_directory, ignore_errors=True)
        earlier = self.earlier_run()
        if config.trainer.fast_dev_run:
            return
        if self.subcommand == "fit":  # Lightning ends it after the batch when it is terminated
            checkpoint = earlier.checkpoint_of_a_fit()
            if checkpoint is not None and config.ckpt_path is None:
                print(f"continuing from {checkpoint}")
                config.ckpt_path = str(checkpoint)
        else:  # it would run anything else to the end
            earlier.leave_if_done()
            signal.signal(signal.SIGTERM, _end_terminated)

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        from lightning_modules.device_module import DeviceModule

        if isinstance(self.model, DeviceModule):  # here, before there is a card or another process
            self.model.require_devices(self.trainer, self.subcommand)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        from callbacks import ResumeCheckpoint, RunCard

        given = self._get(self.config_init, "trainer")
        callbacks = as_list(given.get("callbacks"))
        if self.subcommand == "fit":
            every, timer = self.config.fit.checkpoint_every, Timer(given.get("max_time"))
            callbacks.append(ResumeCheckpoint(self.run_directory / CHECKPOINT, every, timer))
        callbacks.append(RunCard(self.settings, self.config[self.subcommand].log_users))
        if given.get("logger") in (None, True):
            kwargs["logger"] = CSVLogger(self.run_directory, name="logs")
        if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
            kwargs["plugins"] = [*as_list(given.get("plugins")), SLURMEnvironment(auto_requeue=False)]
        return super().instantiate_trainer(callbacks=callbacks, max_time=None, **kwargs)


def _prefer_fast_precision(trainer: Any) -> None:
    """fp32 where bf16 matrix products are emulated: measured 50 times slower on a CPU with AVX2 only. GPUs have them
    from Ampere on.

    The run keeps its name, so that a backbone is found where the next experiment looks for it.
    """
    import torch

    if trainer.precision != "bf16-mixed":
        return
    device = "cpu" if trainer.accelerator == "cpu" else (torch.accelerator.current_accelerator() or "cpu")
    device_type = str(device).partition(":")[0]
    if device_type == "cpu":
        is_fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else:
        is_fast = device_type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if not is_fast:
        print(f"this {device_type} has no bf16 matrix products: precision is 32-true, not bf16-mixed")
        trainer.precision = "32-true"


def _require_training(trainer: Any) -> None:
    """Raises ValueError for a fit that would train nothing, and export what it began with."""
    limits = {name: trainer[name] for name in ("max_steps", "max_epochs", "limit_train_batches")}
    wrong = [f"trainer.{name} is {limit}" for name, limit in limits.items() if limit is not None and limit <= 0]
    if wrong := [text for text in wrong if not text.endswith("is -1")]:
        raise ValueError(f"nothing would be trained: {', '.join(wrong)}; give more than 0, or -1 for no limit")


def _refuse_requeued(run: Path) -> None:
    """Raises ValueError for checkpoints of Lightning's own requeueing, which it loads under SLURM whatever is asked."""
    if SLURMEnvironment.detect() and (found := sorted(run.glob("hpc_ckpt_*.ckpt"))):
        raise ValueError(
            f"{', '.join(map(str, found))}: Lightning would load the last of these over the weights of this run; "
            f"delete them (a fit resumes from {run / CHECKPOINT})"
        )


def _let_loggers_choose_no_directory() -> None:
    """Makes `save_dir` optional where Lightning requires it: it becomes the run directory, as for other loggers."""
    for logger in (CSVLogger, TensorBoardLogger):
        if signature(logger).parameters["save_dir"].default is Parameter.empty:
            logger.__init__.__defaults__ = (".", *logger.__init__.__defaults__)


def _send_logs_to(directory: Path, loggers: Any) -> None:
    """Points loggers that were given no directory of their own at the run directory."""
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        arguments = getattr(logger, "init_args", None)
        if arguments is None:
            continue
        if arguments.get("save_dir") in (".", None):
            arguments.save_dir = str(directory)
        elif arguments.save_dir == MLFLOW_DIRECTORY:
            arguments.save_dir = str(directory / MLFLOW_DIRECTORY)


def _end_terminated(number: int, _: Any) -> NoReturn:
    """Ends a command that gets a signal to end."""
    end = SystemExit(128 + number)
    end.add_note(f"ended by {signal.Signals(number).name}")
    raise end
