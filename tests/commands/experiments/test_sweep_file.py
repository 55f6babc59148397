"""Sweep files: their points, the command of each, compared with that of W&B's agent, and what is wrong with them."""

import math
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml

from commands.experiments.sweep_file import RANGES, read_sweep

SWEEPS = Path(__file__).parents[3] / "experiments" / "sweeps"
COMMAND = ["lightning", "fit", "--config", "experiments/x.yaml", "${args}"]


@pytest.fixture
def sweep_of(tmp_path):
    """Writes a sweep file and reads it."""

    def read(parameters, method="grid", **keys):
        content = {"method": method, "metric": {"name": "val/loss"}, "parameters": parameters, "command": COMMAND}
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"program": "lightning", **content, **keys}, sort_keys=False))
        return read_sweep(path)

    return read


def agents_command(sweep, point, nested, monkeypatch):
    """The command line that wandb's own agent starts when its server sends it this point."""
    from wandb import wandb_agent

    started = []
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **_: started.append(command) or Mock())
    monkeypatch.chdir(sweep.path.parent)  # it writes a file
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "p")  # it sets these; so they are put back behind the test
    agent = wandb_agent.Agent.__new__(wandb_agent.Agent)
    vars(agent).update(_function=None, _in_jupyter=False, _forward_signals=False, _run_processes={})
    agent._sweep_command = list(sweep.command or [])
    args = {name: {"value": value} for name, value in (nested or point).items()}
    agent._command_run({"run_id": "r", "program": sweep.program, "args": args})
    return started[0]


def test_a_grid_is_every_combination_the_first_changing_slowest(sweep_of):
    sweep = sweep_of({"model.rank": {"values": [4, 8]}, "seed": {"value": 7}, "model.lr": {"values": [0.1, 1e-05]}})
    assert [tuple(point.items()) for point in sweep.points()] == [
        (("model.rank", rank), ("seed", 7), ("model.lr", rate)) for rank in (4, 8) for rate in (0.1, 1e-05)
    ]
    assert sweep.points(count=3) == sweep.points()[:3]
    assert sweep.arguments(sweep.points()[1]) == [*COMMAND[1:4], "--model.rank=4", "--seed=7", "--model.lr=1e-05"]


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (COMMAND, "lightning"),
        (["${env}", "${program}", "fit", "${args}", "--x", 3], "lightning"),
        (["${interpreter}", "${program}", "fit", "${args_no_equals}"], "commands/cli.py"),
        (["${interpreter}", "-m", "commands.cli", "fit", "${args_no_boolean_flags}"], "lightning"),
        (["lightning", "fit", "--config", "${envvar:WHERE}/x.yaml", "${args}"], "lightning"),
    ],
)
def test_the_command_is_that_of_the_agent(sweep_of, monkeypatch, command, program):
    monkeypatch.setenv("WHERE", "there")
    parameters = {
        "model.init_args.rank": {"values": [1, 2]},
        "data.tags": {"values": [["q", "v"]]},
        "trainer.deterministic": {"value": True},
        "model.text": {"value": "two words"},
        "model.none": {"value": None},
        "model.lr": {"value": 1e-05},
    }
    sweep = sweep_of(parameters, command=command, program=program)
    for point in sweep.points():
        theirs = agents_command(sweep, point, None, monkeypatch)
        assert sweep.command_line(point) == theirs
        assert sweep.arguments(point) == theirs[theirs.index("fit") :]
        assert "fit" in theirs and any("rank" in word for word in theirs)


def test_nested_parameters_are_one_argument(sweep_of, monkeypatch):
    inner = {"rank": {"values": [2, 3]}, "alpha": {"value": 1}}
    sweep = sweep_of({"model": {"parameters": {"init_args": {"parameters": inner}}}, "seed": {"value": 5}})
    points = sweep.points()
    assert points == [{"model.init_args.rank": rank, "model.init_args.alpha": 1, "seed": 5} for rank in (2, 3)]
    assert sweep.arguments(points[0])[3:] == ["--model={'init_args': {'rank': 2, 'alpha': 1}}", "--seed=5"]
    nested = {"model": {"init_args": {"rank": 2, "alpha": 1}}, "seed": 5}
    assert sweep.command_line(points[0]) == agents_command(sweep, points[0], nested, monkeypatch)


@pytest.mark.parametrize("name", ["lora_rank", "one_attribute"])
def test_the_published_sweeps(name):
    sweep = read_sweep(SWEEPS / f"{name}.yaml")
    (values,) = (one["values"] for one in sweep.parameters.values())
    assert len(sweep.points()) == len(values) > 1
    assert sweep.arguments(sweep.points()[0])[:2] == ["fit", "--config"]


