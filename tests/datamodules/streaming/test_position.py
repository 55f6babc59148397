"""A stopped run resumes exactly, through Lightning, whatever the number of processes and the size of batches."""

import contextlib
import json
import subprocess
import sys
from itertools import islice, takewhile
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from pair_batches import TRAIN, all_ids, flat, ids_of
from stopping import QUIET, WARNINGS, KillAt, Killed

from datamodules import ReplyPairs
from datamodules.prompts.loading import load_prompts
from datamodules.prompts.template import PromptTemplate
from datamodules.reply_pairs import MixedCorpus
from datamodules.shards.reader import ShardReader
from datamodules.streaming.pair_stream import PairStream, Source

pytestmark = WARNINGS


class Recorder(LightningModule):
    """Learns nothing and remembers which pairs it was given."""

    def __init__(self, asks_for_steps=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.asks_for_steps = asks_for_steps
        self.seen = []
        self.epochs = []
        self.validated = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.pair_id.tolist())
        self.epochs.append(self.trainer.current_epoch)
        return self.weight * 1.0

    def on_validation_epoch_start(self):
        self.validated.append([])

    def validation_step(self, batch, batch_idx):
        self.validated[-1].append(batch.pair_id.tolist())

    def configure_optimizers(self):
        if self.asks_for_steps:
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(*callbacks, **settings):
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    defaults = {"max_epochs": 3, "num_sanity_val_steps": 0, "use_distributed_sampler": False, "limit_val_batches": 0}
    settings = {**QUIET, "enable_checkpointing": checkpoints, **defaults, **settings}
    return Trainer(callbacks=list(callbacks), **settings)


def fit(preparation, *callbacks, ckpt_path=None, **settings):
    """A run in fresh objects; it ends early where a callback kills it."""
    module = Recorder(settings.pop("asks_for_steps", False))
    mixed_with, size = settings.pop("mixed_with", None), settings.pop("tokens_per_batch", 1300)
    data = ReplyPairs(preparation, mixed_with=mixed_with, tokens_per_batch=size)
    with contextlib.suppress(Killed):
        trainer(*callbacks, **settings).fit(module, data, ckpt_path=ckpt_path, weights_only=False)
    return module


@pytest.fixture
def stop_and_resume(in_small_groups, tmp_path):
    """Two runs: one that is killed in a hook, and one that resumes it, with other settings where they are given."""

    def run(hook, num_batches, now=None, **settings):
        path = tmp_path / "x.ckpt"
        before = fit(in_small_groups, KillAt(hook, num_batches, path), **settings)
        return before, fit(in_small_groups, ckpt_path=path, **{**settings, **(now or {})})

    return run


@pytest.fixture(scope="module")
def undisturbed(in_small_groups):
    return fit(in_small_groups).seen


