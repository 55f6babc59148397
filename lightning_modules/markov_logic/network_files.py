"""A learned network as a directory, and its posteriors of chunks of posts. Without Lightning, which a process that
only infers need not import.

    formulas.mln             the formula files
    weights.safetensors      weights of each formula, of all learners
    vocabulary.json          what the network knows: words, folds, settings of its evidence
    weights.tsv              the last learner's weights for people to read
    card.json                SHA-256 of these files
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from artefacts.described import described, require_described
from artefacts.files import replacing_directory, write_json
from artefacts.layout import CARD, NETWORK_WEIGHTS, VOCABULARY
from datamodules.batches import EvidenceBatch
from lightning_modules.backbones.files import load_tensors

from .network import MarkovLogicNetwork
from .parser import parse
from .propagation import BeliefPropagation
from .syntax import Program

FORMULAS = "formulas.mln"

Posteriors = dict[str, Tensor]
"""What is believed of the chunks of a batch: attribute → (chunks, values)."""


def save_network(network: MarkovLogicNetwork, formulas: Sequence[Path], vocabulary: str, directory: Path) -> None:
    """Writes a learned network with the formula files it was compiled from; an earlier one is replaced."""
    from safetensors.torch import save_file

    weights = [network.used_weights(number).detach().contiguous() for number in range(len(network.weights))]
    with replacing_directory(directory) as partial:
        texts = [path.read_text(encoding="utf-8") for path in formulas]
        (partial / FORMULAS).write_text("\n".join(texts), encoding="utf-8")
        save_file({str(number): weight for number, weight in enumerate(weights)}, partial / NETWORK_WEIGHTS)
        (partial / VOCABULARY).write_text(vocabulary, encoding="utf-8")
        (partial / "weights.tsv").write_text("".join(_readable(network, weights)), encoding="utf-8")
        write_json(partial / CARD, described(*(partial / name for name in (FORMULAS, NETWORK_WEIGHTS, VOCABULARY))))


def _readable(network: MarkovLogicNetwork, weights: Sequence[Tensor]) -> Iterator[str]:
    """The last learner's weights that are not zero, by formula and size: weight, formula, values of its variables."""
    for formula, weight in zip(network.program.formulas, weights, strict=True):
        values = [network.domains[formula.types[name]] for name in formula.weighted]
        last = weight[-1]
        order = last[last != 0].abs().argsort(descending=True, stable=True)
        for index in last.nonzero()[order].tolist():
            chosen = [choices[number] for choices, number in zip(values, index, strict=True)]
            yield "\t".join([f"{float(last[tuple(index)]):.4f}", formula.text, *chosen]) + "\n"


def read_formulas(paths: Sequence[Path], predicates: Mapping[str, tuple[str, ...]]) -> Program:
    """Formula files, one after the other, as one program over the data's predicates: name → types of its arguments.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: there is none, it is wrong, or it declares a predicate that the data do not have.
    """
    program = None
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no formula file {path}")
        program = parse(path.read_text(encoding="utf-8"), str(path), program)
    if program is None:
        raise ValueError("model.formulas is empty: name a formula file, such as experiments/profiles/ja.mln")
    for predicate in program.predicates.values():
        if predicates.get(predicate.name) != predicate.types:
            declared = f"{predicate.name}({', '.join(predicate.types)})"
            known = "; ".join(f"{name}({', '.join(types)})" for name, types in predicates.items())
            raise ValueError(f"{program.source}: the data have no {declared}; they have {known}")
    return program


def load_weights(network: MarkovLogicNetwork, directory: Path) -> None:
    """Takes over learned weights; raises ValueError if they have another shape."""
    path, mend = directory / NETWORK_WEIGHTS, f"delete {directory} and learn the network again"
    require_described(directory / CARD, mend)
    state = load_tensors(path, mend)
    for number, weight in enumerate(network.weights):
        saved = state.get(str(number))
        if saved is None or saved.shape != weight.shape:
            raise ValueError(
                f"{path} has {None if saved is None else tuple(saved.shape)} for formula {number}, expected "
                f"{tuple(weight.shape)}; the language's YAML has changed since then: relearn the network"
            )
        weight.data = saved


def posteriors(
    network: MarkovLogicNetwork, batch: EvidenceBatch, propagation: BeliefPropagation, names: Mapping[str, str]
) -> Posteriors:
    """Beliefs about every chunk, by the learner that has not seen its user; `names` are predicate → attribute.

    Where no formula links users, the result for a chunk is the same to the last digit whatever else is in the batch.
    """
    potentials = network.potentials(network.ground(batch), len(batch.labels))
    beliefs = propagation.beliefs(potentials)
    rows = torch.arange(len(batch.labels)) * network.num_learners + batch.learner
    marginals = network.marginals([joint[rows] for joint in beliefs])
    return {names[own]: marginals[own] for own in network.attributes}
