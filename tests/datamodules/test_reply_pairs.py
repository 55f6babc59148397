"""The stream of reply pairs: everything once, in balanced batches, and resumed exactly."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import ReplyPairs
from datamodules.batches import IGNORED, Seq2SeqBatch
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import SplitRule
from datamodules.preparation.tokenizer import tokenizer_fingerprint
from datamodules.prompts.loading import load_prompts
from datamodules.prompts.profiles import ProfileControl, read_profiles
from datamodules.prompts.rendering import Rendered
from datamodules.prompts.template import PromptTemplate
from datamodules.reply_pairs import MixedCorpus
from datamodules.shards.ragged import Ragged
from datamodules.shards.reader import ShardReader
from datamodules.streaming import pair_stream
from datamodules.streaming.pair_stream import Cut, PairStream, Source

TRAIN = "pretrain/train"
Ids = list[int]


@pytest.fixture
def stream(in_small_groups: Preparation) -> Callable[..., PairStream]:
    """Makes a stream over 375 pairs in 19 row groups, hence in three windows."""

    def make(split: str = TRAIN, **changes: Any) -> PairStream:
        directory = in_small_groups.output
        settings = {"max_context_tokens": 64, "tokens_per_batch": 900, "shuffle": True, **changes}
        prompts = load_prompts(PromptTemplate(), directory, None)
        source = Source(ShardReader(directory, split), prompts, settings.pop("max_context_tokens"))
        return PairStream([source], **settings)

    return make


def ids_of(batches: Any) -> list[Ids]:
    return [batch.pair_id.tolist() for batch in batches]


def flat(batches: list[Ids]) -> Ids:
    return [id for batch in batches for id in batch]


def all_ids(preparation: Preparation, split: str = TRAIN) -> Ids:
    return sorted(pq.read_table(preparation.output / split)["pair_id"].to_pylist())


# ---- what an epoch holds


@pytest.mark.parametrize("tokens_per_batch", [1, 20, 40, 300, 900, 5000, 10**9])
def test_every_pair_once_in_every_epoch(
    stream: Callable[..., PairStream], in_small_groups: Preparation, tokens_per_batch: int
) -> None:
    whole = stream(tokens_per_batch=tokens_per_batch)
    for epoch in range(3):
        batches = ids_of(whole.batches(epoch))
        assert sorted(flat(batches)) == all_ids(in_small_groups)
        assert all(batches)  # none is empty, also where one pair costs more than a batch may
        assert len(batches) == whole.num_batches_in_epoch(epoch) == whole.num_batches_in_epoch(0)


def test_epochs_and_seeds_have_orders_of_their_own(stream: Callable[..., PairStream]) -> None:
    orders = [flat(ids_of(stream(seed=seed).batches(epoch))) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert flat(ids_of(stream(seed=1).batches(1))) == orders[3]
    batches = [{frozenset(batch) for batch in ids_of(stream().batches(epoch))} for epoch in (0, 1)]
    assert len(batches[0] & batches[1]) <= 1  # other batches, not only another order of the same


def test_without_shuffling_every_epoch_is_the_same(stream: Callable[..., PairStream]) -> None:
    still = stream(shuffle=False)
    assert ids_of(still.batches(0)) == ids_of(still.batches(5))


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("tokens_per_batch", [50, 900, 10**9])
def test_ranks_share_the_epoch_evenly(
    stream: Callable[..., PairStream], in_small_groups: Preparation, world_size: int, tokens_per_batch: int
) -> None:
    ranks = [stream(rank=rank, world_size=world_size, tokens_per_batch=tokens_per_batch) for rank in range(world_size)]
    of_rank = [ids_of(rank.batches(1)) for rank in ranks]
    assert {len(batches) for batches in of_rank} == {ranks[0].num_batches_in_epoch(1)}
    assert sorted(flat([batch for batches in of_rank for batch in batches])) == all_ids(in_small_groups)
    assert all(batch for batches in of_rank for batch in batches)


def test_any_position_is_reached_without_the_ones_before(stream: Callable[..., PairStream]) -> None:
    whole = ids_of(stream().batches(2))
    for start in range(len(whole) + 1):
        assert ids_of(stream().batches(2, start)) == whole[start:]
    of_rank = ids_of(stream(rank=1, world_size=2).batches(2))
    assert ids_of(stream(rank=1, world_size=2).batches(2, 4)) == of_rank[4:]


def test_only_the_windows_that_are_needed_are_read(
    stream: Callable[..., PairStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    original = ShardReader.read
    monkeypatch.setattr(ShardReader, "read", lambda self, groups: read.append(groups) or original(self, groups))
    some = stream()
    assert [len(window) for window in some.windows(0)] in ([7, 6, 6], [6, 7, 6], [6, 6, 7])
    start = some.num_batches(some.windows(0)[0])
    next(some.batches(0, start))
    assert read == [[0], some.windows(0)[1].tolist()]  # the first row group tells what a pair costs


def test_a_short_last_group_is_never_a_window_of_its_own(
    stream: Callable[..., PairStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_stream, "GROUPS_PER_WINDOW", 9)  # 19 groups, and the last has 15 pairs
    some = stream()
    for epoch in range(8):
        windows = some.windows(epoch)
        assert sorted(len(window) for window in windows) == [6, 6, 7]
        assert sorted(group for window in windows for group in window) == list(range(19))
    assert len({str(some.windows(epoch)) for epoch in range(8)}) > 2


# ---- another number of processes, or batches of another size, in the middle of an epoch


def handed_out(stream: Callable[..., PairStream], cuts: list[Cut]) -> tuple[list[list[Ids]], PairStream]:
    """What each cut in turn hands out of epoch 1, a list of batches each; and the stream of the last."""
    found = []
    for number, cut in enumerate(cuts):
        settings = {"world_size": cut.world_size, "tokens_per_batch": cut.tokens_per_batch}
        ranks = [stream(rank=rank, **settings) for rank in range(cut.world_size)]
        of_ranks = [ids_of(islice(rank.batches(1, before=cuts[:number]), cut.batches)) for rank in ranks]
        assert {len(batches) for batches in of_ranks} == {cut.batches}
        assert ranks[0].num_batches_in_epoch(1, cuts[:number]) >= cut.batches
        found.append([batch for batches in of_ranks for batch in batches])
    return found, ranks[0]


CUTS = {
    "within the first window": [Cut(2, 200, 3), Cut(3, 200, 4)],
    "at the border of a window": [Cut(1, 200, 23), Cut(4, 200, 2)],
    "three times in one window": [Cut(1, 200, 4), Cut(2, 200, 3), Cut(3, 200, 1)],
    "in several windows": [Cut(4, 100, 15), Cut(1, 300, 5), Cut(8, 100, 4)],
    "batches of another size": [Cut(2, 200, 5), Cut(2, 333, 4)],
    "there and back": [Cut(1, 200, 4), Cut(2, 200, 4), Cut(1, 200, 4)],
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_every_pair_once_however_often_the_processes_change(
    stream: Callable[..., PairStream], in_small_groups: Preparation, cuts: list[Cut]
) -> None:
    rest = stream(world_size=cuts[-1].world_size, tokens_per_batch=cuts[-1].tokens_per_batch)
    left = rest.num_batches_in_epoch(1, cuts[:-1])
    found, _ = handed_out(stream, [*cuts[:-1], cuts[-1]._replace(batches=left)])
    assert sorted(flat(flat(found))) == all_ids(in_small_groups)
    assert left <= rest.num_batches_in_epoch(1)  # Lightning counts on from the difference


def test_a_process_without_a_pair_takes_part_with_an_empty_row(
    stream: Callable[..., PairStream], in_small_groups: Preparation
) -> None:
    first = stream(tokens_per_batch=20)
    done = [Cut(1, 20, first.num_batches(first.windows(1)[0]) - 1)]  # a pair or two are left of the first window
    left = stream(tokens_per_batch=20, world_size=8).num_batches_in_epoch(1, done)
    [before, after], _ = handed_out(stream, [*done, Cut(8, 20, left)])
    assert sorted(id for id in flat(before + after) if id >= 0) == all_ids(in_small_groups)
    first_of_ranks = after[::left]
    assert 5 <= sum(batch == [-1] for batch in first_of_ranks) <= 7
    rank = first_of_ranks.index([-1])
    batch = next(stream(tokens_per_batch=20, rank=rank, world_size=8).batches(1, before=done))
    assert (batch.labels == IGNORED).all()
    assert batch.attention_mask.sum() == 1


def test_position_after_a_change_is_reached_without_the_ones_before(stream: Callable[..., PairStream]) -> None:
    before = [Cut(2, 200, 9), Cut(3, 150, 2)]
    whole = ids_of(stream(rank=1, world_size=2).batches(1, before=before))
    for start in range(len(whole) + 1):
        assert ids_of(stream(rank=1, world_size=2).batches(1, start, before)) == whole[start:]


def test_only_the_window_of_the_change_is_read(
    stream: Callable[..., PairStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = stream(tokens_per_batch=200)
    counts = [some.num_batches(window) for window in some.windows(1)]
    read: list[list[int]] = []
    original = ShardReader.read
    monkeypatch.setattr(ShardReader, "read", lambda self, groups: read.append(groups) or original(self, groups))
    some.remainder(1, [Cut(1, 200, counts[0] + 2)])
    assert read == [some.windows(1)[1].tolist()]
    some.remainder(1, [Cut(1, 200, counts[0] + counts[1])])
    assert len(read) == 1


# ---- what a batch holds


def test_rows_are_the_pairs_of_the_shards(stream: Callable[..., PairStream], in_small_groups: Preparation) -> None:
    rows = {row["pair_id"]: row for row in pq.read_table(in_small_groups.output / TRAIN).to_pylist()}
    for batch in stream(max_context_tokens=1000).batches(0):
        assert batch.user_index.tolist() == [-1] * len(batch.pair_id)
        assert (batch.input_ids[batch.attention_mask == 0] == 0).all()
        for row, id in enumerate(batch.pair_id.tolist()):
            pair = rows[id]
            expected, at = [], 0
            for length, who in zip(pair["context_lengths"], pair["context_speakers"], strict=True):
                expected += [3 + who, *pair["context_ids"][at : at + length]]
                at += length
            assert batch.input_ids[row][batch.attention_mask[row] == 1].tolist() == [*expected, 1]
            labels = batch.labels[row]
            assert labels[labels != IGNORED].tolist() == [*pair["response_ids"], 1]
            assert (labels[len(pair["response_ids"]) + 1 :] == IGNORED).all()


def tokens(batch: Seq2SeqBatch) -> int:
    return int(batch.attention_mask.sum() + (batch.labels != IGNORED).sum())


def test_the_token_budget_is_roughly_kept(stream: Callable[..., PairStream]) -> None:
    for budget in (400, 900):
        sizes = [tokens(batch) for batch in stream(tokens_per_batch=budget).batches(0)]
        assert 0.75 * budget < np.mean(sizes) <= 1.1 * budget
        assert max(sizes) < 1.35 * budget


def rendered(num_rows: int) -> Rendered:
    rng = np.random.default_rng(0)
    inputs, targets = (
        Ragged.from_lengths(np.zeros(lengths.sum(), dtype=np.int32), lengths)
        for lengths in (rng.integers(3, 65, num_rows), rng.integers(2, 30, num_rows))
    )
    return Rendered(inputs, targets, np.arange(num_rows), np.zeros(num_rows, dtype=np.int64))


def padding(window: Rendered, batches: list[np.ndarray]) -> float:
    space = sum(
        len(rows) * int(lengths[rows].max())
        for rows in batches
        for lengths in (window.inputs.lengths, window.targets.lengths)
    )
    return 1 - int(window.costs.sum()) / space


def test_rows_of_like_lengths_share_a_batch(stream: Callable[..., PairStream]) -> None:
    window = rendered(20_000)
    batches = stream().cut(window, 200, [0])
    in_any_order = np.array_split(np.random.default_rng(0).permutation(20_000), 200)
    assert padding(window, in_any_order) > 0.4
    assert padding(window, batches) < 0.1
    costs = [int(window.costs[rows].sum()) for rows in batches]
    assert max(costs) < 1.15 * np.mean(costs)
    assert min(costs) > 0.85 * np.mean(costs)
    assert np.mean([len(rows) % 8 == 0 for rows in batches]) > 0.99  # kernels are built for each new shape


# ---- resuming, through Lightning


class Recorder(LightningModule):
    """Learns nothing and remembers which pairs it was given."""

    def __init__(self, asks_for_steps: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.asks_for_steps = asks_for_steps
        self.seen: list[Ids] = []
        self.lengths_of_epochs: list[int] = []
        self.epochs: list[int] = []
        self.validated: list[list[Ids]] = []

    def training_step(self, batch: Seq2SeqBatch, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.pair_id.tolist())
        self.epochs.append(self.trainer.current_epoch)
        return self.weight * 1.0

    def on_train_epoch_end(self) -> None:
        self.lengths_of_epochs.append(len(self.seen) - sum(self.lengths_of_epochs))

    def on_validation_epoch_start(self) -> None:
        self.validated.append([])

    def validation_step(self, batch: Seq2SeqBatch, batch_idx: int) -> None:
        self.validated[-1].append(batch.pair_id.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.asks_for_steps:
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Killed(Exception):
    """Stands for the end of a process."""


class KillAt(Callback):
    """Saves a checkpoint in one hook, when `num_batches` are done, and ends the run there."""

    def __init__(self, hook: str, num_batches: int, path: Path) -> None:
        self.num_batches = num_batches
        self.path = path
        setattr(self, hook, self._stop)

    def _stop(self, trainer: Trainer, module: Recorder, *_: Any) -> None:
        if len(module.seen) >= self.num_batches and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)
            raise Killed


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    defaults = {"max_epochs": 3, "num_sanity_val_steps": 0, "use_distributed_sampler": False, "limit_val_batches": 0}
    settings = {**quiet, "enable_checkpointing": checkpoints, **defaults, **settings}
    return Trainer(callbacks=list(callbacks), **settings)


def fit(preparation: Preparation, *callbacks: Callback, ckpt_path: Path | None = None, **settings: Any) -> Recorder:
    """A run in fresh objects; it ends early where a callback kills it."""
    module = Recorder(settings.pop("asks_for_steps", False))
    data = ReplyPairs(preparation, tokens_per_batch=settings.pop("tokens_per_batch", 1300))
    with contextlib.suppress(Killed):
        trainer(*callbacks, **settings).fit(module, data, ckpt_path=ckpt_path, weights_only=False)
    return module


@pytest.fixture(scope="module")
def undisturbed(in_small_groups: Preparation) -> list[Ids]:
    return fit(in_small_groups).seen


def epoch_length(undisturbed: list[Ids]) -> int:
    return len(undisturbed) // 3


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*IterableDataset. has .__len__. defined"),
    pytest.mark.filterwarnings("ignore:.*not resumable"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
]


def test_the_undisturbed_run_is_three_whole_epochs(undisturbed: list[Ids], in_small_groups: Preparation) -> None:
    length = epoch_length(undisturbed)
    assert length >= 9
    for epoch in range(3):
        assert sorted(flat(undisturbed[epoch * length : (epoch + 1) * length])) == all_ids(in_small_groups)


# In epochs and batches: the first, in the middle, the last but one, the last, the first of the second, the last of it.
PLACES = [(0, 1), (0, 5), (1, -1), (1, 0), (1, 1), (2, 0), (2, 4), (3, -1)]


@pytest.mark.parametrize("asks_for_steps", [False, True])
@pytest.mark.parametrize(("epochs", "batches"), PLACES)
def test_resume_after_a_batch_is_exact(
    in_small_groups: Preparation,
    undisturbed: list[Ids],
    tmp_path: Path,
    epochs: int,
    batches: int,
    asks_for_steps: bool,
) -> None:
    num_batches = epochs * epoch_length(undisturbed) + batches
    run = partial(fit, in_small_groups, asks_for_steps=asks_for_steps)
    before = run(KillAt("on_train_batch_end", num_batches, tmp_path / "x.ckpt")).seen
    after = run(ckpt_path=tmp_path / "x.ckpt").seen
    assert len(before) == num_batches
    assert before + after == undisturbed


@pytest.mark.parametrize("asks_for_steps", [False, True])
@pytest.mark.parametrize("epochs", [1, 2])
def test_resume_after_an_epoch_is_exact(
    in_small_groups: Preparation, undisturbed: list[Ids], tmp_path: Path, epochs: int, asks_for_steps: bool
) -> None:
    num_batches = epochs * epoch_length(undisturbed)
    run = partial(fit, in_small_groups, asks_for_steps=asks_for_steps)
    before = run(KillAt("on_train_epoch_end", num_batches, tmp_path / "x.ckpt")).seen
    after = run(ckpt_path=tmp_path / "x.ckpt").seen
    assert len(before) == num_batches
    assert before + after == undisturbed


@pytest.mark.parametrize("hook", ["on_validation_start", "on_validation_end", "on_train_batch_end"])
@pytest.mark.parametrize("num_batches", [4, 5, 8, 12])
def test_resume_is_exact_with_validation_in_between(
    in_small_groups: Preparation, undisturbed: list[Ids], tmp_path: Path, hook: str, num_batches: int
) -> None:
    run = partial(fit, in_small_groups, limit_val_batches=1.0, val_check_interval=4, num_sanity_val_steps=1)
    before = run(KillAt(hook, num_batches, tmp_path / "x.ckpt")).seen
    after = run(ckpt_path=tmp_path / "x.ckpt").seen
    assert num_batches <= len(before) < num_batches + 4
    assert before + after == undisturbed


def test_resume_from_lightnings_own_checkpoint_is_exact(
    in_small_groups: Preparation, undisturbed: list[Ids], tmp_path: Path
) -> None:
    saver = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=4, enable_version_counter=False)
    fit(in_small_groups, saver, KillAt("on_train_batch_end", 7, tmp_path / "other.ckpt"))
    assert fit(in_small_groups, ckpt_path=tmp_path / "last.ckpt").seen == undisturbed[4:]


def test_a_batch_whose_step_was_interrupted_is_taken_again(
    in_small_groups: Preparation, undisturbed: list[Ids], tmp_path: Path
) -> None:
    run = fit(in_small_groups, KillAt("on_before_optimizer_step", 6, tmp_path / "x.ckpt"))
    assert len(run.seen) == 6
    assert fit(in_small_groups, ckpt_path=tmp_path / "x.ckpt").seen == undisturbed[5:]


def test_resuming_twice_is_exact(in_small_groups: Preparation, undisturbed: list[Ids], tmp_path: Path) -> None:
    first = fit(in_small_groups, KillAt("on_train_batch_end", 3, tmp_path / "1.ckpt")).seen
    kill = KillAt("on_train_batch_end", 4, tmp_path / "2.ckpt")
    second = fit(in_small_groups, kill, ckpt_path=tmp_path / "1.ckpt").seen
    third = fit(in_small_groups, ckpt_path=tmp_path / "2.ckpt").seen
    assert first + second + third == undisturbed


def test_loaders_that_are_made_anew_go_on(in_small_groups: Preparation, undisturbed: list[Ids], tmp_path: Path) -> None:
    run = partial(fit, in_small_groups, reload_dataloaders_every_n_epochs=1)
    assert run().seen == undisturbed
    before = run(KillAt("on_train_batch_end", 5, tmp_path / "x.ckpt")).seen
    assert before + run(ckpt_path=tmp_path / "x.ckpt").seen == undisturbed


def test_lightnings_epochs_are_the_streams_epochs(in_small_groups: Preparation) -> None:
    # 60 tokens a batch: so many batches that windows of other sizes would give epochs of other lengths.
    module = fit(in_small_groups, tokens_per_batch=60, max_epochs=4)
    assert len(set(module.lengths_of_epochs)) == 1
    assert len(module.lengths_of_epochs) == 4


@pytest.mark.parametrize("limit", [2, 1.0])
def test_every_validation_sees_the_same_batches(in_small_groups: Preparation, limit: float) -> None:
    module = fit(in_small_groups, limit_val_batches=limit, num_sanity_val_steps=1, tokens_per_batch=600)
    assert len(module.validated) == 4  # once to check that it runs, and after each epoch
    sanity, *validated = module.validated
    assert validated[0][:1] == sanity
    assert validated[0] == validated[1] == validated[2]
    if limit == 1.0:
        assert sorted(flat(validated[0])) == all_ids(in_small_groups, "pretrain/validation")


def pairs_of_epochs(runs: list[Recorder], num_epochs: int) -> list[Ids]:
    """The pairs of each epoch, as Lightning counts epochs, in order."""
    seen: list[Ids] = [[] for _ in range(num_epochs)]
    for run in runs:
        for epoch, batch in zip(run.epochs, run.seen, strict=True):
            seen[epoch] += batch
    return [sorted(ids) for ids in seen]


@pytest.mark.parametrize("now", [300, 2700])
@pytest.mark.parametrize(("epochs", "batches"), PLACES)
def test_batches_of_another_size_leave_the_epochs_whole(
    in_small_groups: Preparation, undisturbed: list[Ids], tmp_path: Path, epochs: int, batches: int, now: int
) -> None:
    num_batches = epochs * epoch_length(undisturbed) + batches
    run = partial(fit, in_small_groups, asks_for_steps=True)
    before = run(KillAt("on_train_batch_end", num_batches, tmp_path / "x.ckpt"))
    after = run(ckpt_path=tmp_path / "x.ckpt", tokens_per_batch=now)
    assert before.seen == undisturbed[:num_batches]
    assert pairs_of_epochs([before, after], 3) == [all_ids(in_small_groups)] * 3


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_end"])
@pytest.mark.parametrize("now", [300, 2700])
def test_batches_of_another_size_after_an_epoch(
    in_small_groups: Preparation, undisturbed: list[Ids], tmp_path: Path, hook: str, now: int
) -> None:
    run = partial(fit, in_small_groups, limit_val_batches=1)
    before = run(KillAt(hook, epoch_length(undisturbed), tmp_path / "x.ckpt"))
    after = run(ckpt_path=tmp_path / "x.ckpt", tokens_per_batch=now)
    assert before.seen == undisturbed[: epoch_length(undisturbed)]
    assert pairs_of_epochs([before, after], 3) == [all_ids(in_small_groups)] * 3
    assert after.trainer.num_training_batches == after.epochs.count(1) == after.epochs.count(2)


def test_the_size_of_batches_may_change_again_and_again(in_small_groups: Preparation, tmp_path: Path) -> None:
    runs, path = [], None
    for number, size in enumerate((1300, 400, 400, 2000, 300, 900)):
        kill = KillAt("on_train_batch_end", 4, tmp_path / f"{number}.ckpt")
        callbacks = [kill] if number < 5 else []
        runs.append(fit(in_small_groups, *callbacks, ckpt_path=path, tokens_per_batch=size, max_epochs=2))
        path = tmp_path / f"{number}.ckpt"
    assert len(runs[-1].seen) > 4
    assert pairs_of_epochs(runs, 2) == [all_ids(in_small_groups)] * 2


@pytest.mark.parametrize(("key", "theirs"), [("tokenizer", "0123456789abcdef"), ("seed", 7)])
def test_a_checkpoint_of_another_run_is_refused(in_small_groups: Preparation, key: str, theirs: Any) -> None:
    data = ReplyPairs(in_small_groups)
    data.setup("fit")
    data.train_dataloader()
    state = {**data.state_dict(), key: theirs}
    other = ReplyPairs(in_small_groups)
    other.setup("fit")
    with pytest.raises(ValueError, match=f"the checkpoint was made with {key} {theirs}, this run has"):
        other.load_state_dict(state)


SCRIPT = """
import json, sys, warnings
from pathlib import Path
import datamodules  # before tests/datamodules can be found by that name
sys.path[:0] = {paths!r}
warnings.filterwarnings("ignore")
from conftest import InventedCorpus
from test_reply_pairs import Callback, Recorder, trainer
from datamodules import ReplyPairs
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import SplitRule

