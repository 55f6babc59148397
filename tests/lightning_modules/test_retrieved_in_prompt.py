"""Retrieval + LoRA with the real command: what is trained, what is written, and what is not mixed up."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commands.cli import main
from evaluation.results.cards import card_facts, read_card

SETTINGS = {"num_replies": 2, "max_tokens": 30}
USERS = "--data.users=[ada, ben]"
WITH = ["--data.retrieved={num_replies: 2, max_tokens: 30}"]


def predictions(run):
    lines = Path("runs", run, "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda line: line["pair_id"])


def fit_and_predict(experiment, run, *flags):
    arguments = ["--config", f"experiments/{experiment}.yaml", USERS, "--run", run, *flags]
    main(["fit", *arguments, "--model.max_epochs=1"])
    main(["predict", *arguments, "--model.max_epochs=1"])


@pytest.mark.parametrize(
    ("experiment", "weights"),
    [("lora_tiny", "adapters/ada/adapter_model.safetensors"), ("tuning_tiny", "models/ada/model.safetensors")],
)
def test_fit_and_predict_with_past_replies(project, capsys, experiment, weights):
    fit_and_predict(experiment, "plain")
    fit_and_predict(experiment, "with", *WITH)
    ours, theirs = predictions("with"), predictions("plain")
    for name in ("user", "pair_id", "context", "reference", "tokens"):  # the context is what it was
        assert [line[name] for line in ours] == [line[name] for line in theirs]
    assert all(our["nll"] != their["nll"] for our, their in zip(ours, theirs, strict=True))
    here, there = (load_file(Path("runs", run, weights)) for run in ("with", "plain"))
    assert any(not torch.equal(here[name], there[name]) for name in here)

    folder = Path(weights).parent
    cards = [json.loads(Path("runs", run, folder, "card.json").read_text()) for run in ("with", "plain")]
    assert cards[0]["settings"].pop("retrieved") == SETTINGS
    assert cards[0]["settings"] == cards[1]["settings"]  # adapters from before there was such a setting stay in use
    facts = card_facts(read_card(Path("runs/with/predictions.jsonl")))
    assert f"data {json.dumps({'retrieved': SETTINGS})}" in facts
    assert "data" not in read_card(Path("runs/plain/predictions.jsonl"))

    kind = "adapters=runs/{}/adapters" if experiment == "lora_tiny" else "tuned=runs/{}"
    predict = ["predict", "--config", f"experiments/{experiment}.yaml", USERS, "--run=mixed"]
    for run, flags in (("with", []), ("plain", WITH), ("with", ["--data.retrieved={num_replies: 1, max_tokens: 30}"])):
        with pytest.raises(SystemExit) as stop:
            main([*predict, f"--model.{kind.format(run)}", *flags])
        assert "were trained with data.retrieved" in stop.value.code
    main([*predict, f"--model.{kind.format('with')}", *WITH])
    assert predictions("mixed") == ours


def test_the_run_has_a_name_of_its_own(project, capsys):
    main(["fit", "--config", "experiments/lora_tiny.yaml", USERS, "--model.max_epochs=1", *WITH])
    (run,) = (path.name for path in Path("runs").glob("[!.]*") if path.name != "pretrain_tiny")
    assert "max_tokens=30" in run
    assert "num_replies=2" in run
