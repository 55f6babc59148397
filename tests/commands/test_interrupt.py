"""Ctrl-C ends a command with exit code 130 and one line, SIGTERM with 143, whether Lightning has caught it or not."""

import json
import time

import pytest

from commands import cli


def pressed(*_):
    raise KeyboardInterrupt


def caught_by_lightning(*_):
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise SystemExit(1)  # noqa: B904 - as Lightning's trainer does it


@pytest.mark.parametrize("interrupted", [pressed, caught_by_lightning])
@pytest.mark.parametrize(("name", "command"), [("run_tool", "table"), ("UserDialogueCLI", "fit")])
def test_an_interrupted_command_ends_in_one_line(monkeypatch, capsys, interrupted, name, command):
    monkeypatch.setattr(cli, name, interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main([command])
    assert ended.value.code == 130
    assert ended.value.__suppress_context__
    assert capsys.readouterr().err == "interrupted\n"


def test_another_exit_keeps_its_code(monkeypatch):
    def finished(*_):
        raise SystemExit(0)

    monkeypatch.setattr(cli, "UserDialogueCLI", finished)
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit"])
    assert ended.value.code == 0


def terminate(process, written):
    """Tells a command to end as soon as this file is written; returns its exit code."""
    deadline = time.monotonic() + 90
    while not written.is_file():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    process.join(30)
    return process.exitcode


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