out = Path({out!r})

class Stop(Callback):
    def __init__(self, name, num_batches):
        self.name, self.num_batches = name, num_batches
    def on_train_batch_end(self, trainer, module, *_):
        if len(module.seen) == self.num_batches:
            trainer.save_checkpoint(out / "x.ckpt")
            trainer.should_stop = True
    def on_train_end(self, trainer, module):
        (out / f"{{self.name}}-{{trainer.global_rank}}.json").write_text(
            json.dumps([module.epochs, module.seen])
        )

ckpt_path = None
for leg, (devices, num_batches) in enumerate({legs!r}):
    data = ReplyPairs(Preparation(InventedCorpus(), Path({prepared!r}), {rule!r}, 400), tokens_per_batch=400)
    run = trainer(Stop(leg, num_batches), max_epochs=2, strategy="ddp_fork", devices=devices)
    run.fit(Recorder(asks_for_steps=leg % 2), data, ckpt_path=ckpt_path, weights_only=False)
    ckpt_path = out / "x.ckpt"
"""


def run_legs(
    preparation: Preparation, rule: SplitRule, out: Path, legs: list[tuple[int, int | None]]
) -> list[list[tuple[list[int], list[Ids]]]]:
    """Trains 2 epochs in legs of (processes, batches of each); returns epochs and batches of each leg and process."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parent)]
    script = SCRIPT.format(paths=paths, rule=rule, out=str(out), prepared=str(preparation.output), legs=legs)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return [
        [json.loads((out / f"{leg}-{rank}.json").read_text()) for rank in range(devices)]
        for leg, (devices, _) in enumerate(legs)
    ]


