"""Backbones as files: plain transformers loads them, and messages where they are not in order."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml

from datamodules.prompts.template import PromptTemplate
from lightning_modules.backbones.files import load_backbone, save_backbone
from lightning_modules.backbones.t5 import new_model
from lightning_modules.reply_module import differences

PROMPT = PromptTemplate(
    style="psp", attribute_format="{attribute}＝{value}", separator=" / ", attributes=("age", "city")
)
WORDING = {"age": {"written": "Alter", "values": {"old": "alt"}}, "city": {"written": "in", "values": {"ulm": "Ulm"}}}
INPUTS = torch.tensor([[9, 10, 11, 1]])
LABELS = torch.tensor([[12, 13, 1]])

PLAIN_TRANSFORMERS = """
import sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
batch = tokenizer(text="yes today", text_target="no", return_tensors="pt")
print(batch["input_ids"].tolist(), float(model(**batch).loss))
print(tokenizer.decode(tokenizer("にゃー ok", add_special_tokens=False).input_ids))
ours = [name for name in ("datamodules", "lightning_modules", "callbacks", "evaluation") if name in sys.modules]
assert not ours, ours
"""


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=INPUTS, labels=LABELS).logits


def fresh_model(prepared, seed):
    torch.manual_seed(seed)
    return new_model("tiny", json.loads((prepared / "manifest.json").read_text())["vocabulary_size"])


@pytest.fixture
def copied(tiny_backbone, tmp_path):
    """A backbone that a test may damage, where an experiment's run would have put it."""
    return shutil.copytree(tiny_backbone, tmp_path / "runs" / "some_run" / "backbone")


def test_saved_and_loaded_gives_the_same_logits(prepared, tmp_path):
    model = fresh_model(prepared, 1)
    fingerprint = save_backbone(model, prepared / "tokenizer", PROMPT, tmp_path / "backbone", steps=7)
    loaded = load_backbone(tmp_path / "backbone")
    torch.testing.assert_close(logits(loaded.model), logits(model), rtol=0, atol=0)
    assert (loaded.fingerprint, loaded.prompt) == (fingerprint, PROMPT)
    assert loaded.tokenizer.get_vocab_size() == loaded.model.config.vocab_size
    manifest = json.loads((tmp_path / "backbone" / "manifest.json").read_text())
    assert (manifest["fingerprint"], manifest["steps"]) == (fingerprint, 7)
    assert sorted(manifest["files"]) == [
        "config.json", "generation_config.json", "tokenizer.4.0.0.json", "tokenizer_config.json"
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone"]


@pytest.mark.parametrize(
    ("prompt", "profile", "rendered"),
    [
        (PROMPT, {"age": "20s", "residence": "Tokyo"}, "age＝20s"),
        (replace(PROMPT, wording=WORDING), {"age": "old", "city": "ulm"}, "Alter＝alt / in＝Ulm"),
    ],
    ids=["plain", "wording"],
)
def test_the_prompt_comes_back_with_an_example(prepared, tmp_path, prompt, profile, rendered):
    save_backbone(fresh_model(prepared, 1), prepared / "tokenizer", prompt, tmp_path / "backbone")
    assert load_backbone(tmp_path / "backbone").prompt == prompt
    described = yaml.safe_load((tmp_path / "backbone" / "prompt.yaml").read_text())
    assert described["attribute_format"] == "{attribute}＝{value}"
    assert described["example"] == {"profile": profile, "rendered": rendered}


def test_a_backbone_saved_in_16_bits_is_loaded_in_32(prepared, tmp_path):
    save_backbone(fresh_model(prepared, 1).bfloat16(), prepared / "tokenizer", PROMPT, tmp_path / "backbone")
    assert load_backbone(tmp_path / "backbone").model.dtype == torch.float32


def test_plain_transformers_loads_it_in_a_process_without_this_project(tiny_backbone, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", PLAIN_TRANSFORMERS, str(tiny_backbone)], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    first, text = run.stdout.splitlines()
    ours = load_backbone(tiny_backbone)
    ids, label = ([*ours.tokenizer.encode(text).ids, 1] for text in ("yes today", "no"))  # as training ends them
    assert text == "にゃー ok"
    loss = ours.model.eval()(input_ids=torch.tensor([ids]), labels=torch.tensor([label])).loss
    assert first.startswith(f"{[ids]} ")
    assert float(first.rpartition(" ")[2]) == pytest.approx(loss.item(), rel=1e-5)


def test_the_same_backbone_may_be_saved_again_and_another_may_not(prepared, tmp_path):
    first = save_backbone(fresh_model(prepared, 1), prepared / "tokenizer", PROMPT, tmp_path / "backbone")
    assert save_backbone(fresh_model(prepared, 1), prepared / "tokenizer", PROMPT, tmp_path / "backbone") == first
    with pytest.raises(ValueError, match=f"backbone holds another backbone \\({first}\\)"):
        save_backbone(fresh_model(prepared, 2), prepared / "tokenizer", PROMPT, tmp_path / "backbone")
    assert load_backbone(tmp_path / "backbone").fingerprint == first


def test_what_a_killed_process_left_is_replaced(prepared, tmp_path):
    for name in ("backbone", "backbone.partial", "backbone.old"):  # none of them is complete
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    fingerprint = save_backbone(fresh_model(prepared, 1), prepared / "tokenizer", PROMPT, tmp_path / "backbone")
    assert load_backbone(tmp_path / "backbone").fingerprint == fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


def test_a_save_that_fails_leaves_nothing_that_looks_finished(prepared, tmp_path):
    with pytest.raises(FileNotFoundError):
        save_backbone(fresh_model(prepared, 1), tmp_path / "no tokenizer", PROMPT, tmp_path / "backbone")
    with pytest.raises(FileNotFoundError, match="no backbone in"):
        load_backbone(tmp_path / "backbone")


def test_a_missing_backbone_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "runs" / "pretrain_small" / "backbone"
    with pytest.raises(FileNotFoundError, match=f"no backbone in {directory}; point init_from at a directory"):
        load_backbone(directory)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "pretrain_small.yaml").touch()
    with pytest.raises(FileNotFoundError, match="lightning fit --config experiments/pretrain_small.yaml"):
        load_backbone(directory)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "prompt.yaml"])
def test_a_changed_and_a_missing_file_are_refused(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[-2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"have fingerprint .{16}, its manifest says .{16}: they were changed"):
        load_backbone(copied)
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_backbone(copied)


def test_a_changed_configuration_is_refused(copied):
    (copied / "config.json").write_text((copied / "config.json").read_text().replace("0.0", "0.5", 1))
    with pytest.raises(ValueError, match="config.json is not the file that .*manifest.json describes.*retrain it"):
        load_backbone(copied)


def test_what_differs_between_two_prompts_is_named():
    """Long wordings are not printed."""
    other = {**WORDING, "age": {"written": "age", "values": {"old": "aged"}}}
    then, now = PromptTemplate("psp", wording=WORDING), PromptTemplate("ppp", wording=other)
    assert differences(then, now) == ["style was 'psp', now 'ppp'", "the wording of age has changed"]
    assert differences(then, replace(then, wording={"age": WORDING["age"]})) == ["the wording of city has changed"]
    assert differences(then, replace(then)) == []
