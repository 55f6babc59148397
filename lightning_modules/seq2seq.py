"""`ProfileSeq2Seq`: the encoder-decoder that learns to reply with a profile as prompt; and steps all modules share.

In: `Seq2SeqBatch`. Out: a backbone (written by `callbacks.BackboneExport`), perplexity, predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import SumMetric

from datamodules.batches import IGNORED, Seq2SeqBatch
from datamodules.prompts.template import PromptTemplate
from lightning_modules.backbones.generation import Decoding, generate
from lightning_modules.backbones.likelihood import reply_states, row_nll, summed_nll
from lightning_modules.backbones.t5 import Backbone, Size, load_backbone, new_model
from lightning_modules.backbones.user_totals import UserTotals, write_test

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

OptimizerFactory = Callable[[Iterable], Optimizer]
SchedulerFactory = Callable[[Optimizer, int], LRScheduler]


class Predictions(NamedTuple):
    """What `predict_step` returns for a batch; rows as in the batch.

    A system that writes texts, and has no likelihoods, returns the texts and None.
    """

    candidates: Tensor | list[list[str]]  # (rows, num_candidates, length) int64, or the candidates of each row
    nll: Tensor | None  # (rows,) float32, nats, of the reference
    tokens: Tensor | None  # (rows,) int64


class ReplyModule(LightningModule):
    """Validation, test and prediction of anything that wraps a T5: perplexity from two sums, and generation.

    A subclass sets `model` in `configure_model`.
    """

    def __init__(self, decoding: Decoding | None) -> None:
        super().__init__()
        self.decoding = decoding or Decoding()
        self.model: T5ForConditionalGeneration | None = None
        self.nll = SumMetric()
        self.tokens = SumMetric()
        self.tested = UserTotals()
        self.strict_loading = False

    @property
    def in_fit(self) -> bool:
        return self.trainer.state.fn == "fit"

    def row_nll(self, batch: Seq2SeqBatch) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood in nats and label tokens of every row, both (rows,)."""
        return row_nll(self.model, batch)

    def validation_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        nll, tokens = self.row_nll(batch)
        self.nll.update(nll.sum())
        self.tokens.update(tokens.sum())

    def on_test_epoch_start(self) -> None:
        self.tested = UserTotals()

    def kind_of(self, dataloader_idx: int) -> str:
        """What a test loader holds: `own`, `train` or `general` turns."""
        return self.trainer.datamodule.test_kinds[dataloader_idx]

    def users_of(self, batch: Seq2SeqBatch) -> list[str]:
        """The users of a batch, in its order; each has the same number of rows."""
        names = self.trainer.datamodule.users
        return [names[index] for index in batch.user_index.unique_consecutive().tolist()]

    def test_step(self, batch: Seq2SeqBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        kind = self.kind_of(dataloader_idx)
        nll, tokens = self.row_nll(batch)
        if kind == "general":  # nobody's in particular, and the model is everybody's
            for user in self.trainer.datamodule.users:
                self.tested.add(kind, [user], nll, tokens)
            return
        self.tested.add(kind, self.users_of(batch), nll, tokens)
        if kind == "own":
            self.nll.update(nll.sum())
            self.tokens.update(tokens.sum())

    def on_validation_epoch_end(self) -> None:
        self._log_perplexity("val")

    def on_test_epoch_end(self) -> None:
        self._log_perplexity("test")
        for kind in self.tested.nll.keys() - {"own"}:
            self.log(f"test/{kind}_perplexity", self.tested.perplexity(kind))
        self.write_test()

    def write_test(self, swaps: UserTotals | None = None) -> None:
        """Writes everyone's sums, and a card that says what they are of, to the run directory."""
        data = self.trainer.datamodule
        if self.trainer.fast_dev_run or not self.trainer.is_global_zero:
            return
        card = {
            "system": type(self).__name__,
            "backbone": getattr(self, "backbone_fingerprint", None),
            "split": data.splits["test"].reader.content,
            "train_turns": data.test_train_turns,
            "general_pairs": data.test_general_pairs,
        }
        write_test(Path(self.trainer.default_root_dir), self.tested, swaps, card)

    def _log_perplexity(self, stage: str) -> None:
        loss = self.nll.compute() / self.tokens.compute()  # reduced over batches and ranks, divided once
        self.log_dict({f"{stage}/loss": loss, f"{stage}/perplexity": loss.exp()}, prog_bar=True)
        self.nll.reset()
        self.tokens.reset()

    def predict_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Predictions:
        nll, tokens = self.row_nll(batch)
        return Predictions(generate(self.model, batch, self.decoding), nll, tokens)

    def require_same_prompts(self, backbone: Backbone, source: Path) -> None:
        """Raises ValueError where the data have another tokenizer or prompt than the backbone was trained with."""
        prompts = self.trainer.datamodule.prompts
        if prompts.tokenizer.to_str() != backbone.tokenizer.to_str():
            raise ValueError(
                f"the backbone in {source} has another tokenizer than the prepared data in "
                f"{self.trainer.datamodule.preparation.output}; train a backbone on these data, or prepare them as "
                "they were when it was trained"
            )
        if differing := differences(backbone.prompt, prompts.template):
            raise ValueError(
                f"the backbone in {source} was trained with another prompt: {'; '.join(differing)}; set data.prompt to "
                "the backbone's, or init_from to another backbone"
            )


def differences(then: PromptTemplate, now: PromptTemplate) -> list[str]:
    """What is not the same in two templates, for a person to read."""
    old, new = vars(then), vars(now)
    found = [
        f"{name} was {old[name]!r}, now {new[name]!r}" for name in old if name != "wording" and old[name] != new[name]
    ]
    before, after = (template.wording or {} for template in (then, now))
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return found + ([f"the wording of {', '.join(changed)} has changed"] if changed else [])


class ProfileSeq2Seq(ReplyModule):
    """Pre-trains a backbone on reply pairs (Otsuka et al. 2024; see README for what the paper does not state).

    Args:
        size: `base` is the paper's 222M parameters, `small` serves the quickstart, `tiny` the tests.
        init_from: directory of a backbone to go on from, instead of random weights; its size wins. A test or
            prediction without it takes the one that this run has trained.
        optimizer: gets the parameters. Adafactor with parameter-scaled steps, because plain AdamW trains T5
            badly (not stated in the paper).
        lr_scheduler: gets the optimizer and the number of steps; called after every step.
        dropout: of the new model. Below one pass over the data there is nothing to regularise (not stated).
        decoding: how replies are generated.
    """

    def __init__(
        self,
        size: Size = "small",
        init_from: Path | None = None,
        optimizer: OptimizerFactory | None = None,
        lr_scheduler: SchedulerFactory | None = None,
        dropout: float = 0.0,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(decoding)
        self.size = size
        self.init_from = init_from
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.dropout = dropout
        self.backbone_fingerprint: str | None = None

    def configure_model(self) -> None:
        if self.model is not None:
            return
        directory = self.source()
        if directory is None:
            tokenizer = self.trainer.datamodule.prompts.tokenizer
            self.model = new_model(self.size, tokenizer.get_vocab_size(), self.dropout)
        else:
            backbone = load_backbone(directory)
            self.require_same_prompts(backbone, directory)
            self.model, self.backbone_fingerprint = backbone.model, backbone.fingerprint
            self.model.train()

    def source(self) -> Path | None:
        """Directory of the backbone to begin with, or to test; None means random weights."""
        return self.init_from or (None if self.in_fit else self.trained())

    def trained(self) -> Path:
        """Directory of the backbone that this run has trained; ValueError where it has not."""
        directory = Path(self.trainer.default_root_dir) / "backbone"
        if not directory.is_dir():
            raise ValueError(
                f"nothing to {self.trainer.state.fn.value}: this run has trained no backbone ({directory}); train "
                "it with `lightning fit`, or give another one with --model.init_from=<directory>"
            )
        return directory

    def on_train_batch_start(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        # Dropout's random numbers depend on the step alone, so that a resumed run draws the same ones.
        torch.manual_seed(self.global_step * self.trainer.world_size + self.global_rank)

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Tensor:
        nll = summed_nll(self.model, reply_states(self.model, batch), batch.labels)
        self.log("train/loss", nll.detach().float() / (batch.labels != IGNORED).sum().clamp(min=1), prog_bar=True)
        # Divided by what batches have on average: rows of like length share a batch, and with each batch's own
        # count the tokens of short replies would weigh more than those of long ones.
        return nll / self.trainer.datamodule.label_tokens_per_batch

    def configure_optimizers(self) -> dict[str, Any]:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.optimizer is None:
            raise ValueError("training needs model.optimizer, for example class_path: torch.optim.Adafactor")
        optimizer = self.optimizer(parameters)
        if self.lr_scheduler is None:
            return {"optimizer": optimizer}
        scheduler = self.lr_scheduler(optimizer, self.num_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def num_steps(self) -> int:
        """Optimizer steps that the learning-rate schedule has to reach over."""
        num_steps = self.trainer.estimated_stepping_batches
        if num_steps in (-1, float("inf")):
            raise ValueError("the learning-rate schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        return int(num_steps)
