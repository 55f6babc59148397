"""The whole main path through the real command, on a few dozen real dialogues of the Chit-Chat corpus."""

import csv
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from datamodules.corpora import ChitChat, Drops

LIGHTNING = Path(sys.executable).with_name("lightning")
CORPUS = """
corpus: {class_path: datamodules.corpora.ChitChat, init_args: {path: dataset.json}}
output: data/some
splits: {num_target_users: 2, min_turns: 60, max_turns: 4000, min_dialogues: 4, pretrain_validation_share: 0.1}
vocabulary_size: 600
max_dropped: 0.9
"""
PRETRAIN = """
model:
  class_path: lightning_modules.ProfileSeq2Seq
  init_args:
    size: tiny
    optimizer: {class_path: torch.optim.Adafactor, init_args: {lr: 0.05}}
    lr_scheduler: lightning_modules.schedules.WarmupLinear
data: {class_path: datamodules.ReplyPairs, init_args: {preparation: corpus.yaml, tokens_per_batch: 1024}}
trainer: {accelerator: cpu, max_steps: 20, callbacks: [callbacks.BackboneExport, callbacks.SampleReplies]}
"""
USERS = """
model:
  class_path: %s
  init_args: {init_from: runs/pretrain/backbone, decoding: {max_new_tokens: 6}%s}
data: {class_path: datamodules.UserSets, init_args: {preparation: corpus.yaml, min_train_turns: 5}}
trainer:
  accelerator: cpu
  max_epochs: -1
  reload_dataloaders_every_n_epochs: 1
  num_sanity_val_steps: 0
  callbacks: [callbacks.AdapterCheckpoint, callbacks.PredictionWriter]
"""
PLAIN = """
import json, sys
from pathlib import Path
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM
for adapter in sys.argv[2:]:
    model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1]), adapter)
    assert any("lora_B" in name and value.abs().max() > 0 for name, value in model.named_parameters())
assert not {"datamodules", "lightning_modules", "callbacks"} & set(sys.modules)
"""


def some_dialogues(corpus):
    """The dialogues of the two people with the most of them, up to 25 each, and 40 of others."""
    wanted = Counter()
    chosen = {}
    dialogues = list(corpus.dialogues(Drops()))
    counts = Counter(speaker for dialogue in dialogues for speaker in {turn.speaker for turn in dialogue.turns})
    busy = [speaker for speaker, _ in counts.most_common(2)]
    for dialogue in dialogues:
        people = {turn.speaker for turn in dialogue.turns}
        key = next((person for person in busy if person in people), "others")
        if wanted[key] < (40 if key == "others" else 25) and people - set(busy):
            wanted[key] += 1
            chosen[dialogue.id] = dialogue
    return chosen


@pytest.mark.end_to_end
def test_from_a_corpus_to_a_table(tmp_path):
    pytest.importorskip("sentence_transformers")
    (path,) = ChitChat().files
    everything = json.loads(path.read_text(encoding="utf-8"))
    chosen = some_dialogues(ChitChat())
    (tmp_path / "dataset.json").write_text(json.dumps({id: everything[id] for id in chosen}))
    (tmp_path / "corpus.yaml").write_text(CORPUS)
    (tmp_path / "pretrain.yaml").write_text(PRETRAIN)
    (tmp_path / "lora.yaml").write_text(USERS % ("lightning_modules.UserLora", ", rank: 4, max_epochs: 2"))
    (tmp_path / "base.yaml").write_text(USERS % ("lightning_modules.ProfileSeq2Seq", ""))

    def lightning(*arguments):
        run = subprocess.run([LIGHTNING, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout

    assert "2 target users" in lightning("prepare", "--config", "corpus.yaml")
    lightning("fit", "--config", "pretrain.yaml")
    lightning("fit", "--config", "lora.yaml")
    assert "base_perplexity" in lightning("test", "--config", "lora.yaml")
    lightning("predict", "--config", "lora.yaml")
    lightning("predict", "--config", "base.yaml")
    systems = ["--systems={base: runs/base/predictions.jsonl, LoRA: runs/lora/predictions.jsonl}"]
    lightning("table", *systems, "--output=table", "--num_resamples=200")

    users = json.loads((tmp_path / "data" / "some" / "manifest.json").read_text())["target_users"]
    rows = list(csv.DictReader((tmp_path / "table" / "table.csv").open()))
    for system in ("base", "LoRA"):
        for user in [*users, "(micro)", "(macro)"]:
            found = [row for row in rows if (row["system"], row["user"]) == (system, user)]
            assert len(found) >= 2
            assert all(math.isfinite(float(row["value"])) for row in found)
    assert (tmp_path / "table" / "table.png").stat().st_size > 10_000
    assert all(user[:4] in (tmp_path / "table" / "table.md").read_text() for user in users)
    adapters = [tmp_path / "runs" / "lora" / "adapters" / user for user in users]
    code = [sys.executable, "-c", PLAIN, str(tmp_path / "runs" / "pretrain" / "backbone"), *map(str, adapters)]
    run = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
