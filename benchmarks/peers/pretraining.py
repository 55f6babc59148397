"""The competitors of `pretraining.py`, each a process of its own that trains when it is its turn.

    python -m benchmarks.peers.pretraining JOB     # started by `pretraining.py`; JOB is a JSON object

JOB: `name` (`ours`, or the Trainer's sampling strategy), `experiment`, `directory` with `initial/` (first weights
and tokenizer) and `pairs.npz`, `steps` of a slice, `num_steps` in all, `rows` of the Trainer's batches, `tuned`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.experiment import call, load_experiment
from benchmarks.report import peak_memory
from benchmarks.turns import Turns


def train_ours(job: dict[str, Any], turns: Turns) -> None:
    """The experiment, with a callback that counts and takes turns."""
    from commands.environment import keep_offline

    keep_offline()  # before torch is imported, as the command does
    import torch
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import CSVLogger
    from transformers import T5ForConditionalGeneration

    from lightning_modules.backbones.t5 import prefer_fast_attention

    counts: list[list[int]] = []

    class Counts(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            counts.append(_count(batch.input_ids, batch.attention_mask, batch.labels))
            turns.after_step()

    model, data, settings = load_experiment(Path(job["experiment"]))
    start = T5ForConditionalGeneration.from_pretrained(Path(job["directory"]) / "initial", dtype=torch.float32)
    model.model = prefer_fast_attention(start).train()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=job["num_steps"],
        precision=settings.get("precision"),
        gradient_clip_val=settings.get("gradient_clip_val"),
        limit_val_batches=0,
        logger=CSVLogger(job["directory"], name="ours"),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Counts()],
    )
    turns.begin(threads=torch.get_num_threads())
    trainer.fit(model, data)
    model.model.save_pretrained(Path(job["directory"]) / job["name"])
    turns.end(counts=counts, memory=peak_memory())


def train_theirs(job: dict[str, Any], turns: Turns) -> None:
    """`Seq2SeqTrainer` as its documentation uses it, with our optimizer and schedule."""
    import torch
    from transformers import AutoTokenizer, Seq2SeqTrainer, T5ForConditionalGeneration, TrainerCallback

    class TakeTurns(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            turns.after_step()

    directory = Path(job["directory"])
    settings = yaml.safe_load(Path(job["experiment"]).read_text())
    counts: list[list[int]] = []
    model = T5ForConditionalGeneration.from_pretrained(directory / "initial", dtype=torch.float32)
    if job["tuned"]:
        model.set_attn_implementation("eager")
    tokenizer = AutoTokenizer.from_pretrained(directory / "initial")
    choices = settings["model"]["init_args"]
    optimizer = call(choices["optimizer"], model.parameters())
    trainer = Seq2SeqTrainer(
        model=model,
        args=_arguments(job, settings["trainer"]),
        train_dataset=_pairs(directory / "pairs.npz"),
        data_collator=_counting_collator(tokenizer, model, counts),
        processing_class=tokenizer,
        optimizers=(optimizer, call(choices["lr_scheduler"], optimizer, job["num_steps"])),
        callbacks=[TakeTurns()],
    )
    turns.begin(threads=torch.get_num_threads())
    trainer.train()
    model.save_pretrained(directory / job["name"])
    turns.end(counts=counts[: job["num_steps"]], memory=peak_memory())  # the loader is one batch ahead


def _arguments(job: dict[str, Any], trainer: dict[str, Any]) -> Any:
    from transformers import Seq2SeqTrainingArguments

    return Seq2SeqTrainingArguments(
        output_dir=str(Path(job["directory"]) / f"{job['name']}_output"),
        max_steps=job["num_steps"],
        per_device_train_batch_size=job["rows"],
        train_sampling_strategy=job["name"],
        max_grad_norm=trainer.get("gradient_clip_val") or 0.0,
        bf16=trainer.get("precision") == "bf16-mixed",
        use_cpu=True,
        logging_steps=50,  # as Lightning
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def _pairs(path: Path) -> Any:
    """The rendered pairs, as a data set in memory."""
    import torch

    flat = np.load(path)
    arrays = {name: flat[name] for name in flat.files}

    class Pairs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(arrays["input_offsets"]) - 1

        def __getitem__(self, index: int) -> dict[str, list[int]]:
            if index >= len(self):
                raise IndexError(index)  # ends the iteration in which the Trainer looks at all lengths
            return {
                key: arrays[f"{name}_values"][slice(*arrays[f"{name}_offsets"][index : index + 2])].tolist()
                for key, name in (("input_ids", "input"), ("labels", "label"))
            }

    return Pairs()


def _counting_collator(tokenizer: Any, model: Any, counts: list[list[int]]) -> Any:
    """Pads batches, and adds the count of each to `counts`."""
    from transformers import DataCollatorForSeq2Seq

    class CountingCollator(DataCollatorForSeq2Seq):
        def __call__(self, features: Any, return_tensors: str | None = None) -> Any:
            batch = super().__call__(features, return_tensors)
            counts.append(_count(batch["input_ids"], batch["attention_mask"], batch["labels"]))
            return batch

    return CountingCollator(tokenizer, model=model)


def _count(input_ids: Any, attention_mask: Any, labels: Any) -> list[int]:
    """Input tokens, label tokens and all positions of a batch."""
    return [int(attention_mask.sum()), int((labels != -100).sum()), input_ids.numel() + labels.numel()]


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    (train_ours if job["name"] == "ours" else train_theirs)(job, Turns(job["steps"]))
