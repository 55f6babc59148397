"""Reading predictions.jsonl: what is accepted, and what the messages say about what is not."""

import json
import re

import pytest

from artefacts.predictions import Prediction
from evaluation.results.cards import card_facts, check_same_split, on_other_backbones, read_card
from evaluation.results.predictions import check_same_pairs
from evaluation.results.predictions import read_predictions as read

GOOD = {
    "user": "ann",
    "pair_id": 0,
    "context": [["partner", "hello"], ["speaker", "hi"]],
    "reference": "fine",
    "candidates": ["good", ""],
    "nll": 2.5,
    "tokens": 3,
}


def write(path, *records):
    """Writes records (dicts, or raw bytes for broken lines) as JSON lines."""
    lines = [r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in records]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_reads_every_field(tmp_path):
    """The record comes back as written; unknown keys are ignored; line separators inside a text do not split it."""
    japanese = {**GOOD, "pair_id": 1, "reference": "はい\u2028ええ", "nll": 0, "extra": 1}
    first, second = read(write(tmp_path / "predictions.jsonl", GOOD, japanese))
    context = (("partner", "hello"), ("speaker", "hi"))
    assert first == Prediction("ann", 0, context, "fine", ("good", ""), nll=2.5, tokens=3)
    assert (second.reference, second.nll) == ("はい\u2028ええ", 0.0)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "Expecting property name"),
        (b"", "Expecting value"),
        (b'{"user": "\xff"}', "utf-8"),
        (b"[1]", "expected a JSON object, got list"),
        ({k: v for k, v in GOOD.items() if k != "nll"}, "key 'nll' is missing, found candidates, context,"),
        ({**GOOD, "user": 7}, "key 'user' must be str, got int"),
        ({**GOOD, "user": " "}, "key 'user' is an empty string"),
        ({**GOOD, "reference": ""}, "key 'reference' is an empty string"),
        ({**GOOD, "pair_id": "0.0"}, "key 'pair_id' must be a whole number"),
        ({**GOOD, "pair_id": 1.5e18}, "key 'pair_id' was rounded to 1.5e+18 by a program whose"),
        ({**GOOD, "tokens": True}, "key 'tokens' must be int | None, got bool"),
        ({**GOOD, "tokens": 0}, "key 'tokens' must be at least 1, got 0"),
        ({**GOOD, "nll": float("nan")}, "key 'nll' must be finite and not negative (a sum in nats), got nan"),
        ({**GOOD, "nll": -0.1}, "got -0.1"),
        ({**GOOD, "candidates": []}, "'candidates' must be a list of at least one string"),
        ({**GOOD, "candidates": [None]}, "'candidates' must be a list of at least one string"),
        ({**GOOD, "context": [["someone", "hi"]]}, 'every turn must be ["speaker", text] or ["partner", text]'),
        ({**GOOD, "context": [["speaker"]]}, 'every turn must be ["speaker", text] or ["partner", text]'),
        (GOOD, "user 'ann', pair_id 0 was already given in line 1"),
    ],
)
def test_malformed_line_names_file_line_and_reason(tmp_path, bad, reason):
    path = write(tmp_path / "predictions.jsonl", GOOD, bad)
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2: ") + ".*" + re.escape(reason)):
        read(path)


def test_files_that_are_missing_or_empty_or_have_some_likelihoods(tmp_path):
    """A missing file names the command that makes it; an empty one is not an empty test set."""
    silent = {**GOOD, "pair_id": 1, "nll": None, "tokens": None}
    with pytest.raises(ValueError, match="null in some lines"):
        read(write(tmp_path / "some.jsonl", GOOD, silent))
    with pytest.raises(FileNotFoundError, match=r"lightning predict --config"):
        read(tmp_path / "predictions.jsonl")
    (tmp_path / "predictions.jsonl").touch()
    with pytest.raises(ValueError, match="is empty"):
        read(tmp_path / "predictions.jsonl")


