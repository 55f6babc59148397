"""Streams reply pairs for pre-training: in place, shuffled, in batches of about equal cost, resumable.

In: splits of a prepared corpus, by default those for pre-training. Out: `Seq2SeqBatch` batches.
Not its job: the prompt's wording (`prompts.py`), the files (`token_pairs.py`).

The order is a stateless permutation in two levels: each epoch permutes windows of row groups (what is in a
window was drawn when the shards were shuffled) and the rows of each window. How many batches a window gives
follows from the number of its rows alone, so the length of an epoch, which is that of every epoch, and any
position in it are computed without reading. Within a window rows of similar lengths share a batch; batches
are cut at equal shares of the window's tokens.

The position belongs to the DataModule, because loader states are lost or wrong in Lightning 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from datamodules.batches import Seq2SeqBatch, WholePass, collate
from datamodules.preparation.prepare import Preparation
from datamodules.preparation.tokenizer import tokenizer_fingerprint
from datamodules.profiles import ProfileControl
from datamodules.prompts import Prompts, PromptTemplate, Rendered, load_prompts
from datamodules.token_pairs import ShardReader
from datamodules.user_sets import UserSets

GROUPS_PER_WINDOW = 8
ROW_MULTIPLE = 8
"""Batches have a multiple of this many rows where they are large; see `batches.LENGTH_MULTIPLE`."""


@dataclass
class PairStream:
    """The batches of one split for one rank.

    Args:
        reader: the shards.
        prompts: turns pairs into inputs and labels.
        max_context_tokens: ids of context kept.
        tokens_per_batch: tokens in a batch that are neither padding nor profile, about.
        shuffle: another order each epoch; otherwise the order of the shards and of lengths.
        seed: of the permutation.
        rank: which of `world_size` processes this is; they get equally many batches and no pair twice.
        world_size: number of processes.
    """

    reader: ShardReader
    prompts: Prompts
    max_context_tokens: int
    tokens_per_batch: int
    shuffle: bool
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    @cached_property
    def _sample(self) -> Rendered:
        """The first row group: shards for pre-training are shuffled, so it stands for all of them."""
        return self.prompts.render(self.reader.read([0]), self.max_context_tokens)

    @cached_property
    def tokens_per_pair(self) -> float:
        """Mean cost of a pair."""
        return float(self._sample.costs.mean())

    @cached_property
    def label_tokens_per_batch(self) -> float:
        """Mean number of label tokens in a batch."""
        return self.tokens_per_batch * float(self._sample.targets.lengths.sum() / self._sample.costs.sum())

    def windows(self, epoch: int) -> list[list[int]]:
        """Row groups of each window of this epoch. Windows are about equal: a short last group is never alone."""
        groups = np.arange(len(self.reader.groups))
        num_windows = math.ceil(len(groups) / GROUPS_PER_WINDOW)
        windows = [part.tolist() for part in np.array_split(groups, max(1, num_windows))][:num_windows]
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(num_windows)
            windows = [windows[index] for index in order]
        return windows

    def num_batches(self, window: list[int]) -> int:
        """Batches of a window for each rank; each has at least one pair."""
        num_pairs = sum(self.reader.group_sizes[group] for group in window)
        if num_pairs < self.world_size:
            raise ValueError(f"{num_pairs} reply pairs cannot be shared by {self.world_size} processes; use fewer")
        wanted = math.ceil(num_pairs * self.tokens_per_pair / (self.tokens_per_batch * self.world_size))
        return min(wanted, num_pairs // self.world_size)

    def num_batches_in_epoch(self, epoch: int) -> int:
        """Batches of a whole epoch for each rank: equally many in every epoch."""
        return sum(self.num_batches(window) for window in self.windows(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Seq2SeqBatch]:
        """Yields this rank's batches of an epoch from number `start` on."""
        for number, groups in enumerate(self.windows(epoch)):
            count = self.num_batches(groups)
            if start >= count:
                start -= count
                continue
            window = self.prompts.render(self.reader.read(groups), self.max_context_tokens)
            rows_of_batches = self.cut(window, count * self.world_size, [self.seed, epoch, number])
            for rows in rows_of_batches[start * self.world_size + self.rank :: self.world_size]:
                yield collate(window.inputs, window.targets, rows, np.full(len(rows), -1), window.pair_id)
            start = 0

    def cut(self, window: Rendered, num_batches: int, seed: list[int]) -> list[np.ndarray]:
        """Cuts a window into exactly this many batches of about equal cost and little padding.

        Rows are sorted into strips by input length and within a strip by label length, so that both kinds of
        padding stay small; ties fall as the permutation says.
        """
        random = np.random.default_rng(seed)
        num_rows = len(window.pair_id)
        rows = random.permutation(num_rows) if self.shuffle else np.arange(num_rows)
        sources, labels = window.context_lengths, window.targets.lengths
        rows = rows[np.argsort(sources[rows], kind="stable")]
        num_strips = max(1, round(math.sqrt(num_batches)))
        strip = np.arange(num_rows) * num_strips // max(1, num_rows)
        # Every other strip runs backwards, so that a batch across a border still has rows of like length.
        rows = rows[np.lexsort((labels[rows] * np.where(strip % 2, -1, 1), strip))]
        cost = np.cumsum(window.costs[rows])
        borders = np.searchsorted(cost, cost[-1] * np.arange(1, num_batches) / num_batches)
        if num_rows >= 2 * ROW_MULTIPLE * num_batches:
            borders = np.round(borders / ROW_MULTIPLE).astype(int) * ROW_MULTIPLE
        # No batch is empty, also where a single pair costs more than a batch should.
        number = np.arange(1, num_batches)
        borders = np.clip(np.maximum.accumulate(borders - number) + number, number, num_rows - num_batches + number)
        batches = np.split(rows, borders)
        if self.shuffle:
            batches = [batches[index] for index in random.permutation(num_batches)]
        return batches


