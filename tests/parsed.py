"""A command of the trainer that parses and builds, and neither runs nor writes."""

from commands.training.trainer_cli import TrainerCLI


class Parsed(TrainerCLI):
    """What a command builds, as `model`, `datamodule` and `trainer`."""

    def before_instantiate_classes(self):
        self.run_directory = self._directory()

    def _run_subcommand(self, subcommand):
        pass
