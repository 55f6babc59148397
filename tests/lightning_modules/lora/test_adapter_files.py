"""Adapters as files: whose, of which backbone, whole or not there."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig

import artefacts.files
from lightning_modules.lora.adapter_files import TrainedAdapter, load_adapter, read_card, save_adapter
from lightning_modules.lora.stacked_lora import StackedLora

NAMES = ["ann", "ann2", "an", "ann/2", "ann.2", "ann%2", "ann 2", "A", "あん"]
NAMES += [".", "..", "../ann", "ann.partial", "ann.old"]
NAMES += ["山" * 40, "山" * 41, "a" * 120, "a" * 121, "a" * 300, "a" * 299 + "b"]


def save(adapters, user, number=1.0, backbone="b1"):
    weights = {"base_model.model.q.lora_A.weight": torch.full((2, 3), number)}
    adapter = TrainedAdapter(user, weights, {"backbone": backbone, "epochs": 3})
    return save_adapter(adapters, LoraConfig(r=2, target_modules=["q"]), adapter)


def test_no_two_names_meet_and_none_leaves_the_directory(tmp_path):
    adapters = tmp_path / "adapters"
    for number, user in enumerate(NAMES):
        directory = save(adapters, user, number)
        assert directory.parent == adapters
    for number, user in enumerate(NAMES):
        assert load_adapter(adapters, user, "b1", {})["base_model.model.q.lora_A.weight"].unique().tolist() == [number]
        assert {"user": user, "backbone": "b1", "epochs": 3}.items() <= read_card(adapters, user).items()
    assert [path.name for path in tmp_path.iterdir()] == ["adapters"]
    assert len(list(adapters.iterdir())) == len(NAMES)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_or_exchanged_file_is_not_loaded(tmp_path, name):
    directory, other = save(tmp_path, "ann"), save(tmp_path, "bob", 2.0)
    content = bytearray((directory / name).read_bytes())
    content[-2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"ann/{name} is not the file that .*ann/card.json describes.*; delete .*ann"):
        load_adapter(tmp_path, "ann", "b1", {})
    (directory / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load_adapter(tmp_path, "ann", "b1", {})
    shutil.rmtree(directory)
    other.rename(directory)
    with pytest.raises(ValueError, match="ann has weights of 'bob', expected those of 'ann'"):
        load_adapter(tmp_path, "ann", "b1", {})


def test_the_adapter_of_an_earlier_version_is_loaded(tmp_path):
    directory = save(tmp_path, "ann")
    card = json.loads((directory / "card.json").read_text())
    del card["files"]
    (directory / "card.json").write_text(json.dumps(card))
    assert load_adapter(tmp_path, "ann", "b1", {})
    (directory / "adapter_model.safetensors").write_bytes(b"\xff" * 99)
    with pytest.raises(ValueError, match="adapter_model.safetensors is damaged or missing .*train this user again"):
        load_adapter(tmp_path, "ann", "b1", {})
    (directory / "card.json").write_text('{"user"')
    with pytest.raises(ValueError, match="ann/card.json: not valid JSON .*train this user again"):
        load_adapter(tmp_path, "ann", "b1", {})


def test_a_directory_has_what_peft_writes_and_a_card(tmp_path):
    directory = save(tmp_path, "ann")
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "card.json"]
    assert json.loads((directory / "adapter_config.json").read_text())["r"] == 2


def test_what_is_half_written_is_not_there_and_then_replaced(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(artefacts.files, "publish_directory", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, "ann")
    monkeypatch.undo()
    assert read_card(tmp_path, "ann") is None
    for number in (1.0, 2.0):  # an earlier one is replaced
        save(tmp_path, "ann", number)
        assert load_adapter(tmp_path, "ann", "b1", {})["base_model.model.q.lora_A.weight"][0, 0] == number
        assert [path.name for path in tmp_path.iterdir()] == ["ann"]


def test_a_missing_adapter_and_that_of_another_backbone_are_refused(tmp_path):
    save(tmp_path, "ann", backbone="b1")
    with pytest.raises(FileNotFoundError, match=r"no weights of user 'bob' in .*; train them with: lightning fit"):
        load_adapter(tmp_path, "bob", "b1", {})
    with pytest.raises(ValueError, match="belong to backbone b1, but model.init_from is backbone b2"):
        load_adapter(tmp_path, "ann", "b2", {})


def test_an_adapter_for_other_matrices_is_refused(tiny_model):
    lora = StackedLora(tiny_model, LoraConfig(r=2, target_modules=["q", "v"]), 1)
    state = lora.to_peft(lora.rows[0])
    key = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"
    with pytest.raises(ValueError, match=rf"1 tensors differ, such as {key}: found \(3, 32\), expected \(2, 32\)"):
        lora.from_peft({**state, key: torch.zeros(3, 32)})
    with pytest.raises(ValueError, match=rf"{key}: found nothing, expected \(2, 32\); set rank and target_modules"):
        lora.from_peft({name: value for name, value in state.items() if name != key})
    with pytest.raises(ValueError, match=r"extra: found \(1,\), expected nothing"):
        lora.from_peft({**state, "extra": torch.zeros(1)})
