"""Shows at each validation what the model says to a few fixed contexts, on the console and in the logger."""

from __future__ import annotations

from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import WandbLogger

from artefacts.ranges import AT_LEAST_0, require
from artefacts.sample_replies import sample_lines
from datamodules.batches import IGNORED, Seq2SeqBatch
from lightning_modules.backbones.generation import generate
from lightning_modules.reply_module import ReplyModule


class SampleReplies(Callback):
    """Replies to the first reply pairs of the validation data.

    The contexts are what real people wrote. They go to the console, and to a W&B logger only when its mode is
    not online, or when `share` allows it.

    Args:
        num_samples: contexts shown.
        share: also send them to an online W&B run.
    """

    def __init__(self, num_samples: int = 3, share: bool = False) -> None:
        self.num_samples = num_samples
        self.share = share
        require(vars(self), num_samples=AT_LEAST_0)
        self.rows: list[list[str]] = []

    def on_validation_start(self, trainer: Trainer, pl_module: ReplyModule) -> None:
        self.rows = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: ReplyModule, outputs: None, batch: Seq2SeqBatch, batch_idx: int, *rest: Any
    ) -> None:
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        prompts = trainer.datamodule.prompts
        if not hasattr(pl_module, "lora"):  # with adapters the rows of a batch belong together
            batch = Seq2SeqBatch(*(field[: self.num_samples] for field in batch))
        with trainer.precision_plugin.forward_context():
            candidates = generate(pl_module.model, batch, pl_module.decoding)
        for row in range(min(self.num_samples, len(batch.pair_id))):
            turns = prompts.turns(batch.input_ids[row].tolist())
            labels = batch.labels[row]
            self.rows.append(
                [
                    " / ".join(text for _, text in turns),
                    prompts.tokenizer.decode(labels[labels != IGNORED].tolist()),
                    prompts.tokenizer.decode(candidates[row, 0].tolist()),
                ]
            )

    def on_validation_end(self, trainer: Trainer, pl_module: ReplyModule) -> None:
        for context, reference, reply in self.rows:
            print(sample_lines(context[-100:], reference[:100], reply[:100]))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.rows and (self.share or logger.experiment.settings._offline):
                logger.log_text("replies", columns=["context", "said", "model"], data=self.rows)
