"""`ReplyPairs`: streams reply pairs for pre-training, shuffled in place, in batches of about equal cost, resumable.

Batches are formed in the process that trains: there are no workers whose number could matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from artefacts.layout import TOKENIZER
from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, require
from datamodules.batches import WholePass
from datamodules.preparation.run import prepare
from datamodules.preparation.settings import Preparation
from datamodules.preparation.tokenizer import tokenizer_fingerprint
from datamodules.prompts.loading import load_prompts
from datamodules.prompts.profiles import ProfileControl
from datamodules.prompts.rendering import Prompts
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.reader import ShardReader
from datamodules.streaming.pair_stream import PairStream, Source
from datamodules.streaming.position import Position, RecountBatches, TrainBatches
from datamodules.user_sets import UserSets
from datamodules.users.user_rows import UserSplit


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


class ReplyPairs(LightningDataModule):
    """The 1.3 billion reply pairs of the paper, or as many as a corpus has.

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
        seed: of the order of the pairs; None is the run's (`seed_everything`).
        train_split: what is trained on; `users/train` for one model of all target users. Only `pretrain/train` is
            shuffled in its files: of another split, windows of 65,536 pairs come in an order of their own each.
        validation_split: what is validated on.
        test_train_turns: as in `UserSets`.
        test_general_pairs: as in `UserSets`.
    """

    changes_on_resume: ClassVar = ("tokens_per_batch",)
    only_in_test: ClassVar = ("test_train_turns", "test_general_pairs")
    retrieved = None
    """Past replies are never in these prompts."""
    prompts: Prompts
    splits: dict[str, UserSplit]
    ranges: ClassVar = {
        "passes": AT_LEAST_1,
        "tokens_per_batch": AT_LEAST_1,
        "max_context_tokens": AT_LEAST_1,
        "seed": AT_LEAST_0,
        "test_train_turns": AT_LEAST_0,
        "test_general_pairs": AT_LEAST_0,
    }

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
        seed: int | None = None,
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
        self.seed = seed or 0
        self.train_split = train_split
        self.validation_split = validation_split
        self.test_train_turns = test_train_turns
        self.test_general_pairs = test_general_pairs
        require(vars(self), **self.ranges)
        self.users: list[str] = []
        self.sources: list[Source] = []
        self._position = Position()

    @property
    def tokenizer_directory(self) -> Path:
        return self.preparation.output / TOKENIZER

    @property
    def corpora(self) -> list[MixedCorpus]:
        return [MixedCorpus(self.preparation, self.passes, self.profiles), *self.mixed_with]

    def prepare_data(self) -> None:
        for corpus in self.corpora:
            prepare(corpus.preparation)

    def setup(self, stage: str) -> None:
        if stage in ("test", "predict"):
            self._set_up_target_users(stage)
            return
        if stage == "fit":
            self.sources = [self._source(corpus, self.train_split) for corpus in self.corpora]
            self._check_sources()
            self._batches = TrainBatches(self._stream(self.sources, shuffle=True), self._position)
        self._validation = self._source(self.corpora[0], self.validation_split)
        self.prompts = self._validation.prompts

    def _source(self, corpus: MixedCorpus, split: str) -> Source:
        directory = corpus.preparation.output
        prompts = load_prompts(self.prompt, directory, corpus.profiles, self.control)
        is_shuffled = split.startswith("pretrain/")
        return Source(ShardReader(directory, split), prompts, self.max_context_tokens, corpus.passes, is_shuffled)

    def _check_sources(self) -> None:
        first = self.sources[0].reader
        for source in self.sources:
            directory = source.reader.directory
            if source.passes < 1:
                raise ValueError(f"{directory} has passes {source.passes} in an epoch; give 1 or more, or leave it out")
            if source.reader.fingerprint != first.fingerprint:
                raise ValueError(
                    f"{first.directory} has tokenizer {first.fingerprint} and {directory} has "
                    f"{source.reader.fingerprint}; corpora can be mixed when they share one: prepare the second with "
                    f"tokenizer: {first.directory / TOKENIZER}"
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
        rank = self.trainer.global_rank if self.trainer else 0
        return PairStream(sources, self.tokens_per_batch, shuffle, self.seed, rank, self._world_size)

    @property
    def label_tokens_per_batch(self) -> float:
        return self._batches.stream.label_tokens_per_batch

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self._batches, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        stream = self._stream([self._validation], shuffle=False)
        return DataLoader(WholePass(lambda: stream.batches(0), stream.num_batches_in_epoch(0)), batch_size=None)

    @property
    def test_kinds(self) -> list[str]:
        return self.target_users.test_kinds

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        return self.target_users.test_dataloader()

    def predict_dataloader(self) -> DataLoader:
        return self.target_users.predict_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, counting batches whose training step is finished, and what decides the order."""
        if not self.sources:
            return {}
        interrupted = 0
        if self.trainer is not None:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
            interrupted = progress.ready - progress.processed
        return {**self._position.state(self._world_size, self.tokens_per_batch, interrupted), **self._order()}

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def _order(self) -> dict[str, Any]:
        """What has to be the same when a run resumes."""
        return {
            "tokenizer": tokenizer_fingerprint(self.tokenizer_directory),
            "corpora": [(source.reader.content, source.passes) for source in self.sources],
            "seed": self.seed,
            "max_context_tokens": self.max_context_tokens,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the position over, whatever number of processes and size of batches it was reached with."""
        if not state_dict or not self.sources:  # nothing is trained, or was
            return
        for key, value in self._order().items():
            if (theirs := state_dict.get(key)) != value:
                raise ValueError(f"the checkpoint was made with {key} {theirs}, this run has {value}")
        self._position.resume(state_dict["epoch"], state_dict["cuts"], self._world_size, self.tokens_per_batch)
        if self._position.before and self.trainer is not None:
            self.trainer.callbacks.append(RecountBatches(self._batches))
