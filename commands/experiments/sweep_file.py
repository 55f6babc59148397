"""A W&B sweep file, as far as it can be followed without a server: its points, and the command line of each.

Followed: method `grid` and `random`, `metric`, `parameters` with `value`, `values`, ranges and nested `parameters`,
`command` with its macros, `run_cap`. Not followed: `bayes`, which needs W&B's server, and `early_terminate`.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Point = dict[str, Any]  # dotted name of a parameter -> its value
RANGES: dict[str, Callable[[random.Random, Any, Any, Any], float]] = {
    "uniform": lambda rng, low, high, q: rng.uniform(low, high),
    "int_uniform": lambda rng, low, high, q: rng.randint(low, high),
    "log_uniform_values": lambda rng, low, high, q: math.exp(rng.uniform(math.log(low), math.log(high))),
    "q_uniform": lambda rng, low, high, q: round(rng.uniform(low, high) / q) * q,
}
IN_FRONT = ("/usr/bin/env", "python", "-m")  # by `${env}` and `${interpreter}`
OURS = ("lightning", "commands.cli", "commands/cli.py")


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file says; `read_sweep` checks it."""

    path: Path
    method: str  # grid or random
    metric: str
    maximize: bool
    parameters: dict[str, dict[str, Any]]  # name -> `{value: ...}`, `{values: [...]}`, a range or `{parameters: {...}}`
    command: list[str] | None  # with its macros; None for W&B's own
    program: str
    run_cap: int | None

    def points(self, count: int | None = None, seed: int = 0) -> list[Point]:
        """The points of a grid, the first parameter changing slowest, or random draws; equal draws are one point.

        A higher `count` adds points after the earlier ones. Raises ValueError if nothing says how many to draw.
        """
        limits = [limit for limit in (count, self.run_cap) if limit is not None]
        names, specifications = zip(*_leaves(self.parameters), strict=True)
        if self.method == "grid":
            values = itertools.product(*(_choices(one) for one in specifications))
        elif limits:
            rng = random.Random(seed)
            values = ([_draw(rng, one) for one in specifications] for _ in itertools.count())
        else:
            raise ValueError(f"{self.path}: random draws have no end; say how many with --count")
        points: list[Point] = []
        for row in itertools.islice(values, min(limits, default=None)):
            point = dict(zip(names, row, strict=True))
            if point not in points:
                points.append(point)
        return points

    def command_line(self, point: Point) -> list[str]:
        """The command that `wandb agent` would start for this point; ValueError at a macro that is not followed."""
        # wandb's own; imported here because that takes two seconds.
        from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

        arguments = {name: {"value": value} for name, value in _nested(self.parameters, iter(point.values())).items()}
        macros = {
            **create_sweep_command_args({"args": arguments}),
            "env": ["/usr/bin/env"],
            "interpreter": ["python"],
            "program": [self.program],
        }
        words: list[str] = []
        for word in map(str, create_sweep_command(list(self.command or []))):
            if not (word.startswith("${") and word.endswith("}")):
                words.append(word)
            elif word[2:-1] in macros:
                words += macros[word[2:-1]]
            else:
                raise ValueError(f"{self.path}: {word} in the command is not done here; run this sweep with wandb")
        return words

    def arguments(self, point: Point) -> list[str]:
        """What of that command line comes after `lightning`; ValueError if it is another command than our `fit`."""
        line = self.command_line(point)
        words = list(itertools.dropwhile(lambda word: word in IN_FRONT, line))
        if words[:1] not in [[name] for name in OURS] or words[1:2] != ["fit"]:
            raise ValueError(
                f"{self.path}: the command can only be `lightning fit ...` here, got `{' '.join(line)}`; use wandb"
            )
        return words[1:]


