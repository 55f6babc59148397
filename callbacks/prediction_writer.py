"""Writes predictions as JSONL, a line a reply pair (`artefacts/predictions.py`), and their card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from artefacts.described import described
from artefacts.files import partial_of, publish, write_json
from artefacts.layout import PREDICTIONS, card_of
from artefacts.predictions import Prediction
from artefacts.run_card import weights_in
from datamodules.batches import IGNORED, Seq2SeqBatch
from datamodules.protocol import Replies
from lightning_modules.lora.adapter_files import retrieved_settings
from lightning_modules.reply_module import Predictions


class PredictionWriter(Callback):
    """Writes `<run>/predictions.jsonl` and beside it `predictions.card.json`, which says what they are of.

    Both are replaced when they are complete, so that an earlier card never stands beside other predictions.
    """

    def __init__(self) -> None:
        self.file: TextIO | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.path = Path(trainer.default_root_dir) / PREDICTIONS
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = partial_of(self.path).open("w", encoding="utf-8")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Predictions, batch: Seq2SeqBatch, *rest: Any
    ) -> None:
        data = trainer.datamodule
        decode = data.prompts.tokenizer.decode
        # Everything is copied from the device once.
        outputs = Predictions(*(part.tolist() if isinstance(part, Tensor) else part for part in outputs))
        inputs, labels = batch.input_ids.tolist(), batch.labels.tolist()
        for row, pair_id in enumerate(batch.pair_id.tolist()):
            if pair_id < 0:
                continue
            texts = [one if isinstance(one, str) else decode(one) for one in outputs.candidates[row]]
            prediction = Prediction(
                user=data.users[int(batch.user_index[row])],
                pair_id=pair_id,
                context=tuple(data.prompts.turns(inputs[row])),
                reference=decode([token for token in labels[row] if token != IGNORED]),
                candidates=tuple(texts),
                nll=None if outputs.nll is None else outputs.nll[row],
                tokens=None if outputs.tokens is None else outputs.tokens[row],
            )
            self.file.write(prediction.line())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.file.close()
        if trainer.fast_dev_run:
            partial_of(self.path).unlink()
            return
        partial = partial_of(self.path)
        card = {
            "system": type(pl_module).__name__,
            "split": trainer.datamodule.splits["test"].reader.content,
            "backbone": getattr(pl_module, "backbone_fingerprint", None),
            **getattr(pl_module, "card", {}),
            "decoding": vars(pl_module.decoding),
            **described(partial),
        }
        if directory := getattr(pl_module, "weights_directory", None):
            card["weights"] = weights_in(directory)
        if facts := prompt_facts(trainer.datamodule):
            card["data"] = facts
        card_of(self.path).unlink(missing_ok=True)
        publish(partial, self.path)
        write_json(card_of(self.path), card)
        print(f"predictions are in {self.path}")


def prompt_facts(data: Replies) -> dict[str, Any]:
    """What a predictions card says of what stood in front of the contexts."""
    facts: dict[str, Any] = retrieved_settings(data)
    if (style := data.prompts.template.style) != "none":
        facts["profiles"] = "a number for each user" if style == "user" else str(data.profiles or "declared")
        facts["control"] = asdict(data.control) if data.control else None
    return facts
