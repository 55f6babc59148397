"""What people would use instead of `UserLora`, each a process of its own, started by `adapters.py`.

    python -m benchmarks.peers.adapters loop JOB        # one PEFT model, one user after another, a training loop
    python -m benchmarks.peers.adapters trainer JOB     # a `Seq2SeqTrainer` and a PEFT model for each user

JOB is a JSON object; its keys are written where `adapters.py` makes it. Both read the same shards with the same
prompts as ours, without Lightning, and write a PEFT directory for each user with the weights of the best epoch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import T5ForConditionalGeneration

from datamodules.prompts.loading import load_prompts
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.reader import ShardReader
from lightning_modules.schedules import warmup_linear

ROWS_IN_EVALUATION = 32

Job = dict[str, Any]


def rows_by_user(job: Job, split: str) -> dict[str, list[dict[str, list[int]]]]:
    """The rendered rows of everybody, as a list of examples each."""
    directory = Path(job["prepared"])
    prompt = PromptTemplate(**job["prompt"])
    prompts = load_prompts(prompt, directory, Path(job["profiles"]) if job["profiles"] else None)
    reader = ShardReader(directory, split)
    pairs = reader.read(range(len(reader.groups)))
    rendered = prompts.render(pairs, job["max_context_tokens"])

    def row(index: int) -> dict[str, list[int]]:
        inputs, targets = rendered.inputs, rendered.targets
        return {
            "input_ids": inputs.values[inputs.offsets[index] : inputs.offsets[index + 1]].tolist(),
            "labels": targets.values[targets.offsets[index] : targets.offsets[index + 1]].tolist(),
        }

    number = {name: index for index, name in enumerate(pairs.speakers)}
    return {user: [row(i) for i in np.flatnonzero(pairs.speaker == number[user])] for user in job["users"]}


def new_model(job: Job) -> T5ForConditionalGeneration:
    """The backbone with a fresh adapter."""
    model = T5ForConditionalGeneration.from_pretrained(job["backbone"], dtype=torch.float32)
    if job["tuned"]:
        model.set_attn_implementation("eager")
    return get_peft_model(model, LoraConfig(**job["lora"]))


def optimizer_and_schedule(job: Job, model: torch.nn.Module, num_rows: int) -> tuple[torch.optim.AdamW, LambdaLR]:
    """As each user has them in `UserLora`."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=job["learning_rate"], weight_decay=job["weight_decay"])
    num_steps = job["epochs"] * -(-num_rows // job["rows"])
    return optimizer, LambdaLR(optimizer, lambda step: warmup_linear(step, num_steps, job["warmup_share"]))


def pad(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch, as long as its longest row."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    labels = [torch.tensor(row["labels"]) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def train_in_a_loop(job: Job) -> None:
    """One PEFT model; its adapter is made anew for each user."""
    model = new_model(job)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    train, validation = rows_by_user(job, "users/train"), rows_by_user(job, "users/validation")
    for number, user in enumerate(job["users"]):
        torch.manual_seed(job["seed"] + number)
        for layer in layers:
            layer.reset_lora_parameters("default", True)
        optimizer, schedule = optimizer_and_schedule(job, model, len(train[user]))
        batches = DataLoader(train[user], batch_size=job["rows"], shuffle=True, collate_fn=pad)
        held_out = DataLoader(validation[user], batch_size=ROWS_IN_EVALUATION, collate_fn=pad)
        best, weights = float("inf"), []
        for _ in range(job["epochs"]):
            model.train()
            for batch in batches:
                with torch.autocast("cpu", torch.bfloat16, enabled=job["bf16"]):
                    loss = model(**batch).loss
                loss.backward()
                if job["max_grad_norm"]:
                    torch.nn.utils.clip_grad_norm_(trainable, job["max_grad_norm"])
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            loss = loss_of(job, model, held_out)
            if loss < best:
                best, weights = loss, [parameter.detach().clone() for parameter in trainable]
        with torch.no_grad():
            for parameter, value in zip(trainable, weights, strict=True):
                parameter.copy_(value)
        model.save_pretrained(Path(job["output"]) / user)


@torch.no_grad()
def loss_of(job: Job, model: torch.nn.Module, batches: DataLoader) -> float:
    """Nats per token."""
    model.eval()
    nll = tokens = 0.0
    for batch in batches:
        count = int((batch["labels"] != -100).sum())
        with torch.autocast("cpu", torch.bfloat16, enabled=job["bf16"]):
            nll += float(model(**batch).loss) * count
        tokens += count
    return nll / tokens


def train_with_trainers(job: Job) -> None:
    """A Trainer for each user, all in this one process, so that the libraries are loaded once."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(job["backbone"])
    train, validation = rows_by_user(job, "users/train"), rows_by_user(job, "users/validation")
    for number, user in enumerate(job["users"]):
        torch.manual_seed(job["seed"] + number)
        model = new_model(job)
        trainer = Seq2SeqTrainer(
            model=model,
            args=Seq2SeqTrainingArguments(
                output_dir=str(Path(job["output"]) / f"{user}.checkpoints"),
                num_train_epochs=job["epochs"],
                per_device_train_batch_size=job["rows"],
                per_device_eval_batch_size=ROWS_IN_EVALUATION,
                max_grad_norm=job["max_grad_norm"],
                bf16=job["bf16"],
                use_cpu=True,
                eval_strategy="epoch",
                save_strategy="epoch",
                save_only_model=True,
                save_total_limit=1,
                load_best_model_at_end=True,
                prediction_loss_only=True,
                label_names=["labels"],
                report_to="none",
                disable_tqdm=True,
                seed=job["seed"] + number,
            ),
            train_dataset=train[user],
            eval_dataset=validation[user],
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
            processing_class=tokenizer,
            optimizers=optimizer_and_schedule(job, model, len(train[user])),
        )
        trainer.train()
        model.save_pretrained(Path(job["output"]) / user)


if __name__ == "__main__":
    {"loop": train_in_a_loop, "trainer": train_with_trainers}[sys.argv[1]](json.loads(sys.argv[2]))
