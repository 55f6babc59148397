"""`ProfileNetwork`: learns the weights of a formula file, and infers profiles from chunks of a user's posts.

With k folds, k + 1 networks are learned side by side in one fit: network i has not seen the users of fold i, and the
last one has seen all users. A labelled user is judged, and given a profile, by the network that has not seen them
(cross-fitting), so that the profile of a labelled user is no better than any other; new people get the last network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from artefacts.ranges import AT_LEAST_0, require
from datamodules.batches import EvidenceBatch
from lightning_modules.markov_logic.grounding import Grounding
from lightning_modules.markov_logic.network import MarkovLogicNetwork
from lightning_modules.markov_logic.network_files import FORMULAS, Posteriors, load_weights, posteriors, read_formulas
from lightning_modules.markov_logic.propagation import BeliefPropagation
from lightning_modules.markov_logic.proximal import ProximalGradient
from lightning_modules.markov_logic.syntax import Formula

from .device_module import DeviceModule


class ProfileNetwork(DeviceModule):
    """A Markov logic network over profile attributes (Otsuka et al. 2024; the formulas are ours, theirs not stated).

    Args:
        formulas: a formula file, or several that are read one after the other; a test or prediction takes those of
            the learned network.
        l2: factor of half the sum of squared weights (not stated in the paper). A user counts one in the loss,
            however many chunks there are.
        l2_words: the same for the weights of words and n-grams, whose degrees are small.
        l1: factor of the sum of absolute weights of words and n-grams (not stated in the paper).
        tolerance: learning ends when the loss has fallen by less than this share in ten steps.
        propagation: how messages pass between users, where formulas link them.
    """

    written_by: ClassVar = {
        "fit": "callbacks.NetworkExport",
        "test": "callbacks.ProfileWriter",
        "predict": "callbacks.ProfileWriter",
    }
    precisions: ClassVar = ("32-true",)
    device_types: ClassVar = ("cpu",)

    def __init__(
        self,
        formulas: str | list[str],  # jsonargparse loses a list of paths where a second file overrides it
        l2: float = 0.1,
        l2_words: float = 0.02,
        l1: float = 0.0,
        tolerance: float = 1e-4,
        propagation: BeliefPropagation | None = None,
    ) -> None:
        super().__init__()
        self.formulas = [Path(path) for path in (formulas if isinstance(formulas, list) else [formulas])]
        self.l2 = l2
        self.l2_words = l2_words
        self.l1 = l1
        self.tolerance = tolerance
        require(vars(self), l2=AT_LEAST_0, l2_words=AT_LEAST_0, l1=AT_LEAST_0, tolerance=AT_LEAST_0)
        self.propagation = propagation or BeliefPropagation()
        self.network: MarkovLogicNetwork | None = None
        self.groundings: list[Grounding] | None = None
        self.losses: list[float] = []

    def configure_model(self) -> None:
        if self.network is not None:
            return
        data = self.trainer.datamodule
        fitting = self.trainer.state.fn == "fit"
        program = read_formulas(self.formulas if fitting else [data.network_directory / FORMULAS], data.predicates)
        self.network = MarkovLogicNetwork(program, data.domains, data.num_folds + 1, data.allowed)
        if data.chunks_per_batch and any(len(factor.units) > 1 for factor in self.network.factors):
            raise ValueError("formulas between users need all chunks in one batch: set data.chunks_per_batch=0")
        if not fitting:
            load_weights(self.network, data.network_directory)
        self.names = {attribute.predicate: attribute.name for attribute in data.language.attributes.values()}
        # Labels come for all attributes of the language, in its order.
        order = list(data.language.attributes)
        self.columns = [order.index(self.names[predicate]) for predicate in self.network.attributes]

    def configure_optimizers(self) -> ProximalGradient:
        network = self.network
        batch = self.trainer.datamodule.learning_batch
        self.groundings = network.ground(batch)
        curvatures = network.curvatures(self.groundings, batch.weights)
        groups = []
        for is_lexical, l1 in ((True, self.l1), (False, 0.0)):
            numbers = [n for n, f in enumerate(network.program.formulas) if is_lexical == has_words(f)]
            if numbers:
                metric = [curvatures[number] / 2 + self.l2_of(number) for number in numbers]
                groups.append({"params": [network.weights[number] for number in numbers], "metric": metric, "l1": l1})
        return ProximalGradient(groups)

    def l2_of(self, formula: int) -> float:
        """The L2 factor of a formula's weights."""
        return self.l2_words if has_words(self.network.program.formulas[formula]) else self.l2

    def training_step(self, batch: EvidenceBatch, batch_idx: int) -> Tensor:
        network = self.network
        potentials = network.potentials(self.groundings, len(batch.labels))
        labels = batch.labels[:, self.columns].repeat_interleave(network.num_learners, dim=0)
        learner = torch.arange(network.num_learners).repeat(len(batch.labels))
        labels = labels.masked_fill((learner == batch.learner.repeat_interleave(network.num_learners))[:, None], -1)
        weights = batch.weights.repeat_interleave(network.num_learners)
        nll = -(weights * network.log_likelihood(potentials, labels)).sum()
        loss = nll + sum(self.l2_of(number) / 2 * (weight**2).sum() for number, weight in enumerate(network.weights))
        self.log("train/nll", nll.detach() / (weights * (labels >= 0).any(dim=1)).sum(), prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs: dict[str, Any], batch: EvidenceBatch, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))
        if len(self.losses) > 10 and self.losses[-11] - self.losses[-1] < self.tolerance * abs(self.losses[-1]):
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        self.optimizers().optimizer.settle()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["losses"] = self.losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses = checkpoint["losses"]

    def test_step(self, batch: EvidenceBatch, batch_idx: int) -> Posteriors:
        return posteriors(self.network, batch, self.propagation, self.names)

    predict_step = test_step


def has_words(formula: Formula) -> bool:
    """Whether a formula is about words or n-grams."""
    return not {"word", "gram"}.isdisjoint(formula.types.values())
