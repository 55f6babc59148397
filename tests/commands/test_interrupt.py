"""Ctrl-C ends a command with exit code 130 and one line, whether Lightning has caught it or not."""

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