LEGS = {
    "2, 2, 1 and 2 processes": [(2, 3), (2, 2), (1, 4), (2, None)],
}


@pytest.mark.parametrize("legs", LEGS.values(), ids=LEGS)
def test_whatever_the_number_of_processes_the_epochs_are_whole(
    in_small_groups: Preparation, split_rule: SplitRule, tmp_path: Path, legs: list[tuple[int, int | None]]
) -> None:
    found = run_legs(in_small_groups, split_rule, tmp_path, legs)
    directory = in_small_groups.output
    source = Source(ShardReader(directory, TRAIN), load_prompts(PromptTemplate(), directory, None), 64)
    for leg, (devices, num_batches) in zip(found, legs, strict=True):
        assert len({len(batches) for _, batches in leg}) == 1
        assert len(leg) == devices
        assert num_batches in (None, len(leg[0][1]))
    num_ranks = legs[0][0]
    until_change = [leg for leg, _ in takewhile(lambda one: one[1][0] == num_ranks, zip(found, legs, strict=True))]
    for rank in range(num_ranks):
        alone = PairStream([source], 400, shuffle=True, rank=rank, world_size=num_ranks)
        start = [batch for leg in until_change for batch in leg[rank][1]]
        assert start == ids_of(islice(alone.batches(0), len(start)))
    for epoch in (0, 1):
        seen = [
            id
            for leg in found
            for epochs, batches in leg
            for at, batch in zip(epochs, batches, strict=True)
            for id in batch
            if at == epoch
        ]
        assert sorted(id for id in seen if id >= 0) == all_ids(in_small_groups)


