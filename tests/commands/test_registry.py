"""`lightning --help` and mistakes in the first words; each command's own help."""

import subprocess
import sys

import pytest

from commands.cli import main
from commands.registry import COMMANDS

HEAVY = {"lightning", "torch", "transformers", "matplotlib", "wandb", "numpy", "jsonargparse"}


def test_the_help_lists_every_command_and_imports_nothing_heavy(capsys):
    main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert all(f"  {name:<{len('conversation_table')}}  {command.help}" in lines for name, command in COMMANDS.items())
    main(["human-eval", "--help"])
    shown = capsys.readouterr().out
    assert "human-eval export" in shown and "human-eval score" in shown and "profile_table" not in shown
    code = (
        f"from commands.cli import main; main(['--help']); import sys; sys.exit(bool(set(sys.modules) & {set(HEAVY)}))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    assert "--config" in capsys.readouterr().out


def test_a_run_has_all_metrics_and_help_has_not(monkeypatch):
    calls = []
    monkeypatch.setattr("commands.cli.import_torchmetrics_for_help", lambda: calls.append("hidden"))
    monkeypatch.setattr("commands.training.trainer_cli.run_trainer", lambda arguments, _: calls.append(arguments[-1]))
    main(["fit", "--config=x"])
    main(["fit", "--help"])
    assert calls == ["--config=x", "hidden", "--help"]


def test_the_version(capsys, monkeypatch):
    monkeypatch.setattr("commands.cli.version", {"user-dialogue": "1.2"}.get)
    main(["--version"])
    assert capsys.readouterr().out == "1.2\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel"], "error: no such command: tabel; did you mean table? Commands: prepare, fit, "),
        (["human_eval"], "error: no such command: human_eval; did you mean human-eval? "),
        (["xyz"], "error: no such command: xyz; Commands: prepare, fit, "),
        (["human-eval", "exprot"], "error: `lightning human-eval` is followed by export or score, got exprot"),
        (["human-eval"], "error: `lightning human-eval` is followed by export or score, got nothing"),
        ([], "usage: lightning "),
    ],
)
def test_no_such_command(words, message):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code.startswith(message)
