"""Files and the card that describes them: what is damaged, exchanged or half-written is not used."""

import json

import pytest
import torch

import artefacts.described
from artefacts.described import described, is_whole, require_described, require_whole_zip, rewrite
from artefacts.files import read_json, read_object, write_json


@pytest.fixture
def run(tmp_path):
    """Predictions and a test with their cards."""
    for name in ("predictions.jsonl", "test_users.csv", "swaps.csv"):
        (tmp_path / name).write_text("one\ntwo\n")
    write_json(tmp_path / "predictions.card.json", described(tmp_path / "predictions.jsonl"))
    write_json(tmp_path / "test_users.card.json", described(tmp_path / "swaps.csv", tmp_path / "test_users.csv"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "card"),
    [("predictions.jsonl", "predictions"), ("test_users.csv", "test_users"), ("swaps.csv", "test_users")],
)
@pytest.mark.parametrize("content", ["one\n", "", "one\ntwp\n"])
def test_a_file_that_was_cut_emptied_or_edited_is_named(run, name, card, content):
    require_described(run / f"{card}.card.json", "mend it")
    assert is_whole(run / name)
    (run / name).write_text(content)
    assert not is_whole(run / name)
    with pytest.raises(ValueError, match=f"{name} is not the file that .*{card}.card.json describes.*; mend it"):
        require_described(run / f"{card}.card.json", "mend it")


@pytest.mark.parametrize("name", ["predictions.jsonl", "swaps.csv"])
def test_a_rewritten_file_is_described_anew(run, name, monkeypatch):
    monkeypatch.setattr(artefacts.described, "write_text", lambda *_: None)  # as if killed before it
    rewrite(run / name, "one\n")
    assert not is_whole(run / name)
    monkeypatch.undo()
    rewrite(run / name, "one\n")
    assert is_whole(run / name)
    assert (run / name).read_text() == "one\n"


def test_the_card_of_an_earlier_version_checks_nothing(run):
    write_json(run / "predictions.card.json", {"system": "UserLora"})
    (run / "predictions.jsonl").write_text("other\n")
    require_described(run / "predictions.card.json", "mend it")
    require_described(run / "no.card.json", "mend it")
    assert is_whole(run / "predictions.jsonl")
    rewrite(run / "predictions.jsonl", "another\n")
    assert json.loads((run / "predictions.card.json").read_text()) == {"system": "UserLora"}


def test_a_flipped_bit_of_a_checkpoint_is_found(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"weights": torch.randn(100, 100), "user": "ann"}, path)
    require_whole_zip(path, "delete it")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"no zip", _flipped(content, len(content) // 2)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last.ckpt is damaged \(.*; delete it"):
            require_whole_zip(path, "delete it")


def _flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "fit.card.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="fit.card.json: not valid JSON .*; repair it, or delete it and repeat"):
        read_json(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="fit.card.json: expected a JSON object, got list; mend"):
        read_object(path, mend="mend")
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="fit.card.json: the keys b are missing; mend"):
        read_object(path, "a", "b", mend="mend")