# ---- prompts


def test_batches_are_the_same_pairs_whatever_the_prompt(in_small_groups: Preparation) -> None:
    found = []
    for style in ("none", "psp", "ppp"):
        data = ReplyPairs(in_small_groups, PromptTemplate(style), tokens_per_batch=900)
        data.setup("fit")
        found.append(ids_of(data.train_dataloader()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("stage", ["fit", "predict"])
def test_a_control_reaches_the_prompts(in_small_groups: Preparation, tmp_path: Path, stage: str) -> None:
    rows = [{"user": user, "attribute": "age", "value": user} for user in ("ada", "ben", "guest 0")]
    path = tmp_path / "profiles.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    control = ProfileControl(shuffled=True)
    data = ReplyPairs(in_small_groups, PromptTemplate("psp"), profiles=path, control=control)
    data.setup(stage)
    plain = read_profiles(path)
    assert data.prompts.profiles == control.apply(plain) != plain


def test_a_test_is_about_the_target_users(in_small_groups: Preparation) -> None:
    data = ReplyPairs(in_small_groups, PromptTemplate("psp"))
    data.setup("predict")
    assert data.users == ["ada", "ben", "cleo", "dan"]
    rows = {row["pair_id"]: row for row in pq.read_table(in_small_groups.output / "users/test").to_pylist()}
    seen = []
    for batch in data.predict_dataloader():
        for user, id in zip(batch.user_index.tolist(), batch.pair_id.tolist(), strict=True):
            if id >= 0:
                assert rows[id]["speaker"] == data.users[user]
                seen.append(id)
    assert sorted(seen) == sorted(rows)


def test_the_target_users_own_splits_can_be_trained_on(in_small_groups: Preparation) -> None:
    data = ReplyPairs(in_small_groups, train_split="users/train", validation_split="users/validation")
    data.setup("fit")
    for loader, split in ((data.train_dataloader(), "users/train"), (data.val_dataloader(), "users/validation")):
        rows = {row["pair_id"]: row for row in pq.read_table(in_small_groups.output / split).to_pylist()}
        assert sorted(id for batch in loader for id in batch.pair_id.tolist()) == sorted(rows)
        assert {row["speaker"] for row in rows.values()} == {"ada", "ben", "cleo", "dan"}
    pairs = data.sources[0].render([0])
    share = pairs.targets.lengths.mean() / pairs.costs.mean()
    assert data.label_tokens_per_batch == pytest.approx(4096 * share)


# ---- bad input


def test_a_corpus_without_pre_training_pairs_is_refused(in_small_groups: Preparation, tmp_path: Path) -> None:
    copy = shutil.copytree(in_small_groups.output, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"][TRAIN] = []
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="copy has no reply pairs in pretrain/train; target users who take part"):
        ReplyPairs(replace(in_small_groups, output=copy)).setup("fit")


def test_without_held_out_pairs_there_is_no_validation(in_small_groups: Preparation, tmp_path: Path) -> None:
    copy = shutil.copytree(in_small_groups.output, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["pretrain/validation"] = []
    (copy / "manifest.json").write_text(json.dumps(manifest))
    data = ReplyPairs(replace(in_small_groups, output=copy))
    data.setup("fit")
    assert list(data.val_dataloader()) == []
    assert len(data.val_dataloader()) == 0


def test_fewer_pairs_than_processes_are_refused(stream: Callable[..., PairStream]) -> None:
    with pytest.raises(ValueError, match="reply pairs cannot be shared by 500 processes; use fewer"):
        stream(world_size=500).num_batches_in_epoch(0)


def test_missing_profiles_are_counted(in_small_groups: Preparation, capsys: pytest.CaptureFixture[str]) -> None:
    data = ReplyPairs(in_small_groups, PromptTemplate("psp"))
    data.setup("fit")
    pairs = ShardReader(in_small_groups.output, TRAIN).read([0])
    people = {*pairs.speakers, *pairs.partners}
    missing = len(people - {"guest 0"})
    said = f"{missing} of {len(people)} people in the first row group of {in_small_groups.output} have no profile"
    assert said in capsys.readouterr().out


def test_prompts_are_put_in_front(in_small_groups: Preparation) -> None:
    data = ReplyPairs(in_small_groups, PromptTemplate("psp"), max_context_tokens=1000)
    data.setup("fit")
    rows = {row["pair_id"]: row for row in pq.read_table(in_small_groups.output / TRAIN).to_pylist()}
    prompt = [5, *data.prompts.tokenizer.encode("age: 30-39").ids]
    of_guest = 0
    for batch in data.train_dataloader():
        for ids, id in zip(batch.input_ids.tolist(), batch.pair_id.tolist(), strict=True):
            of_guest += rows[id]["speaker"] == "guest 0"
            assert (ids[: len(prompt)] == prompt) == (rows[id]["speaker"] == "guest 0")
    assert of_guest > 10


# ---- mixtures


@pytest.fixture(scope="module")
def second(in_small_groups: Preparation, tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    """Another corpus with the same tokenizer: the pairs for pre-training are the 192 of the target users."""
    copy = shutil.copytree(in_small_groups.output, tmp_path_factory.mktemp("data") / "second")
    shutil.rmtree(copy / TRAIN)
    shutil.copytree(copy / "users/train", copy / TRAIN)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"][TRAIN] = manifest["splits"]["users/train"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return replace(in_small_groups, output=copy)


def mixture(first: Preparation, second: Preparation, passes: int = 2, **settings: Any) -> ReplyPairs:
    return ReplyPairs(first, mixed_with=[MixedCorpus(second, passes)], tokens_per_batch=900, **settings)


def test_a_corpus_comes_as_often_as_it_should(in_small_groups: Preparation, second: Preparation) -> None:
    data = mixture(in_small_groups, second)
    data.setup("fit")
    loader = data.train_dataloader()
    epochs = [ids_of(loader) for _ in range(2)]
    assert epochs[0] != epochs[1]
    for batches in epochs:
        assert len(batches) == len(loader)
        assert sorted(flat(batches)) == sorted(all_ids(in_small_groups) + 2 * all_ids(second))
    cost = [np.mean([tokens(batch) for batch in loader])]
    assert 0.75 * 900 < cost[0] < 1.1 * 900


def test_every_window_holds_of_each_corpus_its_share(in_small_groups: Preparation, second: Preparation) -> None:
    data = mixture(in_small_groups, second)
    data.setup("fit")
    stream = PairStream(data.sources, 900, shuffle=True)
    windows = stream.windows(3)  # 19 row groups and twice 10 of them, in 5 windows
    of_second = set(all_ids(second))
    assert sorted(len(window) for window in windows) == [7, 8, 8, 8, 8]
    for window in windows:
        ids = stream.render(window).pair_id.tolist()
        assert 0.4 < np.mean([id in of_second for id in ids]) < 0.62


def test_the_label_tokens_of_a_mixture_are_the_mean_of_its_pairs(
    in_small_groups: Preparation, second: Preparation
) -> None:
    data = mixture(in_small_groups, second, passes=3)
    data.setup("fit")
    first, other = (source.render([0]) for source in data.sources)
    labels = 375 * first.targets.lengths.mean() + 3 * 192 * other.targets.lengths.mean()
    everything = 375 * first.costs.mean() + 3 * 192 * other.costs.mean()
    assert data.label_tokens_per_batch == pytest.approx(900 * labels / everything)


@pytest.mark.parametrize("size", [900, 500])
@pytest.mark.parametrize("num_batches", [3, 15, -1, 0, 4])
def test_a_mixture_is_resumed_exactly(
    in_small_groups: Preparation, second: Preparation, tmp_path: Path, num_batches: int, size: int
) -> None:
    def run(*callbacks: Callback, size: int = 900, ckpt_path: Path | None = None) -> Recorder:
        module, data = Recorder(), mixture(in_small_groups, second)
        data.tokens_per_batch = size
        with contextlib.suppress(Killed):
            trainer(*callbacks, max_epochs=2).fit(module, data, ckpt_path=ckpt_path, weights_only=False)
        return module

    whole = run()
    stop = num_batches if num_batches > 3 else whole.epochs.count(0) + num_batches
    before = run(KillAt("on_train_batch_end", stop, tmp_path / "x.ckpt"))
    after = run(size=size, ckpt_path=tmp_path / "x.ckpt")
    assert before.seen == whole.seen[:stop]
    if size == 900:
        assert before.seen + after.seen == whole.seen
    expected = sorted(all_ids(in_small_groups) + 2 * all_ids(second))
    assert pairs_of_epochs([before, after], 2) == [expected] * 2


def test_another_mixture_is_not_resumed(in_small_groups: Preparation, second: Preparation) -> None:
    data, other = (mixture(in_small_groups, second, passes) for passes in (1, 2))
    data.setup("fit")
    other.setup("fit")
    with pytest.raises(ValueError, match="the checkpoint was made with corpora .*1.*, this run has .*2"):
        other.load_state_dict(data.state_dict())


def test_each_corpus_has_profiles_of_its_own(in_small_groups: Preparation, second: Preparation, tmp_path: Path) -> None:
    path = tmp_path / "profiles.parquet"
    pq.write_table(pa.Table.from_pylist([{"user": "ada", "attribute": "age", "value": "7"}]), path)
    data = ReplyPairs(in_small_groups, PromptTemplate("psp"), mixed_with=[MixedCorpus(second, profiles=path)])
    data.setup("fit")
    assert data.sources[0].prompts.profiles == read_profiles(in_small_groups.output / "profiles.parquet")
    assert data.sources[1].prompts.profiles == {"ada": {"age": "7"}}


def test_corpora_with_unlike_tokenizers_are_refused(in_small_groups: Preparation, tmp_path: Path) -> None:
    other = replace(in_small_groups, output=shutil.copytree(in_small_groups.output, tmp_path / "other"))
    tokenizer = other.output / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    metadata = {"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer.parent)}
    for path in (other.output / TRAIN).glob("*.parquet"):
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path, row_group_size=20)
    directory = in_small_groups.output
    message = f"{directory} has tokenizer .* and {other.output} has .*; corpora can be mixed when they share one"
    with pytest.raises(ValueError, match=message):
        mixture(in_small_groups, other).setup("fit")


def test_a_corpus_that_never_comes_is_refused(in_small_groups: Preparation, second: Preparation) -> None:
    with pytest.raises(ValueError, match=f"{second.output} has passes 0 in an epoch; give 1 or more, or leave it out"):
        mixture(in_small_groups, second, passes=0).setup("fit")
