"""Which rows of a factor's table apply to which users: facts joined as a formula's evidence atoms ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datamodules.batches import Facts

from .factors import Domains, Factor
from .syntax import Atom


@dataclass(frozen=True)
class Grounding:
    """The groundings of a factor in which its evidence holds, by those they are about."""

    units: Tensor  # (rows, users of the formula) int64, each row one user or two
    columns: Tensor  # (groundings,) int64, rows of the factor's table; those of a row stand together
    offsets: Tensor  # (rows,) int64, where the groundings of each row begin
    degrees: Tensor  # (groundings,) float, how true the evidence is; 1 for plain facts

    @property
    def counts(self) -> Tensor:
        """Groundings of each row, (rows,)."""
        return torch.diff(self.offsets, append=torch.tensor([len(self.columns)]))

    def sums(self, table: Tensor) -> Tensor:
        """Log potentials of every row, (rows, *states), from a table of (columns, *states)."""
        return WeightedSums.apply(table.reshape(len(table), -1), self).view(-1, *table.shape[1:])

    @cached_property
    def by_column(self) -> tuple[Tensor, Tensor, Tensor]:
        """Columns, rows and degrees of the groundings, sorted by column."""
        rows = torch.repeat_interleave(torch.arange(len(self.units)), self.counts)
        order = self.columns.argsort(stable=True)
        return self.columns[order], rows[order], self.degrees[order]


class WeightedSums(torch.autograd.Function):
    """Sums of a table's rows by degrees; backwards the same sums the other way round.

    The gradient that `embedding_bag` has of its own sorts all groundings in every step: that was a third of the step.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, grounding: Grounding) -> Tensor:
        ctx.grounding, ctx.num_columns = grounding, len(table)
        return weighted_sums(table, grounding.columns, grounding.offsets, grounding.degrees)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        columns, rows, degrees = ctx.grounding.by_column
        offsets = torch.searchsorted(columns, torch.arange(ctx.num_columns))
        return weighted_sums(gradient, rows, offsets, degrees), None


def weighted_sums(table: Tensor, rows: Tensor, offsets: Tensor, degrees: Tensor) -> Tensor:
    """The sum of these rows, times degrees, for each bag that begins at one of the offsets."""
    return functional.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=degrees.to(table))


def ground(factor: Factor, facts: Mapping[str, Facts], num_units: int, domains: Domains) -> Grounding:
    """Joins the facts that a factor's evidence asks for; a predicate without facts is false everywhere."""
    bound, degrees = {factor.units[0]: torch.arange(num_units)}, torch.ones(num_units)
    if factor.evidence:
        bound, degrees = bindings(factor.evidence[0], facts, domains)
        for atom in factor.evidence[1:]:
            bound, degrees = _join(bound, degrees, *bindings(atom, facts, domains))
    units = torch.stack([bound[name] for name in factor.units if name in bound], dim=1)  # (groundings, 1 or 2)
    if units.shape[1] == 2 and bool((units[:, 0] == units[:, 1]).any()):
        raise ValueError(
            f"a user is related to themselves by {', '.join(atom.predicate.name for atom in factor.evidence)}; "
            "drop such facts"
        )
    # One number for users and row of the table; entries with the same number add their degrees.
    num_columns = math.prod(factor.sizes)
    keys = torch.zeros(len(units), dtype=torch.int64)
    for column in units.unbind(1):
        keys = keys * num_units + column
    for name, size in zip(factor.columns, factor.sizes, strict=True):
        keys = keys * size + bound[name]
    keys, inverse = torch.unique(keys, return_inverse=True)
    degrees = torch.zeros(len(keys)).index_add_(0, inverse, degrees)
    people, counts = torch.unique_consecutive(keys // num_columns, return_counts=True)
    units = torch.stack([people // num_units, people % num_units][-units.shape[1] :], dim=1)
    return Grounding(units, keys % num_columns, counts.cumsum(0) - counts, degrees)


def bindings(atom: Atom, facts: Mapping[str, Facts], domains: Domains) -> tuple[dict[str, Tensor], Tensor]:
    """Values of an atom's variables for which it is true, each (facts,), and degrees, (facts,)."""
    name, types = atom.predicate.name, atom.predicate.types
    given = facts.get(name)
    if given is None:
        given = Facts(torch.zeros(0, len(types), dtype=torch.int64), torch.zeros(0))
    keep = torch.ones(len(given.arguments), dtype=torch.bool)
    bound: dict[str, Tensor] = {}
    for term, type, column in zip(atom.terms, types, given.arguments.unbind(1), strict=True):
        if not term.is_variable:
            keep &= column == list(domains[type]).index(term.name)
        elif term.name in bound:
            keep &= column == bound[term.name]
        else:
            bound[term.name] = column
    return {variable: column[keep] for variable, column in bound.items()}, given.degrees[keep]


def _join(
    left: dict[str, Tensor], left_degrees: Tensor, right: dict[str, Tensor], right_degrees: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """All combinations of two sets of bindings that agree on the variables they share."""
    shared = [name for name in right if name in left]
    if not shared:
        raise ValueError("evidence atoms of one formula must share a variable")
    keys = torch.zeros(len(left_degrees) + len(right_degrees), dtype=torch.int64)
    for column in (torch.cat([left[name], right[name]]) for name in shared):
        keys = keys * (int(column.max()) + 1 if len(column) else 1) + column  # one for each combination of values
    left_key, right_key = keys.split([len(left_degrees), len(right_degrees)])
    order = right_key.argsort(stable=True)
    ordered = right_key[order]
    first = torch.searchsorted(ordered, left_key)
    counts = torch.searchsorted(ordered, left_key, right=True) - first
    from_left = torch.repeat_interleave(torch.arange(len(left_key)), counts)
    within = torch.arange(len(from_left)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    from_right = order[first[from_left] + within]
    joined = {name: column[from_left] for name, column in left.items()}
    joined |= {name: column[from_right] for name, column in right.items() if name not in left}
    return joined, left_degrees[from_left] * right_degrees[from_right]
