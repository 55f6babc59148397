"""Loopy belief propagation between users: sum-product, damped, all messages of a round at once.

What concerns one user is exact already, so only the links carry messages; on a graph without cycles the beliefs are
the true marginals.

Shapes: n users, e edges of a link, (e, states) messages.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from .potentials import Potentials, Side, marginal, receive


@dataclass(frozen=True)
class BeliefPropagation:
    """How messages are passed (not stated in the paper).

    Args:
        max_rounds: rounds after which it ends, converged or not.
        damping: share of the old message that is kept.
        tolerance: largest change of a log message at which it ends.
    """

    max_rounds: int = 100
    damping: float = 0.3
    tolerance: float = 1e-4

    def beliefs(self, potentials: Potentials) -> list[Tensor]:
        """Log beliefs, one table for each component as in `potentials.joints`, not normalised."""
        links = potentials.links
        if not links:
            return potentials.joints
        to_left = [link.table.new_zeros(link.table.shape[:2]) for link in links]
        to_right = [link.table.new_zeros(link.table.shape[0], link.table.shape[2]) for link in links]
        for _ in range(self.max_rounds):
            joints = _collect(potentials, to_left, to_right)
            change = 0.0
            for number, link in enumerate(links):
                from_left = _cavity(joints, link.left, link.left_unit, to_left[number])
                from_right = _cavity(joints, link.right, link.right_unit, to_right[number])
                new_right = _normal((link.table + from_left[:, :, None]).logsumexp(dim=1))
                new_left = _normal((link.table + from_right[:, None, :]).logsumexp(dim=2))
                for messages, new in ((to_right, new_right), (to_left, new_left)):
                    moved = messages[number].lerp(new, 1 - self.damping)
                    change = max(change, float((moved - messages[number]).abs().max()))
                    messages[number] = moved
            if change < self.tolerance:
                break
        else:
            warnings.warn(
                f"belief propagation has not converged after {self.max_rounds} rounds: a message still changes by "
                f"{change:.2g}; raise damping or max_rounds",
                stacklevel=2,
            )
        return _collect(potentials, to_left, to_right)


def _collect(potentials: Potentials, to_left: list[Tensor], to_right: list[Tensor]) -> list[Tensor]:
    """Every user's joint with all messages that reach them."""
    joints = list(potentials.joints)
    for link, left, right in zip(potentials.links, to_left, to_right, strict=True):
        for side, unit, messages in ((link.left, link.left_unit, left), (link.right, link.right_unit, right)):
            joints[side.component] = receive(joints[side.component], side, unit, messages)
    return joints


def _cavity(joints: list[Tensor], side: Side, unit: Tensor, incoming: Tensor) -> Tensor:
    """What the users at one end of a link believe apart from what the link itself said, (e, states)."""
    return marginal(joints[side.component], side.axes)[unit] - incoming


def _normal(messages: Tensor) -> Tensor:
    return messages - torch.logsumexp(messages, dim=1, keepdim=True)
