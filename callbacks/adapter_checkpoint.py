"""Writes the adapters of finished users as PEFT directories."""

from __future__ import annotations

from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_modules.lora.adapter_files import save_adapter
from lightning_modules.user_lora import UserLora


class AdapterCheckpoint(Checkpoint):
    """After each round, writes finished users to `<run>/adapters/<user>/`.

    A `Checkpoint`, because Lightning calls those after the module's own hook, which says who is finished.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: UserLora) -> None:
        for adapter in pl_module.take_finished():
            save_adapter(pl_module.weights_directory, pl_module.lora_config, adapter)
