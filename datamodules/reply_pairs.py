"""Streams reply pairs for pre-training: in place, shuffled, in batches of about equal cost, resumable.

In: splits of prepared corpora, by default those for pre-training. Out: `Seq2SeqBatch` batches.

The position belongs to the DataModule, because loader states are lost or wrong in Lightning 2.6. It says by which
cuts the present epoch was handed out so far, so that a run goes on exactly on another number of processes, or with
batches of another size, as often as that is changed: every pair comes once in the epoch. Batches are made in the
process that trains: there are no workers whose number could matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset

from datamodules.batches import Seq2SeqBatch, WholePass
from datamodules.preparation.settings import Preparation
from datamodules.preparation.tokenizer import tokenizer_fingerprint
from datamodules.prompts.loading import load_prompts
from datamodules.prompts.profiles import ProfileControl
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.reader import ShardReader
from datamodules.streaming.pair_stream import Cut, PairStream, Source
from datamodules.user_sets import UserSets


@dataclass
class MixedCorpus:
    """Another corpus in a mixture.

    Args:
        preparation: how it is prepared; it has to have the tokenizer of the first corpus.
        passes: how often each of its pairs comes in an epoch of the mixture.
        profiles: a `profiles.parquet`; None uses the one of the prepared corpus, if there is one.
    """

    preparation: Preparation
    passes: int = 1
    profiles: Path | None = None


@dataclass
class Position:
    """Where training stands: `done` batches of what the cuts `before` have left of an epoch."""

    epoch: int = 0
    before: list[Cut] = field(default_factory=list)
    done: int = 0


class _TrainBatches(IterableDataset):
    """Hands batches to Lightning and moves the position on."""

    def __init__(self, stream: PairStream, position: Position) -> None:
        self.stream = stream
        self.position = position

    def __len__(self) -> int:
        return self.stream.num_batches_in_epoch(self.position.epoch)  # a whole epoch, also after a resume

    def num_left(self) -> int:
        """Batches left of this epoch."""
        here = self.position
        return self.stream.num_batches_in_epoch(here.epoch, here.before) - here.done

    def __iter__(self) -> Iterator[Seq2SeqBatch]:
        # Lightning makes iterators it never uses, so nothing may change before the first batch is asked for.
        here = self.position
        if not self.num_left():
            here.epoch, here.before, here.done = here.epoch + 1, [], 0
        for batch in self.stream.batches(here.epoch, here.done, here.before):
            here.done += 1
            yield batch


class _CountAnew(Callback):
    """Tells Lightning how much of the epoch is done, in batches of the present cut.

    Lightning ends an epoch by counting batches and has restored the number that were done under another cut.
    """

    def __init__(self, batches: _TrainBatches) -> None:
        self.batches = batches

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.num_training_batches != len(self.batches):
            return  # `limit_train_batches`: Lightning's epochs are not those of the stream
        current = trainer.fit_loop.epoch_loop.batch_progress.current
        change = len(self.batches) - self.batches.num_left() - current.processed
        for name in ("ready", "started", "processed", "completed"):
            setattr(current, name, getattr(current, name) + change)


class ReplyPairs(LightningDataModule):
    """The 1.3 billion reply pairs of the paper, or as many as there are.

    A test or prediction is about the target users' test turns: no backbone has seen these people, unless it is tuned
    on their own splits.

    Args:
        preparation: how the corpus is prepared; done once, and skipped when it is done.
        prompt: none, psp or ppp, and its wording.
        profiles: a `profiles.parquet`; None uses the one of the prepared corpus, if there is one.
        passes: how often each pair comes in an epoch; more than once only makes sense with `mixed_with`.
        mixed_with: other corpora to train on at the same time. Validation and test are of the first corpus alone.
        control: what is done to the profiles, to see what they are worth; None leaves them as they are.
        tokens_per_batch: tokens of a batch that are neither padding nor profile, inputs and labels together, on each
            device (not stated in the paper). It may change when a run is resumed.
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
        passes: int = 1,
        mixed_with: list[MixedCorpus] | None = None,
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
        self.passes = passes
        self.mixed_with = mixed_with or []
        self.tokens_per_batch = tokens_per_batch
        self.max_context_tokens = max_context_tokens
        self.seed = seed
        self.train_split = train_split
        self.validation_split = validation_split
        self.test_train_turns = test_train_turns
        self.test_general_pairs = test_general_pairs
        self.users: list[str] = []
        self.sources: list[Source] = []
        self._position = Position()

    @property
    def tokenizer_directory(self) -> Path:
        return self.preparation.output / "tokenizer"

    @property
    def corpora(self) -> list[MixedCorpus]:
        """All that is trained on, the first corpus among them."""
        return [MixedCorpus(self.preparation, self.passes, self.profiles), *self.mixed_with]

    def prepare_data(self) -> None:
        for corpus in self.corpora:
            corpus.preparation.run()

    def setup(self, stage: str) -> None:
        if stage in ("test", "predict"):
            self._set_up_target_users(stage)
            return
        if stage == "fit":
            self.sources = [self._source(corpus, self.train_split) for corpus in self.corpora]
            self._check_sources()
            self._batches = _TrainBatches(self._stream(self.sources, shuffle=True), self._position)
        self._validation = self._source(self.corpora[0], self.validation_split)
        self.prompts = self._validation.prompts

    def _source(self, corpus: MixedCorpus, split: str) -> Source:
        directory = corpus.preparation.output
        prompts = load_prompts(self.prompt, directory, corpus.profiles, self.control)
        return Source(ShardReader(directory, split), prompts, self.max_context_tokens, corpus.passes)

    def _check_sources(self) -> None:
        ours = self.sources[0].reader
        for source in self.sources:
            directory = source.reader.directory
            if source.passes < 1:
                raise ValueError(f"{directory} has passes {source.passes} in an epoch; give 1 or more, or leave it out")
            if source.reader.fingerprint != ours.fingerprint:
                raise ValueError(
                    f"{ours.directory} has tokenizer {ours.fingerprint} and {directory} has "
                    f"{source.reader.fingerprint}; corpora can be mixed when they share one: prepare the second with "
                    f"tokenizer: {ours.directory / 'tokenizer'}"
                )
            if not source.reader.groups:
                raise ValueError(
                    f"{directory} has no reply pairs in {self.train_split}; target users who take part in every "
                    "dialogue leave none for pre-training: prepare it with a smaller splits.num_target_users"
                )
            if self.prompt.style != "none" and (self.trainer is None or self.trainer.is_global_zero):
                sample = source.reader.read([0])
                people = {*sample.speakers, *sample.partners}
                source.prompts.report_missing(people, f"people in the first row group of {directory}")

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

    def _stream(self, sources: Sequence[Source], shuffle: bool) -> PairStream:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return PairStream(sources, self.tokens_per_batch, shuffle, self.seed, rank, world_size)

    @property
    def label_tokens_per_batch(self) -> float:
        """Mean number of label tokens in a training batch of one device."""
        return self._batches.stream.label_tokens_per_batch

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self._batches, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        stream = self._stream([self._validation], shuffle=False)
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
        """Where the stream stands, counting batches whose training step is finished, and what decides the order."""
        if not self.sources:
            return {}
        done = self._position.done
        if self.trainer is not None:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
            done -= progress.ready - progress.processed  # fetched, but its step was interrupted
        present = Cut(self._world_size, self.tokens_per_batch, done)
        return {
            "epoch": self._position.epoch,
            "cuts": [tuple(cut) for cut in (*self._position.before, present)],
            **self._order(),
        }

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def _order(self) -> dict[str, Any]:
        """What has to be the same when a run goes on."""
        return {
            "tokenizer": tokenizer_fingerprint(self.tokenizer_directory),
            "corpora": [(source.reader.content, source.passes) for source in self.sources],
            "seed": self.seed,
            "max_context_tokens": self.max_context_tokens,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the position over, whatever number of processes and size of batches it was reached with.

        Raises:
            ValueError: the state is of a run on other corpora or in another order.
        """
        if not state_dict or not self.sources:  # nothing is trained, or was
            return
        for key, value in self._order().items():
            if (theirs := state_dict.get(key)) != value:
                raise ValueError(f"the checkpoint was made with {key} {theirs}, this run has {value}")
        before, done = [Cut(*cut) for cut in state_dict["cuts"] if Cut(*cut).batches], 0
        if before and before[-1][:2] == (self._world_size, self.tokens_per_batch):
            done = before.pop().batches
        here = self._position
        here.epoch, here.before, here.done = state_dict["epoch"], before, done
        if before and self.trainer is not None:
            self.trainer.callbacks.append(_CountAnew(self._batches))