def test_systems_must_answer_the_same_pairs(tmp_path):
    """Counts and first few differences by kind; no text of a person in the message."""
    base = read(write(tmp_path / "a.jsonl", *({**GOOD, "pair_id": i} for i in range(7))))
    others = [{**GOOD, "pair_id": i} for i in range(4, 8)]
    others[0]["reference"] = "private words"
    lora = read(write(tmp_path / "b.jsonl", *others))
    check_same_pairs("base", base, "again", list(reversed(base)))
    with pytest.raises(ValueError) as caught:
        check_same_pairs("base", base, "lora", lora)
    message = str(caught.value)
    assert "4 only in 'base' (first: ann/0, ann/1, ann/2, ...)" in message
    assert "1 only in 'lora' (first: ann/7)" in message
    assert "1 with another reference (first: ann/4)" in message
    assert "private" not in message and "fine" not in message


def test_rounded_ids_are_known_for_what_they_are(tmp_path):
    ids = [2**62 + 12345, 2**61 + 54321]
    ours = read(write(tmp_path / "a.jsonl", *({**GOOD, "pair_id": str(i)} for i in ids)))
    assert [one.pair_id for one in ours] == ids
    rounded = read(write(tmp_path / "b.jsonl", *({**GOOD, "pair_id": int(float(i))} for i in ids)))
    with pytest.raises(ValueError, match="the pair_id of one were rounded by .*JavaScript.*; copy them as strings"):
        check_same_pairs("ours", ours, "mine", rounded)


def test_cards(tmp_path):
    """A card is optional; a broken one is not ignored; different split fingerprints are refused."""
    path = tmp_path / "predictions.jsonl"
    assert read_card(path) == {}
    (tmp_path / "predictions.card.json").write_text('{"split": "0123456789abcdef", "decoding": {"top_p": 0.9}}')
    assert card_facts(read_card(path)) == ["split 0123456789ab", 'decoding {"top_p": 0.9}']
    (tmp_path / "predict.card.json").write_text('{"commit": "0123456789ab-dirty"}')  # the run's
    (tmp_path / "fit.card.json").write_text('{"commit": null}')
    assert card_facts(read_card(path))[0] == "commit 0123456789ab-dirty"
    (tmp_path / "fit.card.json").write_text('{"commit": "89ab01234567"}')
    assert card_facts(read_card(path))[1] == "fit commit 89ab01234567"
    (tmp_path / "predictions.card.json").write_text("[]")
    with pytest.raises(ValueError, match=r"predictions\.card\.json: expected a JSON object, got list"):
        read_card(path)
    check_same_split("base", {"split": "aa"}, "lora", {})
    with pytest.raises(ValueError, match="different test splits: aa and bb"):
        check_same_split("base", {"split": "aa"}, "lora", {"split": "bb"})


def test_a_tuned_system_stands_beside_the_backbone_it_was_tuned_from():
    def card(system, backbone, **data):
        return {"system": system, "backbone": backbone, "data": data}

    cards = {
        "base": card("ProfileSeq2Seq", "aaa"),
        "LoRA": card("UserLora", "aaa"),
        "retrieval + LoRA": card("UserLora", "aaa", retrieved={"num_replies": 2}),
        "joint": card("JointTuning", "jjj") | {"tuned_from": "aaa"},  # a backbone of its own
        "joint, of which nothing is known": card("JointTuning", "kkk"),
        "retrieval": {"system": "RetrievedReply"},
        "LoRA psp": card("UserLora", "bbb", profiles="p.parquet"),  # no backbone with this prompt is in the table
        "no card": {},
    }
    assert on_other_backbones(cards) == {}
    cards["stale"] = card("UserTuning", "old")
    refused = on_other_backbones(cards)
    assert list(refused) == ["stale"]
    assert "another backbone (old) than those beside it: 'base' (aaa);" in refused["stale"]
    cards["base psp"] = card("ProfileSeq2Seq", "new", profiles="p.parquet")
    assert list(on_other_backbones(cards)) == ["LoRA psp", "stale"]
    cards["another base"] = card("ProfileSeq2Seq", "old")
    assert list(on_other_backbones(cards)) == ["LoRA psp"]
    cards["other joint"] = card("JointTuning", "jjj") | {"tuned_from": "ooo"}
    assert list(on_other_backbones(cards)) == ["LoRA psp", "other joint"]
    tuned = {"one": card("UserLora", "aaa"), "two": card("UserLora", "bbb"), "three": card("UserTuning", "aaa")}
    assert list(on_other_backbones(tuned)) == ["two"]