def read_sweep(path: Path) -> SweepFile:
    """Reads and checks a sweep file; a ValueError names the key, what it is and what is followed here."""
    if not path.is_file():
        raise FileNotFoundError(f"no such sweep file: {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected the keys of a W&B sweep (method, metric, parameters, ...)")
    method, metric, command = content.get("method"), content.get("metric"), content.get("command")
    if method not in ("grid", "random"):
        raise ValueError(
            f"{path}: method is {method}; here it can be grid or random, for others use: wandb sweep {path}"
        )
    name = metric.get("name") if isinstance(metric, dict) else None
    if not (isinstance(name, str) and name) or metric.get("goal") not in ("minimize", "maximize", None):
        raise ValueError(f"{path}: metric is {metric}; expected {{name: ..., goal: minimize or maximize}}")
    if command is not None and not (isinstance(command, list) and any("${args" in str(word) for word in command)):
        raise ValueError(f"{path}: command is {command}; expected a list with ${{args}} in it")
    _check_parameters(content.get("parameters"), method, f"{path}: parameters")
    if "early_terminate" in content:
        print(f"{path}: early_terminate is not done here, every point runs to its end")
    return SweepFile(
        path=path,
        method=method,
        metric=name,
        maximize=metric.get("goal") == "maximize",
        parameters=content["parameters"],
        command=command,
        program=str(content.get("program", "")),
        run_cap=content.get("run_cap"),
    )


def _check_parameters(parameters: Any, method: str, where: str) -> None:
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(f"{where}: expected at least one `name: {{values: [...]}}`, got {parameters}")
    for name, one in parameters.items():
        if not isinstance(one, dict):
            raise ValueError(f"{where}.{name}: expected value, values, a range or parameters, got {one}")
        if "parameters" in one:
            _check_parameters(one["parameters"], method, f"{where}.{name}.parameters")
        elif "value" not in one and not (isinstance(one.get("values"), list) and one["values"]):
            _check_range(one, method, f"{where}.{name}")


def _check_range(one: dict[str, Any], method: str, where: str) -> None:
    if method == "grid" or "values" in one:
        raise ValueError(f"{where}: expected value, or values with at least one, got {one}")
    if _distribution(one) not in RANGES:
        raise ValueError(f"{where}: {one} is not drawn here; known are values and distribution {', '.join(RANGES)}")
    low, high, step = one.get("min"), one.get("max"), one.get("q", 1)
    if not (all(map(_is_number, (low, high, step))) and low <= high and step > 0):
        raise ValueError(
            f"{where}: expected numbers min <= max, and q above 0, got {one} (YAML reads 1e-4 as text, 1.0e-4 not)"
        )
    if _distribution(one) == "int_uniform" and not (isinstance(low, int) and isinstance(high, int)):
        raise ValueError(f"{where}: int_uniform needs whole numbers, got {one}")
    if _distribution(one) == "log_uniform_values" and low <= 0:
        raise ValueError(f"{where}: a logarithm needs min above 0, got {low}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distribution(one: dict[str, Any]) -> str:
    """Its name; where it has none, whole limits mean whole numbers, as on W&B."""
    whole = isinstance(one.get("min"), int) and isinstance(one.get("max"), int)
    return one.get("distribution", "int_uniform" if whole else "uniform")


def _choices(one: dict[str, Any]) -> list[Any]:
    return [one["value"]] if "value" in one else one["values"]


def _draw(rng: random.Random, one: dict[str, Any]) -> Any:
    if "value" in one or "values" in one:
        return rng.choices(_choices(one), one.get("probabilities"))[0]
    return RANGES[_distribution(one)](rng, one["min"], one["max"], one.get("q", 1))


def _leaves(parameters: dict[str, dict[str, Any]], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The parameters that have values, under dotted names."""
    for name, one in parameters.items():
        if "parameters" in one:
            yield from _leaves(one["parameters"], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", one


def _nested(parameters: dict[str, dict[str, Any]], values: Iterator[Any]) -> dict[str, Any]:
    """The tree of parameters, with the next value in the place of each that has values."""
    return {
        name: _nested(one["parameters"], values) if "parameters" in one else next(values)
        for name, one in parameters.items()
    }