def num_batches_of(undisturbed, epochs, batches):
    return epochs * (len(undisturbed) // 3) + batches


def test_the_undisturbed_run_is_three_whole_epochs(undisturbed, in_small_groups):
    length = num_batches_of(undisturbed, 1, 0)
    assert length >= 9
    for epoch in range(3):
        assert sorted(flat(undisturbed[epoch * length : (epoch + 1) * length])) == all_ids(in_small_groups)


# In epochs and batches: the first, in the middle, the last but one, the last, the first of the second, the last of it.
POSITIONS = [(0, 1), (0, 5), (1, -1), (1, 0), (1, 1), (2, 0), (2, 4), (3, -1)]


@pytest.mark.parametrize("asks_for_steps", [False, True])
@pytest.mark.parametrize(
    ("hook", "epochs", "batches"),
    [*(("on_train_batch_end", *position) for position in POSITIONS), *(("on_train_epoch_end", n, 0) for n in (1, 2))],
)
def test_resume_is_exact(stop_and_resume, undisturbed, hook, epochs, batches, asks_for_steps):
    num_batches = num_batches_of(undisturbed, epochs, batches)
    before, after = stop_and_resume(hook, num_batches, asks_for_steps=asks_for_steps)
    assert len(before.seen) == num_batches
    assert before.seen + after.seen == undisturbed


@pytest.mark.parametrize("hook", ["on_validation_start", "on_validation_end", "on_train_batch_end"])
@pytest.mark.parametrize("num_batches", [4, 5, 8, 12])
def test_resume_is_exact_with_validation_in_between(stop_and_resume, undisturbed, hook, num_batches):
    validation = {"limit_val_batches": 1.0, "val_check_interval": 4, "num_sanity_val_steps": 1}
    before, after = stop_and_resume(hook, num_batches, **validation)
    assert num_batches <= len(before.seen) < num_batches + 4
    assert before.seen + after.seen == undisturbed


def test_resume_from_lightnings_own_checkpoint_is_exact(in_small_groups, undisturbed, tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=4, enable_version_counter=False)
    fit(in_small_groups, saver, KillAt("on_train_batch_end", 7, tmp_path / "other.ckpt"))
    assert fit(in_small_groups, ckpt_path=tmp_path / "last.ckpt").seen == undisturbed[4:]


def test_a_batch_whose_step_was_interrupted_is_taken_again(stop_and_resume, undisturbed):
    before, after = stop_and_resume("on_before_optimizer_step", 6)
    assert len(before.seen) == 6
    assert after.seen == undisturbed[5:]


def test_resuming_twice_is_exact(in_small_groups, undisturbed, tmp_path):
    first = fit(in_small_groups, KillAt("on_train_batch_end", 3, tmp_path / "1.ckpt")).seen
    kill = KillAt("on_train_batch_end", 4, tmp_path / "2.ckpt")
    second = fit(in_small_groups, kill, ckpt_path=tmp_path / "1.ckpt").seen
    third = fit(in_small_groups, ckpt_path=tmp_path / "2.ckpt").seen
    assert first + second + third == undisturbed


def test_reloaded_loaders_continue(stop_and_resume, in_small_groups, undisturbed):
    reload = {"reload_dataloaders_every_n_epochs": 1}
    assert fit(in_small_groups, **reload).seen == undisturbed
    before, after = stop_and_resume("on_train_batch_end", 5, **reload)
    assert before.seen + after.seen == undisturbed


def test_lightnings_epochs_are_the_streams_epochs(in_small_groups):
    # 60 tokens a batch: so many batches that windows of other sizes would give epochs of other lengths.
    epochs = fit(in_small_groups, tokens_per_batch=60, max_epochs=4).epochs
    assert len({epochs.count(epoch) for epoch in range(4)}) == 1
    assert set(epochs) == set(range(4))


@pytest.mark.parametrize("limit", [2, 1.0])
def test_every_validation_sees_the_same_batches(in_small_groups, limit):
    module = fit(in_small_groups, limit_val_batches=limit, num_sanity_val_steps=1, tokens_per_batch=600)
    assert len(module.validated) == 4  # once to check that it runs, and after each epoch
    sanity, *validated = module.validated
    assert validated[0][:1] == sanity
    assert validated[0] == validated[1] == validated[2]
    if limit == 1.0:
        assert sorted(flat(validated[0])) == all_ids(in_small_groups, "pretrain/validation")


# ---- batches of another size


def pairs_of_epochs(runs, num_epochs):
    """The pairs of each epoch, as Lightning counts epochs, in order."""
    seen = [[] for _ in range(num_epochs)]
    for run in runs:
        for epoch, batch in zip(run.epochs, run.seen, strict=True):
            seen[epoch] += batch
    return [sorted(ids) for ids in seen]


@pytest.mark.parametrize("now", [300, 2700])
@pytest.mark.parametrize(("epochs", "batches"), POSITIONS)
def test_batches_of_another_size_leave_the_epochs_whole(
    stop_and_resume, in_small_groups, undisturbed, epochs, batches, now
):
    num_batches = num_batches_of(undisturbed, epochs, batches)
    runs = stop_and_resume("on_train_batch_end", num_batches, {"tokens_per_batch": now}, asks_for_steps=True)
    assert runs[0].seen == undisturbed[:num_batches]
    assert pairs_of_epochs(runs, 3) == [all_ids(in_small_groups)] * 3


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_end"])
@pytest.mark.parametrize("now", [300, 2700])
def test_batches_of_another_size_after_an_epoch(stop_and_resume, in_small_groups, undisturbed, hook, now):
    num_batches = num_batches_of(undisturbed, 1, 0)
    before, after = stop_and_resume(hook, num_batches, {"tokens_per_batch": now}, limit_val_batches=1)
    assert before.seen == undisturbed[:num_batches]
    assert pairs_of_epochs([before, after], 3) == [all_ids(in_small_groups)] * 3
    assert after.trainer.num_training_batches == after.epochs.count(1) == after.epochs.count(2)


def test_the_size_of_batches_may_change_again_and_again(in_small_groups, tmp_path):
    runs, path = [], None
    for number, size in enumerate((1300, 400, 400, 2000, 300, 900)):
        kill = KillAt("on_train_batch_end", 4, tmp_path / f"{number}.ckpt")
        callbacks = [kill] if number < 5 else []
        runs.append(fit(in_small_groups, *callbacks, ckpt_path=path, tokens_per_batch=size, max_epochs=2))
        path = tmp_path / f"{number}.ckpt"
    assert len(runs[-1].seen) > 4
    assert pairs_of_epochs(runs, 2) == [all_ids(in_small_groups)] * 2


@pytest.mark.parametrize("size", [900, 500])
@pytest.mark.parametrize("num_batches", [3, 15, -1, 0, 4])
def test_a_mixture_is_resumed_exactly(stop_and_resume, in_small_groups, second_corpus, num_batches, size):
    settings = {"mixed_with": [MixedCorpus(second_corpus, 2)], "tokens_per_batch": 900, "max_epochs": 2}
    whole = fit(in_small_groups, **settings)
    stop = num_batches if num_batches > 3 else whole.epochs.count(0) + num_batches
    before, after = stop_and_resume("on_train_batch_end", stop, {"tokens_per_batch": size}, **settings)
    assert before.seen == whole.seen[:stop]
    if size == 900:
        assert before.seen + after.seen == whole.seen
    expected = sorted(all_ids(in_small_groups) + 2 * all_ids(second_corpus))
    assert pairs_of_epochs([before, after], 2) == [expected] * 2


# ---- another number of processes


SCRIPT = """
import json, sys, warnings
from pathlib import Path
import datamodules  # before tests/datamodules can be found by that name
sys.path[:0] = {paths!r}
warnings.filterwarnings("ignore")
from conftest import InventedCorpus
from lightning import Callback
from test_position import Recorder, trainer
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
LEGS = [(2, 3), (2, 2), (1, 4), (2, None)]  # (processes, batches of each)


def test_whatever_the_number_of_processes_the_epochs_are_whole(in_small_groups, split_rule, tmp_path):
    directory, here = in_small_groups.output, Path(__file__).parent
    paths = [str(here), str(here.parents[1])]
    script = SCRIPT.format(paths=paths, rule=split_rule, out=str(tmp_path), prepared=str(directory), legs=LEGS)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    found = [
        [json.loads((tmp_path / f"{leg}-{rank}.json").read_text()) for rank in range(devices)]
        for leg, (devices, _) in enumerate(LEGS)
    ]  # of each leg and process: epochs and batches
    for leg, (_, num_batches) in zip(found, LEGS, strict=True):
        assert len({len(batches) for _, batches in leg}) == 1
        assert num_batches in (None, len(leg[0][1]))
    source = Source(ShardReader(directory, TRAIN), load_prompts(PromptTemplate(), directory, None), 64)
    num_ranks = LEGS[0][0]
    until_change = [leg for leg, _ in takewhile(lambda one: one[1][0] == num_ranks, zip(found, LEGS, strict=True))]
    for rank in range(num_ranks):
        alone = PairStream([source], 400, shuffle=True, rank=rank, world_size=num_ranks)
        start = [batch for leg in until_change for batch in leg[rank][1]]
        assert start == ids_of(islice(alone.batches(0), len(start)))
    for epoch in (0, 1):
        seen = [
            batch
            for leg in found
            for epochs, batches in leg
            for at, batch in zip(epochs, batches, strict=True)
            if at == epoch
        ]
        assert sorted(id for id in flat(seen) if id >= 0) == all_ids(in_small_groups)