class _Position(IterableDataset):
    """Hands batches to Lightning and remembers how many it has handed out."""

    def __init__(self, stream: PairStream, epoch: int = 0, handed_out: int = 0) -> None:
        self.stream = stream
        self.epoch = epoch
        self.handed_out = handed_out

    def __len__(self) -> int:
        return self.stream.num_batches_in_epoch(self.epoch)  # the whole epoch, also after a resume

    def __iter__(self) -> Iterator[Seq2SeqBatch]:
        # Lightning makes iterators it never uses, so nothing may change before the first batch is asked for.
        if self.handed_out >= len(self):
            self.epoch, self.handed_out = self.epoch + 1, 0
        for batch in self.stream.batches(self.epoch, self.handed_out):
            self.handed_out += 1
            yield batch


class ReplyPairs(LightningDataModule):
    """The 1.3 billion reply pairs of the paper, or as many as there are.

    A test or prediction is about the target users' test turns: no backbone has seen these people, unless it is tuned
    on their own splits.

    Args:
        preparation: how the corpus is prepared; done once, and skipped when it is done.
        prompt: none, psp or ppp, and its wording.
        profiles: a `profiles.parquet`; None uses the one of the prepared corpus, if there is one.
        control: what is done to the profiles, to see what they are worth; None leaves them as they are.
        tokens_per_batch: tokens of a batch that are neither padding nor profile, inputs and labels together, on each
            device (not stated in the paper).
        max_context_tokens: ids of context kept, from the end (not stated in the paper).
        seed: of the order of the pairs.
        train_split: what is trained on; `users/train` for one model of all target users. Only `pretrain/train` is
            shuffled in its files: of another split, windows of 65,536 pairs come in an order of their own each.
        validation_split: what is validated on.
        test_train_turns: as in `UserSets`.
        test_general_pairs: as in `UserSets`.
    """

    def __init__(
        self,
        preparation: Preparation,
        prompt: PromptTemplate | None = None,
        profiles: Path | None = None,
        control: ProfileControl | None = None,
        tokens_per_batch: int = 4096,
        max_context_tokens: int = 64,
        seed: int = 0,
        train_split: str = "pretrain/train",
        validation_split: str = "pretrain/validation",
        test_train_turns: int = 0,
        test_general_pairs: int = 0,
    ) -> None:
        super().__init__()
        self.preparation = preparation
        self.prompt = prompt or PromptTemplate()
        self.profiles = profiles
        self.control = control
        self.tokens_per_batch = tokens_per_batch
        self.max_context_tokens = max_context_tokens
        self.seed = seed
        self.train_split = train_split
        self.validation_split = validation_split
        self.test_train_turns = test_train_turns
        self.test_general_pairs = test_general_pairs
        self.users: list[str] = []
        self._train: _Position | None = None
        self._start = {"epoch": 0, "handed_out": 0}

    @property
    def tokenizer_directory(self) -> Path:
        return self.preparation.output / "tokenizer"

    def prepare_data(self) -> None:
        self.preparation.run()

    def setup(self, stage: str) -> None:
        if stage in ("test", "predict"):
            self._set_up_target_users(stage)
            return
        self.prompts = load_prompts(self.prompt, self.preparation.output, self.profiles, self.control)
        reader = ShardReader(self.preparation.output, self.train_split)
        if stage == "fit" and not reader.groups:
            raise ValueError(
                f"{self.preparation.output} has no reply pairs in {self.train_split}; target users who take part in "
                "every dialogue leave none for pre-training: prepare it with a smaller splits.num_target_users"
            )
        if stage == "fit" and self.prompt.style != "none" and (self.trainer is None or self.trainer.is_global_zero):
            sample = reader.read([0])
            self.prompts.report_missing({*sample.speakers, *sample.partners}, "people in the first row group")

    def _set_up_target_users(self, stage: str) -> None:
        self.target_users = UserSets(
            self.preparation,
            prompt=self.prompt,
            profiles=self.profiles,
            control=self.control,
            max_context_tokens=self.max_context_tokens,
            min_train_turns=0,
            test_train_turns=self.test_train_turns,
            test_general_pairs=self.test_general_pairs,
        )
        self.target_users.setup(stage)
        self.prompts, self.users = self.target_users.prompts, self.target_users.users
        self.splits = self.target_users.splits

    def stream(self, split: str, shuffle: bool) -> PairStream:
        """The batches of a split for this process."""
        trainer = self.trainer
        return PairStream(
            reader=ShardReader(self.preparation.output, split),
            prompts=self.prompts,
            max_context_tokens=self.max_context_tokens,
            tokens_per_batch=self.tokens_per_batch,
            shuffle=shuffle,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    @cached_property
    def label_tokens_per_batch(self) -> float:
        """Mean number of label tokens in a training batch of one device."""
        return self.stream(self.train_split, shuffle=True).label_tokens_per_batch

    def train_dataloader(self) -> DataLoader:
        if self._train is not None:  # a loader that is made anew goes on where the last one stood
            self._start = {"epoch": self._train.epoch, "handed_out": self._train.handed_out}
        self._train = _Position(self.stream(self.train_split, shuffle=True), **self._start)
        return DataLoader(self._train, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        stream = self.stream(self.validation_split, shuffle=False)
        return DataLoader(WholePass(lambda: stream.batches(0), stream.num_batches_in_epoch(0)), batch_size=None)

    @property
    def test_kinds(self) -> list[str]:
        """As in `UserSets`."""
        return self.target_users.test_kinds

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        return self.target_users.test_dataloader()

    def predict_dataloader(self) -> DataLoader:
        return self.target_users.predict_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: batches of this epoch whose training step is finished."""
        if self._train is None:
            return {}
        batches = self._train.handed_out
        if self.trainer is not None:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
            batches -= progress.ready - progress.processed  # fetched, but its step was interrupted
        return {
            "epoch": self._train.epoch,
            "batches": batches,
            "world_size": self._train.stream.world_size,
            "tokenizer": self._train.stream.reader.fingerprint,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the position over; the next `train_dataloader` begins there.

        Raises:
            ValueError: the state is of a run on another number of processes or with another tokenizer.
        """
        if not state_dict:
            return
        ours = {
            "world_size": self.trainer.world_size if self.trainer else 1,
            "tokenizer": tokenizer_fingerprint(self.tokenizer_directory),
        }
        for key, value in ours.items():
            if state_dict[key] != value:
                raise ValueError(f"the checkpoint was made with {key} {state_dict[key]}, this run has {value}")
        self._train = None
        self._start = {"epoch": state_dict["epoch"], "handed_out": state_dict["batches"]}
