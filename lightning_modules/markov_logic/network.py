"""A Markov logic network as a differentiable model: weights, potentials, likelihoods, marginals.

Attributes that meet in a formula about one user form a component; its joint states are enumerated, so all that
concerns one user is exact. Formulas about two users link them: learning then uses the pseudo-likelihood (Besag 1975),
each user's joint given what is known of the others, and inference loopy belief propagation between users.

Several learners can share one network: they have weights of their own and the same evidence. Copy l of user i, which
learner l judges, is row i * learners + l.

Shapes: n users times learners, a table of a component has one axis per attribute: (n, states, states, ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from datamodules.batches import EvidenceBatch

from .factors import Compiler, Domains, Factor
from .grounding import Grounding, ground
from .potentials import Link, Potentials, Side, absorb, expand, log_sum, marginal, merge, receive
from .syntax import Program


class MarkovLogicNetwork(nn.Module):
    """Weights of formulas, and the distribution they define.

    Args:
        program: a formula file.
        values: type → values, for the types whose values come with the data; those in the file win.
        num_learners: sets of weights.
        allowed: type → (learners, values) bool, values that a learner may have weights for; others are zero.

    Raises:
        ValueError: a type has no values, or a formula cannot be compiled.
    """

    def __init__(
        self,
        program: Program,
        values: Mapping[str, Sequence[str]] | None = None,
        num_learners: int = 1,
        allowed: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.program = program
        self.domains: Domains = {**(values or {}), **program.domains}
        self._require_values()
        self.attributes = [predicate.name for predicate in program.attributes]
        self.values = {
            predicate.name: list(self.domains[predicate.types[1]]) if predicate.has_one_value else ["false", "true"]
            for predicate in program.attributes
        }
        self.num_learners = num_learners
        self.allowed = dict(allowed or {})
        self.weights = nn.ParameterList()  # of each formula (learners, *values of its variables with +)
        self.factors: list[Factor] = []
        for number, formula in enumerate(program.formulas):
            shape = [len(self.domains[formula.types[name]]) for name in formula.weighted]
            self.weights.append(torch.full([num_learners, *shape], formula.weight))
            self.factors += Compiler(program, number, self.domains).factors()
        self.components = self._components()
        self.positions = {
            attribute: (number, axis)
            for number, component in enumerate(self.components)
            for axis, attribute in enumerate(component, start=1)
        }

    def _require_values(self) -> None:
        program = self.program
        used = {type for formula in program.formulas for type in formula.types.values()} - {program.unit}
        used |= {predicate.types[1] for predicate in program.attributes if predicate.has_one_value}
        if missing := sorted(type for type in used if not self.domains.get(type)):
            raise ValueError(
                f"{program.source}: no values of {', '.join(missing)}; write {missing[0]} = {{...}}, or give data "
                "that have them"
            )

    def _components(self) -> list[tuple[str, ...]]:
        """Attributes that meet on one user's side of a factor belong together."""
        group = {attribute: {attribute} for attribute in self.attributes}
        for factor in self.factors:
            for side in (0, 1):
                members = [attribute for which, attribute in factor.scope if which == side]
                together = set().union(*(group[attribute] for attribute in members))
                group |= dict.fromkeys(together, together)
        # In the order of declaration, each group once.
        return list(dict.fromkeys(tuple(name for name in self.attributes if name in group[a]) for a in self.attributes))

    def ground(self, batch: EvidenceBatch) -> list[Grounding]:
        """What in the batch each factor applies to; does not depend on weights."""
        return [ground(factor, batch.facts, len(batch.labels), self.domains) for factor in self.factors]

    def used_weights(self, formula: int) -> Tensor:
        """A formula's weights, zero where a learner may not have any."""
        weights = self.weights[formula]
        types = self.program.formulas[formula].types
        for axis, name in enumerate(self.program.formulas[formula].weighted, start=1):
            if (allowed := self.allowed.get(types[name])) is not None:
                shape = [1] * weights.dim()
                shape[0], shape[axis] = allowed.shape
                weights = weights * allowed.view(shape).to(weights)
        return weights

    def potentials(self, groundings: Sequence[Grounding], num_units: int) -> Potentials:
        """Log potentials of the batch that was grounded, for every learner."""
        joints = [
            torch.zeros(num_units * self.num_learners, *(len(self.values[name]) for name in component))
            for component in self.components
        ]
        tables: list[list[Tensor]] = [[] for _ in joints]
        links = []
        for factor, grounding in zip(self.factors, groundings, strict=True):
            if not len(grounding.units):
                continue
            table = factor.table(self.used_weights(factor.formula))
            sums = grounding.sums(table)  # (rows, learners, *states)
            if factor.is_relational:
                links.append(self._link(factor, grounding, sums))
                continue
            side = self._side(factor, factor.scope[0][0])
            unit = grounding.units[:, min(factor.scope[0][0], grounding.units.shape[1] - 1)]
            everyone = sums.new_zeros(num_units, *sums.shape[1:]).index_add(0, unit, sums)
            tables[side.component].append(expand(everyone.flatten(0, 1), side.axes, joints[side.component]))
        joints = [sum(absorb(several), joint) for several, joint in zip(tables, joints, strict=True)]
        return Potentials(joints, merge(links, num_units * self.num_learners))

    def _side(self, factor: Factor, which: int) -> Side:
        positions = [self.positions[attribute] for side, attribute in factor.scope if side == which]
        return Side(positions[0][0], tuple(axis for _, axis in positions))

    def _link(self, factor: Factor, grounding: Grounding, table: Tensor) -> Link:
        order = [axis for which in (0, 1) for axis, (side, _) in enumerate(factor.scope, start=1) if side == which]
        num_left = sum(side == 0 for side, _ in factor.scope)
        table = table.flatten(0, 1).permute(0, *order)
        shape = table.shape
        table = table.reshape(shape[0], shape[1 : 1 + num_left].numel(), -1)
        copies = torch.arange(self.num_learners)
        left, right = ((unit[:, None] * self.num_learners + copies).flatten() for unit in grounding.units.unbind(1))
        return Link(self._side(factor, 0), self._side(factor, 1), left, right, table)

    def curvatures(self, groundings: Sequence[Grounding], weights: Tensor) -> list[Tensor]:
        """How much evidence each weight has: an estimate of the curvature of the loss along it, up to a factor.

        `weights`, (n,), are how much each user of the batch counts.
        """
        curvatures = [torch.zeros_like(weight) for weight in self.weights]
        for factor, grounding in zip(self.factors, groundings, strict=True):
            size = math.prod(factor.sizes)
            rows = torch.repeat_interleave(torch.arange(len(grounding.units)), grounding.counts)
            share = weights[grounding.units[rows, 0]] * grounding.degrees**2
            evidence = torch.zeros(size).index_add_(0, grounding.columns, share)
            probe = torch.ones_like(self.weights[factor.formula], requires_grad=True)
            table = replace(factor, coefficients=factor.coefficients.abs()).table(probe)
            spread = table.flatten(1).mean(dim=1)  # over learners and states
            curvatures[factor.formula] += torch.autograd.grad((spread * evidence).sum(), probe)[0]
        return curvatures

    def log_likelihood(self, potentials: Potentials, labels: Tensor) -> Tensor:
        """Log probability of what is known of each user, (n,), unknown attributes summed out.

        Exact where no formula links users; otherwise the log pseudo-likelihood, in which each user's neighbours have
        their known values, and a link to a user whose value is not known is dropped. Labels are (n, attributes) int64,
        -1 where unknown.
        """
        joints = list(potentials.joints)
        for link in chain.from_iterable((link, link.mirrored) for link in potentials.links):
            state, known = self._state(link.right, labels)
            edges = known[link.right_unit].nonzero().squeeze(1)
            given = link.table[edges, :, state[link.right_unit[edges]]]
            number = link.left.component
            joints[number] = receive(joints[number], link.left, link.left_unit[edges], given)
        total = 0.0
        for component, joint in zip(self.components, joints, strict=True):
            excluded = torch.zeros([1] * joint.dim(), dtype=torch.bool, device=joint.device)
            for axis, attribute in enumerate(component, start=1):
                label = labels[:, self.attributes.index(attribute)]
                states = torch.arange(joint.shape[axis], device=label.device)
                excluded = excluded | expand((label[:, None] >= 0) & (states != label[:, None]), (axis,), joint)
            total = total + log_sum(joint.masked_fill(excluded, -torch.inf)) - log_sum(joint)
        return total

    def _state(self, side: Side, labels: Tensor) -> tuple[Tensor, Tensor]:
        """State of a side in a link's flattened table by its labels, (n,), and whether all of it is known, (n,)."""
        component = self.components[side.component]
        state, known = torch.zeros_like(labels[:, 0]), torch.ones_like(labels[:, 0], dtype=torch.bool)
        for axis in side.axes:
            attribute = component[axis - 1]
            label = labels[:, self.attributes.index(attribute)]
            state = state * len(self.values[attribute]) + label.clamp(min=0)
            known &= label >= 0
        return state, known

    def marginals(self, beliefs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Attribute → probabilities, (n, values), from log potentials or beliefs of the components."""
        marginals = {}
        for component, joint in zip(self.components, beliefs, strict=True):
            for axis, attribute in enumerate(component, start=1):
                marginals[attribute] = marginal(joint, (axis,)).softmax(dim=1)
        return {attribute: marginals[attribute] for attribute in self.attributes}
