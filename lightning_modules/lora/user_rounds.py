"""Which users of a fit are in training, which wait, and how far each of them is: plain values for a checkpoint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightning_modules.backbones.user_totals import perplexity_of


@dataclass
class UserProgress:
    """How far one user's training is."""

    user: str
    num_steps: int  # of the whole training
    tokens_per_batch: float  # label tokens, on average
    epoch: int = 0
    step: int = 0
    best_loss: float | None = None  # validation, nats per token
    best_epoch: int = 0
    epochs_without_gain: int = 0

    def end_epoch(self, loss: float | None) -> bool:
        """Counts an epoch with this validation loss, nats per token, and says whether its weights are the best so far.

        None is for a user without validation turns, who is trained for all epochs and whose last weights count.
        """
        self.epoch += 1
        if loss is None or self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_epoch, self.epochs_without_gain = loss, self.epoch, 0
            return True
        self.epochs_without_gain += 1
        return False


class UserRounds:
    """Slots with one user in training each, and a queue of those who wait."""

    def __init__(self, waiting: Sequence[str], num_slots: int) -> None:
        self.waiting = list(waiting)
        self.slots: list[UserProgress | None] = [None] * num_slots
        self.best_losses: dict[str, float] = {}  # of all users so far, finished ones included
        self.failed: dict[str, str] = {}  # users whose training diverged, and how; they get no weights

    @property
    def active(self) -> dict[int, UserProgress]:
        """Slot → progress of the user in it."""
        return {slot: progress for slot, progress in enumerate(self.slots) if progress is not None}

    def slots_of(self, users: Sequence[str]) -> list[int]:
        """The slots of users in training."""
        by_user = {progress.user: slot for slot, progress in self.active.items()}
        return [by_user[user] for user in users]

    def fill(self, begin: Callable[[str], UserProgress]) -> list[int]:
        """Gives free slots to users who wait; returns these slots."""
        filled = [slot for slot, progress in enumerate(self.slots) if progress is None][: len(self.waiting)]
        for slot in filled:
            self.slots[slot] = begin(self.waiting.pop(0))
        return filled

    def end_epoch(self, progress: UserProgress, loss: float | None) -> bool:
        """As `UserProgress.end_epoch`; remembers the best loss also when the user is finished.

        A loss that is not finite is this user's failure, and nobody else's.
        """
        if loss is not None and not math.isfinite(loss):
            progress.epoch += 1
            self.fail(progress, f"the validation loss is {loss}")
            return False
        is_best = progress.end_epoch(loss)
        if is_best and loss is not None:
            self.best_losses[progress.user] = loss
        return is_best

    def fail(self, progress: UserProgress, reason: str) -> None:
        """Marks a user whose training has diverged."""
        self.best_losses.pop(progress.user, None)
        self.failed[progress.user] = f"{reason} after epoch {progress.epoch}"

    def state_dict(self, backbone: str | None) -> dict[str, Any]:
        """Plain values for a checkpoint, with the fingerprint of the backbone that all weights belong to."""
        slots = [asdict(progress) if progress is not None else None for progress in self.slots]
        state = {"waiting": self.waiting, "best_losses": self.best_losses, "failed": self.failed}
        return {"slots": slots, **state, "backbone": backbone}

    def load_state_dict(self, state: dict[str, Any], backbone: str | None) -> None:
        """Restores a checkpoint; raises ValueError if it was made on another backbone."""
        if state["backbone"] != backbone:
            raise ValueError(
                f"the checkpoint was made on backbone {state['backbone']}, init_from is {backbone}; "
                "delete the checkpoint or set init_from to that backbone"
            )
        self.slots = [UserProgress(**progress) if progress is not None else None for progress in state["slots"]]
        self.waiting = list(state["waiting"])
        self.best_losses = dict(state["best_losses"])
        self.failed = dict(state.get("failed", {}))  # a checkpoint of an earlier version has none


def seed_of(seed: int, name: str) -> int:
    """A seed for one user, or for anything else that has a name, independent of all others."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=7).digest(), "big")


def macro_perplexity(losses: dict[str, float]) -> float:
    """Mean over users of each user's perplexity."""
    return sum(map(perplexity_of, losses.values())) / len(losses)
