"""`UserTuning`: one user per fit, with any PEFT method or with all weights, for the comparisons.

In: batches of one user. Out: the weights with the best validation loss, in `<run>/adapters/<user>/` as PEFT
writes them, or in `<run>/model/` after full fine-tuning. Not its job: many users at once (`user_lora.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from datamodules.batches import IGNORED, Seq2SeqBatch

from .adapter_files import adapter_directory
from .backbone import load_backbone
from .generation import Decoding
from .seq2seq import OptimizerFactory, ProfileSeq2Seq, SchedulerFactory

CARD = "card.json"


class UserTuning(ProfileSeq2Seq):
    """Tunes the backbone to one user; shares its steps with pre-training.

    Args:
        init_from: directory of the backbone.
        method: what `peft.get_peft_config` takes, for example `{peft_type: LORA, r: 12, use_dora: true,
            task_type: SEQ_2_SEQ_LM}`; None tunes all weights.
        optimizer: gets the parameters that are trained.
        lr_scheduler: gets the optimizer and the number of steps.
        tuned: directory to test and predict with; None is the run directory.
        decoding: how replies are generated.
    """

    def __init__(
        self,
        init_from: Path,
        method: dict[str, Any] | None = None,
        optimizer: OptimizerFactory | None = None,
        lr_scheduler: SchedulerFactory | None = None,
        tuned: Path | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(init_from=init_from, optimizer=optimizer, lr_scheduler=lr_scheduler, decoding=decoding)
        self.method = method
        self.tuned = tuned

    @property
    def user(self) -> str:
        """The one user of this run; ValueError where there are several."""
        users = self.trainer.datamodule.users
        if len(users) != 1:
            raise ValueError(
                f"UserTuning takes one user per fit, got {len(users)}; choose one with --data.users=<user>, "
                "or use UserLora for many at once"
            )
        return users[0]

    @property
    def directory(self) -> Path:
        """Where this user's weights are."""
        root = self.tuned or Path(self.trainer.default_root_dir)
        return root / "model" if self.method is None else adapter_directory(root / "adapters", self.user)

    def configure_model(self) -> None:
        if self.model is not None:
            return
        self.user  # noqa: B018 - fails early
        backbone = load_backbone(self.init_from)
        self.require_same_prompts(backbone, self.init_from)
        self.backbone_fingerprint = backbone.fingerprint
        if self.trainer.state.fn == "fit":
            self.model = self._wrapped(backbone.model)
        else:
            self.model = self._restored(backbone.model)

    def _wrapped(self, model: Any) -> Any:
        if self.method is None:
            return model.train()
        from peft import get_peft_config, get_peft_model

        from .stacked_lora import target_names

        config = get_peft_config(dict(self.method))
        config.base_model_name_or_path = str(self.init_from)
        if getattr(config, "target_modules", None):
            target_names(model, config.target_modules)  # raises where an entry matches nothing
        return get_peft_model(model, config).train()

    def _restored(self, model: Any) -> Any:
        if not (self.directory / CARD).is_file():
            raise FileNotFoundError(
                f"no tuned weights of {self.user!r} in {self.directory}; make them with: lightning fit --config "
                "<the same experiment> with the same --data.users"
            )
        card = json.loads((self.directory / CARD).read_text())
        if card["backbone"] != self.backbone_fingerprint:
            raise ValueError(
                f"{self.directory} was tuned from backbone {card['backbone']}, but model.init_from is backbone "
                f"{self.backbone_fingerprint}; use the one it was tuned from"
            )
        if self.method is None:
            return type(model).from_pretrained(self.directory, local_files_only=True)
        from peft import PeftModel

        return PeftModel.from_pretrained(model, str(self.directory))

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Tensor:
        # Through the wrapper's own forward, because some methods, such as prefix tuning, act nowhere else.
        nll, tokens = row_nll_of_wrapper(self.model, batch)
        self.log("train/loss", nll.detach().sum() / tokens.sum(), prog_bar=True)
        return nll.sum() / self.trainer.datamodule.label_tokens_per_batch(self.user)

    @torch.no_grad()
    def row_nll(self, batch: Seq2SeqBatch) -> tuple[Tensor, Tensor]:
        with torch.autocast(
            self.device.type, enabled=False
        ):  # 16-bit logits would make perplexity several per cent off
            return row_nll_of_wrapper(self.model, batch)

    def save(self, directory: Path, **card: Any) -> None:
        """Writes the weights as they are now, in Hugging Face's or PEFT's format, with a card; not atomic."""
        self.model.save_pretrained(directory)
        card = {"user": self.user, "backbone": self.backbone_fingerprint, "method": self.method, **card}
        (directory / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")


def row_nll_of_wrapper(model: Any, batch: Seq2SeqBatch) -> tuple[Tensor, Tensor]:
    """As `likelihood.row_nll`, through the model's own forward; differentiable."""
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)
    losses = cross_entropy(output.logits.float().transpose(1, 2), batch.labels, reduction="none")  # (b, t)
    return losses.sum(1), (batch.labels != IGNORED).sum(1)
