"""Settings of a trainer, a process that ends in the middle of a fit, and Hugging Face's own logits and loss."""

import torch

from callbacks import ResumeCheckpoint

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
ROUNDS = {**QUIET, "max_epochs": -1, "reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0}


class Stopped(Exception):
    """Stands for the end of the process."""


class StopAt(ResumeCheckpoint):
    """Saves a checkpoint after each step up to this one, and ends the process there or later."""

    def __init__(self, path, step, stop_at=None):
        super().__init__(path, every=0)
        self.step, self.stop_at = step, stop_at or step

    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_step <= self.step:
            super().on_train_batch_end(trainer, *rest)
        if trainer.global_step == self.stop_at:
            raise Stopped


def output_of(model, batch):
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)


def loss_of(model, batch):
    return output_of(model, batch).loss


@torch.no_grad()
def logits_of(model, batch):
    return output_of(model, batch).logits


def strip(ids):
    """Without padding after the end."""
    return ids[: ids.index(1) + 1] if 1 in ids else ids


@torch.no_grad()
def summed(model, batches):
    """NLL in nats and tokens of all batches."""
    nll = tokens = 0
    for batch in batches:
        count = int((batch.labels >= 0).sum())
        nll, tokens = nll + loss_of(model, batch).item() * count, tokens + count
    return nll, tokens
