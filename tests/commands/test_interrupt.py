"""How a command ends: after Ctrl-C, SIGTERM or an error, and what it reports to a parent process."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from ending import terminate

from commands import cli
from commands.experiments.outcome import VARIABLE, Outcome, read_outcome


def pressed(*_):
    raise KeyboardInterrupt


def caught_by_lightning(*_):
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise SystemExit(1)  # noqa: B904 - as Lightning's trainer does it


@pytest.mark.parametrize("interrupted", [pressed, caught_by_lightning])
@pytest.mark.parametrize(
    ("function", "command"),
    [("commands.tools.run_tool", "table"), ("commands.training.trainer_cli.TrainerCLI", "fit")],
)
def test_an_interrupted_command_ends_in_one_line(monkeypatch, capsys, interrupted, function, command):
    monkeypatch.setattr(function, interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main([command])
    assert ended.value.code == 130
    assert ended.value.__suppress_context__
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        (SystemExit(0), None),
        (SystemExit("error: rank must be 1 or more\nor not"), "rank must be 1 or more"),
        (SystemExit(3), "exit code 3"),
        (KeyboardInterrupt(), "interrupted"),
        (KeyError("rank"), "KeyError: 'rank'"),
        (OSError("disk\n  is full"), "disk"),
    ],
)
def test_what_a_command_tells_its_parent(monkeypatch, tmp_path, error, reason):
    def dispatch(arguments, report):
        assert VARIABLE not in os.environ  # or children of this process would tell the same parent
        report.begin(Path("runs/a"))
        assert read_outcome(path) == Outcome("runs/a", "running", None)
        if error is not None:
            raise error

    path = tmp_path / "outcome.json"
    monkeypatch.setenv(VARIABLE, str(path))
    monkeypatch.setattr(cli, "dispatch", dispatch)
    with suppress(BaseException) if error else pytest.MonkeyPatch.context():
        cli.main([])
    assert read_outcome(path) == Outcome("runs/a", "failed" if reason else "finished", reason)


def test_a_wrong_flag_is_told_too(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "outcome.json"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", "--config=x", "--nothing=1"])
    assert ended.value.code == 2
    assert "nothing" in read_outcome(tmp_path / "outcome.json").reason


def test_a_fit_that_is_told_to_end_does_not_end_as_if_it_was_done(project, start_command):
    """`make quickstart` would go on with the next command."""
    fit = ["fit", "--config", "experiments/lora_tiny.yaml", "--run=told", "--model.max_epochs=2000"]
    run = project / "runs" / "told"
    assert terminate(start_command(*fit, "--checkpoint_every=0"), run / "checkpoints" / "last.ckpt") == 143
    assert json.loads((run / "fit.card.json").read_text())["status"] == "running"


def test_a_prediction_that_is_told_to_end_ends(project, start_command):
    """Lightning looks for signals in a fit only: a table that is stopped would wait for its child's last batch."""
    run = ["--config", "experiments/lora_tiny.yaml", "--run=told", "--model.max_epochs=1"]
    cli.main(["fit", *run])
    slow = ["--model.decoding.num_candidates=200", "--model.decoding.max_new_tokens=400"]
    partial = project / "runs" / "told" / "predictions.jsonl.partial"
    assert terminate(start_command("predict", *run, *slow), partial) == 143
    assert not (partial.parent / "predictions.jsonl").is_file()
