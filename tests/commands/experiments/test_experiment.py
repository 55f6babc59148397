"""Rows that are experiments: commands and flags, reuse, failures that take nothing else with them; LaTeX."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from commands.experiments import child_process
from commands.experiments.before import run_before
from commands.experiments.child_process import Run
from commands.experiments.collect import collect
from commands.experiments.experiment import Experiment
from commands.table import Table
from evaluation.report.files import latex
from evaluation.scores.run_scores import adapter_size, validation_perplexity

WHAT = ("fit", "predict")


def test_commands_of_a_row(commands, tmp_path, capsys):
    overrides = {"model.rank": 4, "data.users": ["ada", "ben"], "model.use_rslora": True, "data.control": None}
    systems = {"LoRA r=4": Experiment(["a.yaml", "b.yaml"], overrides)}
    paths, failed = collect(systems, tmp_path / "logs")
    flags = ["--config", "a.yaml", "--config", "b.yaml", "--model.rank=4", '--data.users=["ada", "ben"]']
    flags += ["--model.use_rslora=true", "--data.control=null"]
    assert commands == [["fit", *flags], ["predict", *flags]]
    assert (paths, failed) == ({"LoRA r=4": tmp_path / "runs/a/predictions.jsonl"}, {})
    assert capsys.readouterr().out.splitlines() == [
        f"[1 of 1] LoRA r=4: fit ({tmp_path}/logs/1-LoRA-r=4.fit.log)",
        "[1 of 1] LoRA r=4: fit 2 s",
        f"[1 of 1] LoRA r=4: predict ({tmp_path}/logs/1-LoRA-r=4.predict.log)",
        "[1 of 1] LoRA r=4: predict 2 s",
        f"[1 of 1] LoRA r=4: {tmp_path}/runs/a/predictions.jsonl",
    ]


@pytest.mark.parametrize("jobs", [1, 2])
def test_rows_at_once_begin_with_those_that_make_backbones(commands, tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(Experiment, "backbone", property(lambda one: None if one.experiment == "psp.yaml" else "b"))
    systems = {name: Experiment(f"{name}.yaml") for name in ("lora", "broken", "psp", "lora_psp")}
    paths, failed = collect(systems, tmp_path, jobs)
    begun = [(command[0], Path(command[2]).stem) for command in commands]
    fit, predict = ({name: begun.index((what, name)) for _, name in begun if (what, name) in begun} for what in WHAT)
    assert begun[:2] == [("fit", "psp"), ("predict", "psp")]
    if jobs == 1:
        assert [name for _, name in begun[2:]] == ["lora", "lora", "broken", "lora_psp", "lora_psp"]
    else:
        assert begun[2:4] == [("fit", "lora"), ("fit", "broken")]
        assert begun[4:6] == [("predict", "lora"), ("fit", "lora_psp")]  # in the place of the one that has failed
    assert all(fit[name] < predict[name] for name in predict)
    assert list(paths) == ["lora", "psp", "lora_psp"]  # in the table's order
    assert list(failed) == ["broken"]


def test_what_is_done_is_not_started_unless_something_before_it_was(commands, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Experiment, "backbone", property(lambda one: None if one.experiment == "psp.yaml" else "b"))
    systems = {name: Experiment(f"{name}.yaml", commands=["fit", "test", "predict"]) for name in ("a", "b", "psp")}
    for name in systems:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "predictions.jsonl").touch()
    asked = []

    def finished(arguments):
        """All of a; of b the test and the prediction, which are of other weights by then; nothing of psp."""
        asked.append([(one[0], Path(one[2]).stem) for one in arguments])
        known = [one for one in arguments if one[2] == "a.yaml" or (one[2] == "b.yaml" and one[0] != "fit")]
        return {tuple(one): tmp_path / "runs" / Path(one[2]).stem for one in known}

    monkeypatch.setattr(child_process, "finished", finished)
    paths, failed = collect(systems, tmp_path)
    assert [(one[0], Path(one[2]).stem) for one in commands] == [
        *((what, "psp") for what in ("fit", "test", "predict")),
        *((what, "b") for what in ("fit", "test", "predict")),
    ]
    assert (list(paths), failed) == (["a", "b", "psp"], {})
    assert asked[0] == [(what, "psp") for what in ("fit", "test", "predict")]  # the others when these are there
    assert len(asked) == 2 and len(asked[1]) == 6
    assert "[1 of 3] a: fit is done" in capsys.readouterr().out


def test_commands_before_that_are_done(commands, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        child_process, "finished", lambda asked: {tuple(one): tmp_path for one in asked if "new" not in one[2]}
    )
    before = ["prepare --config corpus.yaml", "fit --config a.yaml", "fit --config new.yaml", "predict --config b.yaml"]
    run_before(before, tmp_path)
    assert [" ".join(one) for one in commands] == [before[0], before[2], before[3]]  # b may be of what is new
    assert "[before, 2 of 4] fit --config a.yaml: is done" in capsys.readouterr().out


def test_another_preparation_may_change_what_is_done(commands, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        child_process, "finished", lambda them: asked.append(len(them)) or {tuple(one): tmp_path for one in them}
    )
    run_before(["prepare --config a", "fit --config b", "prepare --config c", "fit --config d"], tmp_path)
    assert len(asked) == 2
    assert [one[0] for one in commands] == ["prepare", "prepare"]


def test_two_rows_that_write_the_same_predictions_both_fail(commands, tmp_path):
    systems = {"one": Experiment("a.yaml"), "ten": Experiment("a.yaml", {"n": 10}), "b": Experiment("b.yaml")}
    paths, failed = collect(systems, tmp_path)
    assert list(paths) == ["b"]
    assert list(failed) == ["one", "ten"]
    assert "runs/a/predictions.jsonl too: what they differ in makes no other run" in failed["one"]


def test_settings_of_a_test_are_of_no_other_command(commands, tmp_path):
    row = Experiment("a.yaml", {"model.rank": 4}, ["fit", "test", "predict"], test={"data.test_general_pairs": 9})
    collect({"a": row}, tmp_path)
    flags = ["--config", "a.yaml", "--model.rank=4"]
    assert commands == [["fit", *flags], ["test", *flags, "--data.test_general_pairs=9"], ["predict", *flags]]
    with pytest.raises(ValueError, match="but no test in"):
        Experiment("a.yaml", test={"data.test_general_pairs": 9})


def test_a_row_that_fails_takes_nothing_with_it(commands, tmp_path):
    good = Experiment("a.yaml", {}, ["predict"])
    systems = {"old": Path("old.jsonl"), "bad": Experiment("broken.yaml"), "good": good}
    paths, failed = collect(systems, tmp_path)
    assert list(paths) == ["old", "good"]
    assert list(failed) == ["bad"]
    assert failed["bad"].startswith("lightning fit: out of luck (all of it: ")
    assert [command[0] for command in commands] == ["fit", "predict"]  # no prediction without the fit


def test_an_experiment_that_writes_no_predictions(commands, monkeypatch, tmp_path):
    async def run(*_):
        return Run(tmp_path, None, 1.0)

    monkeypatch.setattr(child_process, "run_lightning", run)
    _, failed = collect({"a": Experiment("a.yaml", {}, ["predict"])}, tmp_path)
    assert "has written no predictions.jsonl" in failed["a"]
    assert "callbacks.PredictionWriter" in failed["a"]
    with pytest.raises(ValueError, match="add predict"):
        Experiment("a.yaml", {}, ["fit"])


def test_adapters_and_validation_of_a_run(tmp_path):
    assert (adapter_size(tmp_path), validation_perplexity(tmp_path)) == (None, None)
    for user, rank in (("ada", 2), ("ben", 3)):
        directory = tmp_path / "adapters" / user
        directory.mkdir(parents=True)
        weights = {"A": torch.zeros(rank, 5), "B": torch.zeros(7, rank)}
        save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    parameters, size = adapter_size(tmp_path)
    assert parameters == 3 * 5 + 7 * 3
    assert size == (tmp_path / "adapters/ben/adapter_model.safetensors").stat().st_size
    (tmp_path / "fit.card.json").write_text('{"metrics": {"val/best_macro_perplexity": 84.5, "val/perplexity": 1.0}}')
    assert validation_perplexity(tmp_path) == 84.5


def test_latex():
    text = latex([["a_b", "x %"], ["LoRA & co", "**1.0** [0, 1]"], ["base", "2 ="]], "50 % better")
    assert text.splitlines()[4:9] == [
        r"\toprule",
        r"a\_b & x \% \\",
        r"\midrule",
        r"LoRA \& co & \textbf{1.0} [0, 1] \\",
        r"base & 2 = \\",
    ]
    assert r"\begin{tabular}{lr}" in text
    assert r"\caption{50 \% better}" in text


def test_settings_of_all_systems_and_the_names_of_their_runs(tmp_path):
    systems = {
        "ten": Experiment("a.yaml", {"run": "ten", "n": 10}),
        "mine": Experiment("a.yaml", {"seed_everything": 1, "model.rank": 4}),
        "file": Path("predictions.jsonl"),
    }
    changes = {"seed_everything": 2, "model.adapters": "runs/x/adapters"}
    table = Table(systems, tmp_path, per_user=False, encoder=None, overrides=changes)
    assert table.systems["ten"].overrides == {"n": 10, **changes, "run": "ten,seed_everything=2"}
    assert table.systems["mine"] == Experiment("a.yaml", {"model.rank": 4, **changes})
    assert table.systems["file"] == Path("predictions.jsonl")
    table = Table(systems, tmp_path, per_user=False, encoder=None, overrides={"run": "other"})
    assert table.systems["ten"].overrides == {"n": 10, "run": "other"}
