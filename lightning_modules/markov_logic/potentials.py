"""Log potentials of a batch, and the operations on them that learning and inference share.

Shapes: n users times learners, a table of a component has one axis per attribute: (n, states, states, ...).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Side:
    """One user's end of a link: a component and the axes in it, 1 for its first attribute."""

    component: int
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Link:
    """A factor between two users, grounded."""

    left: Side
    right: Side
    left_unit: Tensor  # (edges,) int64
    right_unit: Tensor  # (edges,) int64
    table: Tensor  # (edges, left states, right states), log potentials; several attributes are flattened

    @property
    def mirrored(self) -> Link:
        """The same link with its ends exchanged."""
        return Link(self.right, self.left, self.right_unit, self.left_unit, self.table.mT)


@dataclass(frozen=True)
class Potentials:
    """Log potentials of a batch: a table for each component, and links between users."""

    joints: list[Tensor]
    links: list[Link]


def merge(links: Sequence[Link], num_units: int) -> list[Link]:
    """Merges all edges between the same attributes of two users into one.

    Two parallel edges would be a cycle, in which belief propagation counts everything twice.
    """
    groups: dict[tuple[Side, Side], list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    for link in links:
        is_first = link.left_unit < link.right_unit
        for keep, end in ((is_first, link), (~is_first, link.mirrored)):
            if keep.any():
                groups[end.left, end.right].append((end.left_unit[keep], end.right_unit[keep], end.table[keep]))
    merged = []
    for (left, right), parts in groups.items():
        left_unit, right_unit, table = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        pairs, index = torch.unique(left_unit * num_units + right_unit, return_inverse=True)
        sums = table.new_zeros(len(pairs), *table.shape[1:]).index_add(0, index, table)
        merged.append(Link(left, right, pairs // num_units, pairs % num_units, sums))
    return merged


def expand(table: Tensor, axes: Sequence[int], joint: Tensor) -> Tensor:
    """A table over some axes of a joint, (n or 1, *states), laid out so that it broadcasts over the joint."""
    order = sorted(range(len(axes)), key=lambda index: axes[index])
    shape = [1] * joint.dim()
    shape[0] = table.shape[0]
    for axis in axes:
        shape[axis] = joint.shape[axis]
    return table.permute(0, *(index + 1 for index in order)).reshape(shape)


def receive(joint: Tensor, side: Side, unit: Tensor, messages: Tensor) -> Tensor:
    """A joint with all messages, (edges, states), added to the users they are for, (edges,)."""
    sums = messages.new_zeros(len(joint), messages.shape[1]).index_add(0, unit, messages)
    return joint + expand(sums.view(-1, *(joint.shape[axis] for axis in side.axes)), side.axes, joint)


def absorb(tables: Sequence[Tensor]) -> list[Tensor]:
    """Fewer tables with the same sum, all laid out for one joint: each that fits into a larger one is added to it.

    Additions to a whole joint were most of a training step.
    """
    kept: list[Tensor] = []
    for table in sorted(tables, key=Tensor.numel, reverse=True):
        for index, larger in enumerate(kept):
            if all(size in (1, larger_size) for size, larger_size in zip(table.shape, larger.shape, strict=True)):
                kept[index] = larger + table
                break
        else:
            kept.append(table)
    return kept


def marginal(joint: Tensor, axes: Sequence[int]) -> Tensor:
    """Log sum over all other axes, (n, states of `axes` in their order, flattened)."""
    others = [axis for axis in range(1, joint.dim()) if axis not in axes]
    reduced = joint.logsumexp(dim=others) if others else joint
    remaining = [axis for axis in range(1, joint.dim()) if axis in axes]
    return reduced.permute(0, *(remaining.index(axis) + 1 for axis in axes)).flatten(1)


def log_sum(joint: Tensor) -> Tensor:
    """Log of the sum of exponentials over all states of each user, (n,)."""
    return joint.flatten(1).logsumexp(dim=1)