def test_random_draws_lie_in_their_ranges_and_are_repeatable(sweep_of):
    ranges = {
        "a": {"min": 0.0, "max": 1.0},
        "b": {"min": 1, "max": 3},
        "c": {"distribution": "log_uniform_values", "min": 0.001, "max": 10.0},
        "d": {"distribution": "q_uniform", "min": 0, "max": 100, "q": 25},
        "e": {"values": ["x", "y"], "probabilities": [0.0, 1.0]},
        "f": {"distribution": "uniform", "min": 5, "max": 6},
        "g": {"value": 9},
    }
    sweep = sweep_of(ranges, "random")
    points = sweep.points(count=400, seed=1)
    columns = {name: [point[name] for point in points] for name in ranges}
    assert len(points) == 400
    assert 0.0 <= min(columns["a"]) < 0.05 and 0.95 < max(columns["a"]) <= 1.0
    assert set(columns["b"]) == {1, 2, 3}
    assert all(0.001 <= value <= 10.0 for value in columns["c"])
    below = sum(value < 0.1 for value in columns["c"])  # half of the logarithms; 5 deviations of 10
    assert 150 < below < 250
    assert set(columns["d"]) == {0, 25, 50, 75, 100}
    assert (set(columns["e"]), set(columns["g"])) == ({"y"}, {9})
    assert all(5 <= value <= 6 and not math.isclose(value, round(value)) for value in columns["f"][:5])
    assert sweep.points(count=3, seed=1) == points[:3]
    assert sweep.points(count=3, seed=2) != points[:3]


def test_equal_draws_are_one_point_and_the_file_may_limit_them(sweep_of):
    coin = {"side": {"values": ["head", "tail"]}}
    points = sweep_of(coin, "random", run_cap=50).points()
    assert sorted(point["side"] for point in points) == ["head", "tail"]
    assert len(sweep_of(coin, "random", run_cap=50).points(count=1)) == 1
    with pytest.raises(ValueError, match="say how many with --count"):
        sweep_of(coin, "random").points()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "bayes"}, "method is bayes; here it can be grid or random, for others use: wandb sweep"),
        ({"method": None}, "method is None"),
        ({"parameters": {}}, "parameters: expected at least one `name: {values: \\[...\\]}`, got {}"),
        ({"parameters": None}, "parameters: expected at least one"),
        ({"metric": {"goal": "minimize"}}, "expected {name: ..., goal: minimize or maximize}"),
        ({"metric": {"name": None}}, "metric is {'name': None}; expected {name: ..."),
        ({"metric": {"name": ["val/x"]}}, "expected {name: ..., goal: minimize or maximize}"),
        ({"metric": {"name": 3}}, "expected {name: ..., goal: minimize or maximize}"),
        ({"metric": {"name": "x", "goal": "up"}}, "goal: minimize or maximize"),
        ({"command": ["lightning", "fit"]}, "expected a list with \\${args} in it"),
    ],
)
def test_what_is_wrong_is_named(sweep_of, keys, message):
    with pytest.raises(ValueError, match=f"mine.yaml: .*{message}"):
        sweep_of(**{"parameters": {"x": {"value": 1}}, **keys})


@pytest.mark.parametrize(
    ("method", "parameter", "message"),
    [
        ("grid", 3, "parameters.x: expected value, values, a range or parameters, got 3"),
        ("grid", {"values": []}, "parameters.x: expected value, or values with at least one"),
        ("grid", {"min": 1, "max": 2}, "parameters.x: expected value, or values"),
        ("grid", {"parameters": {"y": {}}}, "parameters.x.parameters.y: expected value"),
        ("random", {"distribution": "normal", "mu": 0}, f"not drawn here; known are .* {', '.join(RANGES)}"),
        ("random", {"min": 2, "max": 1}, "expected numbers min <= max"),
        ("random", {"min": "1e-4", "max": 1.0}, "YAML reads 1e-4 as text"),
        ("random", {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}, "q above 0"),
        ("random", {"distribution": "int_uniform", "min": 0.5, "max": 3}, "int_uniform needs whole numbers"),
        ("random", {"distribution": "log_uniform_values", "min": 0, "max": 1}, "a logarithm needs min above 0"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(sweep_of, method, parameter, message):
    with pytest.raises(ValueError, match=f"mine.yaml: .*{message}"):
        sweep_of({"x": parameter}, method)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["python", "train.py", "${args}"], "can only be `lightning fit ...` here, got `python train.py --x=1`"),
        (["lightning", "test", "${args}"], "can only be `lightning fit ...` here"),
        (None, "can only be `lightning fit ...` here, got `/usr/bin/env python lightning --x=1`"),
        (["lightning", "fit", "${args_json_file}"], "args_json_file} in the command is not done here"),
    ],
)
def test_other_commands_are_refused(sweep_of, command, message):
    sweep = sweep_of({"x": {"value": 1}}, command=command)
    with pytest.raises(ValueError, match=message):
        sweep.arguments(sweep.points()[0])


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such sweep file"):
        read_sweep(tmp_path / "no.yaml")
    path = tmp_path / "a.yaml"
    for text, message in (("a: [", "not valid YAML"), ("- a", "expected the keys of a W&B sweep")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_sweep(path)


def test_early_terminate_is_said_to_do_nothing(sweep_of, capsys):
    sweep_of({"x": {"value": 1}}, early_terminate={"type": "hyperband"})
    assert "early_terminate is not done here, every point runs to its end" in capsys.readouterr().out
