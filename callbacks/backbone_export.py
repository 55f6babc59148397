"""Writes the trained backbone in Hugging Face's format when pre-training is done."""

from __future__ import annotations

from pathlib import Path

from lightning import Callback, Trainer

from lightning_modules.backbone import save_backbone
from lightning_modules.seq2seq import ProfileSeq2Seq


class BackboneExport(Callback):
    """At the end of a fit, writes `<run>/backbone/` for `init_from`, `AutoModelForSeq2SeqLM` and `AutoTokenizer`."""

    def on_fit_end(self, trainer: Trainer, pl_module: ProfileSeq2Seq) -> None:
        if trainer.interrupted or not trainer.is_global_zero:
            return
        data = trainer.datamodule
        directory = Path(trainer.default_root_dir) / "backbone"
        fingerprint = save_backbone(
            pl_module.model, data.tokenizer_directory, data.prompts.template, directory, steps=trainer.global_step
        )
        print(f"backbone {fingerprint} is in {directory}")
