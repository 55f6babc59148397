"""`JointTuning`: one model for all target users together, the baseline that everybody's own weights must beat.

In: batches of the target users' own splits, from `datamodules.ReplyPairs` with `train_split: users/train`. Out: a
backbone like any other (written by `callbacks.BackboneExport`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightning_modules.backbones.files import Backbone
from lightning_modules.backbones.generation import Decoding

from .seq2seq import OptimizerFactory, ProfileSeq2Seq, SchedulerFactory


class JointTuning(ProfileSeq2Seq):
    """Goes on with all weights of a backbone; a test or prediction takes the one that this run has trained.

    A backbone without profiles may be tuned with any prompt, since what is saved has its own: with style `user` the
    model is told who speaks. The marker in front of it is learnt from its random first weights.

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
        """As elsewhere, but a fit may put a prompt where there was none."""
        if self.in_fit and backbone.prompt.style == "none":
            backbone = replace(backbone, prompt=self.trainer.datamodule.prompts.template)
        super().require_same_prompts(backbone, source)
