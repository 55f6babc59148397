"""A learnt network: read from its directory, and asked about chunks of posts. Without Lightning, which a process that
only infers need not load.

In: what `ProfileNetwork.export` wrote, `EvidenceBatch`es. Out: posteriors of every chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from datamodules.batches import EvidenceBatch

from .network import MarkovLogicNetwork
from .propagation import BeliefPropagation
from .syntax import Program, parse

FORMULAS, WEIGHTS = "formulas.mln", "weights.safetensors"

Posteriors = dict[str, Tensor]
"""What is believed of the chunks of a batch: attribute → (chunks, values)."""


def load_network(
    directory: Path,
    predicates: Mapping[str, tuple[str, ...]],
    domains: Mapping[str, Sequence[str]],
    num_learners: int,
) -> MarkovLogicNetwork:
    """A learnt network with its weights.

    Args:
        directory: of the network.
        predicates: what the data offer: name → types of its arguments.
        domains: type → values, as when it was learnt.
        num_learners: sets of weights: one more than folds.

    Raises:
        FileNotFoundError: there are no formulas.
        ValueError: formulas or weights do not fit the data.
    """
    program = read_formulas([directory / FORMULAS])
    require_predicates(program, predicates)
    network = MarkovLogicNetwork(program, domains, num_learners)
    load_weights(network, directory)
    return network


def load_weights(network: MarkovLogicNetwork, directory: Path) -> None:
    """Takes over learnt weights; ValueError where they are of another shape."""
    from safetensors.torch import load_file

    state = load_file(directory / WEIGHTS)
    for number, weight in enumerate(network.weights):
        found = state.get(str(number))
        if found is None or found.shape != weight.shape:
            raise ValueError(
                f"{directory / WEIGHTS} has {None if found is None else tuple(found.shape)} for formula {number}, "
                f"expected {tuple(weight.shape)}; the language's YAML has changed since then: learn it anew"
            )
        weight.data = found


def posteriors(
    network: MarkovLogicNetwork,
    batch: EvidenceBatch,
    propagation: BeliefPropagation,
    names: Mapping[str, str],
) -> Posteriors:
    """Beliefs about every chunk, by the learner that has not seen its user.

    Where no formula links users, what comes out for a chunk is the same to the last digit whatever else is in the
    batch.

    Args:
        network: learnt.
        batch: evidence.
        propagation: how messages pass between users, where formulas link them.
        names: predicate → attribute.
    """
    potentials = network.potentials(network.ground(batch), len(batch.labels))
    beliefs = propagation.beliefs(potentials)
    rows = torch.arange(len(batch.labels)) * network.num_learners + batch.learner
    marginals = network.marginals([joint[rows] for joint in beliefs])
    return {names[own]: marginals[own] for own in network.attributes}


def read_formulas(paths: list[Path]) -> Program:
    """Formula files as one program; FileNotFoundError names the one that is not there."""
    program = None
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no formula file {path}")
        program = parse(path.read_text(encoding="utf-8"), str(path), program)
    if program is None:
        raise ValueError("model.formulas is empty: name a formula file, such as experiments/profiles/ja.mln")
    return program


def require_predicates(program: Program, offered: Mapping[str, tuple[str, ...]]) -> None:
    """Raises ValueError where a formula file declares what the data do not have, naming what they have."""
    for predicate in program.predicates.values():
        found = offered.get(predicate.name)
        if found is None or found != predicate.types:
            what = f"{predicate.name}({', '.join(predicate.types)})"
            known = "; ".join(f"{name}({', '.join(types)})" for name, types in offered.items())
            raise ValueError(f"{program.source}: the data have no {what}; they have {known}")
