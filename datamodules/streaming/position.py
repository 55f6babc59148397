"""Where training stands in a stream of reply pairs, and the data set that advances it.

The position belongs to the DataModule, because loader states are lost or wrong in Lightning 2.6. It says by which cuts
the present epoch has been handed out so far, so that a run resumes exactly on another number of processes or with
batches of another size, as often as that changes: every pair comes once in the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lightning import Callback, LightningModule, Trainer
from torch.utils.data import IterableDataset

from datamodules.batches import Seq2SeqBatch
from datamodules.streaming.pair_stream import Cut, PairStream


@dataclass
class Position:
    """`done` batches of what the cuts `before` have left of an epoch."""

    epoch: int = 0
    before: list[Cut] = field(default_factory=list)
    done: int = 0

    def state(self, world_size: int, tokens_per_batch: int, interrupted: int) -> dict[str, object]:
        """Plain values for a checkpoint; `interrupted` are batches whose training step is not finished."""
        present = Cut(world_size, tokens_per_batch, self.done - interrupted)
        return {"epoch": self.epoch, "cuts": [tuple(cut) for cut in (*self.before, present)]}

    def resume(self, epoch: int, cuts: Sequence[Sequence[int]], world_size: int, tokens_per_batch: int) -> None:
        before, done = [Cut(*cut) for cut in cuts if Cut(*cut).batches], 0
        if before and before[-1][:2] == (world_size, tokens_per_batch):
            done = before.pop().batches
        self.epoch, self.before, self.done = epoch, before, done


@dataclass
class TrainBatches(IterableDataset):
    """Hands batches to Lightning and advances the position."""

    stream: PairStream
    position: Position

    def __len__(self) -> int:
        return self.stream.num_batches_in_epoch(self.position.epoch)  # a whole epoch, also after a resume

    def num_remaining(self) -> int:  # of this epoch
        position = self.position
        return self.stream.num_batches_in_epoch(position.epoch, position.before) - position.done

    def __iter__(self) -> Iterator[Seq2SeqBatch]:
        # Lightning makes iterators it never uses, so nothing may change before the first batch is asked for.
        position = self.position
        if not self.num_remaining():
            position.epoch, position.before, position.done = position.epoch + 1, [], 0
        for batch in self.stream.batches(position.epoch, position.done, position.before):
            position.done += 1
            yield batch


class RecountBatches(Callback):
    """Tells Lightning how much of the epoch is done, in batches of the present cut.

    Lightning ends an epoch by counting batches, and has restored the number that were done under another cut.
    """

    def __init__(self, batches: TrainBatches) -> None:
        self.batches = batches

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.num_training_batches != len(self.batches):
            return  # `limit_train_batches`: Lightning's epochs are not those of the stream
        current = trainer.fit_loop.epoch_loop.batch_progress.current
        change = len(self.batches) - self.batches.num_remaining() - current.processed
        for name in ("ready", "started", "processed", "completed"):
            setattr(current, name, getattr(current, name) + change)
