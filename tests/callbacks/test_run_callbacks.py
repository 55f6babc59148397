"""Run card, sample replies and backbone export, each in a short real fit."""

import hashlib
import json
import time
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger

from callbacks import BackboneExport, ResumeCheckpoint, RunCard, SampleReplies
from datamodules import ReplyPairs
from lightning_modules import ProfileSeq2Seq
from lightning_modules.backbones.files import load_backbone
from lightning_modules.backbones.generation import Decoding


@pytest.fixture
def fit(preparation, tmp_path):
    """Three steps of pre-training with these callbacks; gives the module back."""

    def run(*callbacks, size="tiny", **trainer):
        torch.manual_seed(0)
        module = ProfileSeq2Seq(
            size=size,
            optimizer=lambda parameters: torch.optim.Adafactor(parameters, lr=0.03),
            decoding=Decoding(sample=False, max_new_tokens=4),
        )
        given = {"max_steps": 3, "logger": False, "num_sanity_val_steps": 0, "limit_val_batches": 2, **trainer}
        Trainer(
            default_root_dir=tmp_path / "run",
            accelerator="cpu",
            callbacks=list(callbacks),
            enable_checkpointing=any(isinstance(callback, ResumeCheckpoint) for callback in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            **given,
        ).fit(module, datamodule=ReplyPairs(preparation, tokens_per_batch=512))
        return module

    return run


def read_card(tmp_path):
    return json.loads((tmp_path / "run" / "fit.card.json").read_text())


class Stop(SampleReplies):
    """Ends the process at the first step."""

    def on_train_batch_end(self, *_):
        raise RuntimeError("stopped")


def test_a_run_card_says_what_was_run(fit, preparation, tmp_path):
    config = {"seed_everything": 7, "model": {"size": "tiny"}}
    fit(BackboneExport(), RunCard(config))
    card = read_card(tmp_path)
    assert (card["status"], card["steps"], card["seed"], card["config"]) == ("finished", 3, 7, config)
    manifest = (preparation.output / "manifest.json").read_bytes()
    assert card["prepared"] == hashlib.sha256(manifest).hexdigest()[:16]
    assert card["versions"]["torch"] == torch.__version__
    assert 0 < card["wall_seconds"] < 600
    assert card.keys() >= {"commit", "backbone"}


def test_a_fit_that_has_written_nothing_is_not_finished(fit, tmp_path):
    with pytest.raises(ValueError, match="run is not finished: fit has written none of backbone/manifest.json"):
        fit(RunCard({}))
    assert read_card(tmp_path)["status"] == "running"


def test_what_is_refused_while_it_is_set_up_leaves_no_card(fit, tmp_path):
    with pytest.raises(KeyError, match="enormous"):
        fit(BackboneExport(), RunCard({}), size="enormous")
    assert not (tmp_path / "run/fit.card.json").exists()


def test_wall_time_adds_up_over_stops():
    card = RunCard({})
    card.load_state_dict({"seconds": 100.0})
    card.start = time.monotonic() - 5
    assert card.state_dict()["seconds"] == pytest.approx(105, abs=1)


def test_the_backbone_is_exported_as_it_was_trained(fit, tmp_path, capsys):
    module = fit(BackboneExport())
    backbone = load_backbone(tmp_path / "run" / "backbone")
    state = module.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.model.state_dict().items())
    assert json.loads((tmp_path / "run" / "backbone" / "manifest.json").read_text())["steps"] == 3
    assert f"backbone {backbone.fingerprint} is in" in capsys.readouterr().out


def test_a_run_that_stopped_is_running_in_its_card_and_exports_nothing(fit, tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        fit(RunCard({}), BackboneExport(), Stop())
    assert read_card(tmp_path)["status"] == "running"
    assert not (tmp_path / "run" / "backbone").exists()


def test_sample_replies_are_shown_at_each_validation(fit, capsys):
    samples = SampleReplies(num_samples=2)
    fit(samples, max_steps=-1, max_epochs=2)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    said:  ")]
    assert len(shown) == 2 * 2
    assert len(samples.rows) == 2
    assert all(len(row) == 3 and row[0] and row[1] for row in samples.rows)


@pytest.mark.parametrize(
    ("offline", "share", "sent"), [(True, False, True), (False, False, False), (False, True, True)]
)
def test_what_people_wrote_goes_online_only_if_allowed(monkeypatch, offline, share, sent):
    tables = []
    experiment = SimpleNamespace(settings=SimpleNamespace(_offline=offline))
    monkeypatch.setattr(WandbLogger, "experiment", experiment, raising=False)
    monkeypatch.setattr(WandbLogger, "log_text", lambda self, key, columns, data: tables.append((key, columns, data)))
    samples = SampleReplies(share=share)
    samples.rows = [["hi", "yes", "no"]]
    logger = WandbLogger.__new__(WandbLogger)
    samples.on_validation_end(SimpleNamespace(loggers=[logger]), None)
    assert tables == ([("replies", ["context", "said", "model"], [["hi", "yes", "no"]])] if sent else [])


def test_a_checkpoint_is_whole_and_never_behind_the_last_batch(fit, tmp_path):
    saved = []

    class Recorded(ResumeCheckpoint):
        def on_train_batch_end(self, trainer, *rest):
            self.path.unlink(missing_ok=True)
            super().on_train_batch_end(trainer, *rest)
            saved.append((trainer.is_last_batch, self.path.is_file()))

    fit(Recorded(tmp_path / "last.ckpt", every=0), max_steps=-1, max_epochs=2)
    assert {last: exists for last, exists in saved} == {False: True, True: False}
    assert all(exists != last for last, exists in saved)
    assert not (tmp_path / "last.ckpt.partial").exists()


def test_checkpoints_keep_their_distance_in_time(fit, tmp_path):
    fit(ResumeCheckpoint(tmp_path / "last.ckpt", every=3600))
    assert not (tmp_path / "last.ckpt").exists()
