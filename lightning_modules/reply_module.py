"""`ReplyModule`: the validation, test and prediction that all dialogue models share."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor
from torchmetrics import SumMetric

from artefacts.run_card import weights_in
from artefacts.user_sums import write_user_sums
from datamodules.batches import Seq2SeqBatch
from datamodules.prompts.template import PromptTemplate
from lightning_modules.backbones.files import Backbone, load_backbone
from lightning_modules.backbones.generation import Decoding, generate
from lightning_modules.backbones.likelihood import row_nll
from lightning_modules.backbones.user_totals import UserTotals

from .device_module import DeviceModule

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


class Predictions(NamedTuple):
    """What `predict_step` returns for a batch; rows as in the batch.

    A system that writes texts, and has no likelihoods, returns the texts and None.
    """

    candidates: Tensor | list[list[str]]  # (rows, num_candidates, length) int64, or the candidates of each row
    nll: Tensor | None  # (rows,) float32, nats, of the reference
    tokens: Tensor | None  # (rows,) int64


class ReplyModule(DeviceModule):
    """Validation, test and prediction of anything that wraps a T5: perplexity from two sums, and generation.

    A subclass sets `model` in `configure_model`.
    """

    written_by: ClassVar[dict[str, str]] = {"predict": "callbacks.PredictionWriter"}
    """Command → callback that writes what the command is for; a run has it whatever `trainer.callbacks` says."""

    def __init__(self, decoding: Decoding | None) -> None:
        super().__init__()
        self.decoding = decoding or Decoding()
        self.model: T5ForConditionalGeneration | None = None
        self.backbone_fingerprint: str | None = None
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

    def add_up(self, nll: Tensor, tokens: Tensor) -> None:
        """Adds rows to the sums of a whole validation or test."""
        self.nll.update(nll.sum())
        self.tokens.update(tokens.sum())

    def validation_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        self.add_up(*self.row_nll(batch))

    def on_test_epoch_start(self) -> None:
        self.tested = UserTotals()

    def users_of(self, batch: Seq2SeqBatch) -> list[str]:
        """The users of a batch, in its order; each has the same number of rows."""
        names = self.trainer.datamodule.users
        return [names[index] for index, _ in groupby(batch.user_index.tolist())]

    def test_step(self, batch: Seq2SeqBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        kind = self.trainer.datamodule.test_kinds[dataloader_idx]
        nll, tokens = self.row_nll(batch)
        if kind == "general":  # the same for all users, as the model is
            users = self.trainer.datamodule.users
            self.tested.add(kind, users, nll.sum().expand(len(users)), tokens.sum().expand(len(users)))
            return
        self.tested.add(kind, self.users_of(batch), nll, tokens)
        if kind == "own":
            self.add_up(nll, tokens)

    def on_validation_epoch_end(self) -> None:
        self._log_perplexity("val")

    def on_test_epoch_end(self) -> None:
        self._log_perplexity("test")
        for kind in self.tested.nll.keys() - {"own"}:
            self.log(f"test/{kind}_perplexity", self.tested.perplexity(kind))
        self.write_test()

    def write_test(self, swaps: UserTotals | None = None) -> None:
        """Writes each user's sums, and a card that says what they are of, to the run directory."""
        data = self.trainer.datamodule
        if self.trainer.fast_dev_run or not self.trainer.is_global_zero:
            return
        card = {
            "system": type(self).__name__,
            "backbone": self.backbone_fingerprint,
            "split": data.splits["test"].reader.content,
            "train_turns": data.test_train_turns,
            "general_pairs": data.test_general_pairs,
        }
        if directory := getattr(self, "weights_directory", None):
            card["weights"] = weights_in(directory)
        run = Path(self.trainer.default_root_dir)
        write_user_sums(run, self.tested.sums(), None if swaps is None else swaps.sums(), card)

    def _log_perplexity(self, stage: str) -> None:
        loss = self.nll.compute() / self.tokens.compute()  # reduced over batches and ranks, divided once
        self.log_dict({f"{stage}/loss": loss, f"{stage}/perplexity": loss.exp()}, prog_bar=True)
        self.nll.reset()
        self.tokens.reset()

    def predict_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Predictions:
        nll, tokens = self.row_nll(batch)
        return Predictions(generate(self.model, batch, self.decoding), nll, tokens)

    def open_backbone(self, directory: Path) -> Backbone:
        """Loads the backbone that this module is based on."""
        backbone = load_backbone(directory)
        self.require_same_prompts(backbone, directory)
        self.backbone_fingerprint = backbone.fingerprint
        return backbone

    def require_same_prompts(self, backbone: Backbone, source: Path) -> None:
        """Raises ValueError if the data have another tokenizer or prompt than the backbone was trained with."""
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
    """What differs between two templates, for a person to read."""
    old, new = vars(then), vars(now)
    names = [name for name in old if name != "wording" and old[name] != new[name]]
    lines = [f"{name} was {old[name]!r}, now {new[name]!r}" for name in names]
    before, after = (template.wording or {} for template in (then, now))
    if changed := [name for name in {**before, **after} if before.get(name) != after.get(name)]:
        lines.append(f"the wording of {', '.join(changed)} has changed")
    return lines
