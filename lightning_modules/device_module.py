"""`DeviceModule`: says where a module can run; anything else is refused in one line before it begins."""

from __future__ import annotations

from typing import ClassVar

from lightning import LightningModule, Trainer


class DeviceModule(LightningModule):
    """A module that declares its precisions, its devices, and the commands in which several processes share the work.

    In 16 bits alone, sums of losses and the moments of an optimizer would lose most of their digits, and fp16 overflows
    where losses are summed; so a model may compute in bf16 (autocast), and all that is kept is in fp32.
    """

    precisions: ClassVar[tuple[str, ...]] = ("32-true", "bf16-mixed", "64-true")
    device_types: ClassVar[tuple[str, ...] | None] = None  # None: any
    shared_commands: ClassVar[tuple[str, ...]] = ()
    instead_of_sharing: ClassVar[str] = "set trainer.devices=1 and trainer.num_nodes=1"

    def require_devices(self, trainer: Trainer, command: str) -> None:
        """Raises ValueError if the trainer has a precision or devices on which this module cannot run a command."""
        problems, name = [], type(self).__name__
        if trainer.precision not in self.precisions:
            problems.append(f"{name} has no trainer.precision={trainer.precision}: set {' or '.join(self.precisions)}")
        device_type = trainer.strategy.root_device.type
        if self.device_types is not None and device_type not in self.device_types:
            problems.append(f"{name} cannot run on {device_type}: set trainer.accelerator={self.device_types[0]}")
        if trainer.world_size > 1 and command not in self.shared_commands:
            problems.append(
                f"{command} with {name} runs in one process, got {trainer.world_size}: {self.instead_of_sharing}"
            )
        if problems:
            raise ValueError("; ".join(problems))

    def setup(self, stage: str) -> None:
        self.require_devices(self.trainer, self.trainer.state.fn)
