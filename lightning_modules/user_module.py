"""`UserModule`: a fit that trains many users in rounds, each user as if alone."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from lightning_modules.lora.adapter_files import retrieved_settings, users_to_train
from lightning_modules.lora.user_rounds import UserProgress, UserRounds, macro_perplexity

from .reply_module import ReplyModule

TRAINER = {
    "max_epochs": -1,
    "max_steps": -1,
    "reload_dataloaders_every_n_epochs": 1,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 0,
}
"""What a trainer must be set to, so that its epochs are rounds and it ends when every user is finished."""


class UserModule(ReplyModule):
    """Rounds, early stopping and checkpoints of many users; how weights are trained is up to a subclass.

    A pass of the loader is one epoch of every user in training ("round"). After it each of them is judged by the loss
    on their own dialogues; a finished user leaves the slot to the next one, so memory is bounded for any number of
    users. A subclass has the attributes below, and calls `open_rounds` in `configure_model`.
    """

    shared_commands: ClassVar = ()
    instead_of_sharing: ClassVar = (
        "set trainer.devices=1; to use several, start a fit on each, with users of its own (--data.users, --run) and "
        "the same directory of weights (--model.adapters of UserLora, --model.tuned of UserTuning)"
    )

    max_epochs: int
    patience: int
    seed: int
    weights_directory: Path  # with one sub-directory per user

    def begin(self, slot: int, user: str) -> None:
        """Gives a slot the weights that this user's training begins with."""
        raise NotImplementedError

    def finish(self, slot: int, progress: UserProgress) -> Any:
        """What the callback that writes a finished user needs; the slot is free afterwards."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What decides a user's weights, besides the backbone and the user's turns."""
        data = self.trainer.datamodule
        return {
            "max_epochs": self.max_epochs,
            "patience": self.patience,
            "seed": self.seed,
            "rows_per_user": data.rows_per_user,
            "max_context_tokens": data.max_context_tokens,
            "data_seed": data.seed,
            **({} if data.history is None else {"history": asdict(data.history)}),
            **retrieved_settings(data),
        }

    def weights_card(self, progress: UserProgress) -> dict[str, Any]:
        """What the card of a user's weights says of them."""
        return {
            "backbone": self.backbone_fingerprint,
            "settings": self.settings(),
            "best_epoch": progress.best_epoch,
            "validation_loss": progress.best_loss,
        }

    def open_rounds(self, num_slots: int) -> None:
        """Lines up the users who have no weights yet; outside a fit, none of them."""
        users = []
        if self.in_fit:
            self._require_trainer()
            users = self.trainer.datamodule.users
            users = users_to_train(users, self.weights_directory, self.backbone_fingerprint, self.settings())
        self.rounds = UserRounds(users, min(num_slots, len(users)))
        self.just_finished: list[Any] = []

    def _require_trainer(self) -> None:
        wrong = [name for name, value in TRAINER.items() if getattr(self.trainer, name) != value]
        if wrong and not self.trainer.fast_dev_run:
            settings = ", ".join(f"trainer.{name}={TRAINER[name]}" for name in wrong)
            raise ValueError(
                f"{type(self).__name__} ends when every user is done: set {settings}; model.max_epochs is each user's"
            )

    def next_round(self) -> None:
        """Gives free slots to users who wait, and tells the data module who takes part in the next round."""
        for slot in self.rounds.fill(self._first_progress):
            self.begin(slot, self.rounds.slots[slot].user)
        active = self.rounds.active.values()
        self.trainer.datamodule.next_round({progress.user: progress.epoch for progress in active})

    def _first_progress(self, user: str) -> UserProgress:
        data = self.trainer.datamodule
        num_steps = self.max_epochs * math.ceil(data.num_train_batches(user) / self.trainer.accumulate_grad_batches)
        return UserProgress(user, num_steps, data.label_tokens_per_batch_of(user))

    def on_train_epoch_end(self) -> None:
        """Ends the round: a user who has had all epochs, or has not improved for `patience` epochs, is finished.

        So is a user who has failed, but without weights.
        """
        for slot, progress in self.rounds.active.items():
            is_finished = progress.epoch >= self.max_epochs or progress.epochs_without_gain >= self.patience
            if is_finished or progress.user in self.rounds.failed:
                finished = self.finish(slot, progress)
                if progress.user not in self.rounds.failed:  # which may be seen only now
                    self.just_finished.append(finished)
                self.rounds.slots[slot] = None
        if self.rounds.best_losses:
            self.log("val/best_macro_perplexity", macro_perplexity(self.rounds.best_losses))
        self.next_round()
        self.log("num_users_left", float(len(self.rounds.waiting) + len(self.rounds.active)))
        if not self.rounds.active:
            self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        """Raises ValueError if some users have failed; the weights of all others are written by now."""
        if failed := self.rounds.failed:
            listed = "; ".join(f"{user!r}: {reason}" for user, reason in failed.items())
            raise ValueError(
                f"{len(failed)} users have no weights, all others have: {listed}. The same command tries these users "
                "again; lower the learning rate in another --run, or leave them out of data.users"
            )

    def take_finished(self) -> list[Any]:
        """What `finish` gave since the last call, for the callback that writes it."""
        finished, self.just_finished = self.just_finished, []
        return finished

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["roster"] = self.rounds.state_dict(self.backbone_fingerprint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.rounds.load_state_dict(checkpoint["roster"], self.backbone_fingerprint)
