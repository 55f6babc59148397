"""`JointTuning`: one model for all target users together, the baseline that each user's own weights must beat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightning_modules.backbones.files import Backbone
from lightning_modules.backbones.generation import Decoding

from .seq2seq import OptimizerFactory, ProfileSeq2Seq, SchedulerFactory


class JointTuning(ProfileSeq2Seq):
    """Tunes all weights of a backbone on the users' own splits (`datamodules.ReplyPairs` with `users/train`).

    A test or prediction takes the backbone that this run has trained. A backbone without profiles may be tuned with any
    prompt, since what is saved has its own: with style `user` the model reads who speaks, after a marker that it learns
    from random weights.

    Args:
        init_from: directory of the backbone to tune.
        optimizer: gets the parameters.
        lr_scheduler: gets the optimizer and the number of steps.
        decoding: how replies are generated.
    """

    def __init__(
        self,
        init_from: Path,
        optimizer: OptimizerFactory | None = None,
        lr_scheduler: SchedulerFactory | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(init_from=init_from, optimizer=optimizer, lr_scheduler=lr_scheduler, decoding=decoding)

    def source(self) -> Path:
        return self.init_from if self.in_fit else self.trained()

    def require_same_prompts(self, backbone: Backbone, source: Path) -> None:
        """A fit may add a prompt to a backbone without one."""
        if self.in_fit and backbone.prompt.style == "none":
            backbone = replace(backbone, prompt=self.trainer.datamodule.prompts.template)
        super().require_same_prompts(backbone, source)
