"""Commands besides the trainer's: a class whose arguments are the flags, and its `run`."""

from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

from commands.parsing import ExplainedExit
from commands.registry import COMMANDS


class ToolParser(ExplainedExit, ArgumentParser):
    """The parser of a tool."""


def run_tool(name: str, arguments: Sequence[str]) -> None:
    """Builds a tool from its arguments and runs it."""
    config, tool = read_tool(name, arguments)
    tool(**config).run()


def read_tool(name: str, arguments: Sequence[str]) -> tuple[dict[str, Any], Callable[..., Any]]:
    """The settings of a tool, built, and its class."""
    module, _, class_name = COMMANDS[name].path.rpartition(".")
    tool = getattr(import_module(module), class_name)
    set_parsing_settings(config_read_mode_fsspec_enabled=True, omegaconf_absolute_to_relative_paths=True)
    description = tool.__doc__.partition("Args:")[0]  # flags have theirs
    # The file is resolved as it is read: with `omegaconf+` a `${...}` in it leaves the experiments of a table unbuilt.
    parser = ToolParser(prog=f"lightning {name}", description=description, parser_mode="omegaconf", allow_abbrev=False)
    if "config" not in signature(tool).parameters:  # a sweep reads its file itself: the keys in it are W&B's
        parser.add_argument("--config", "-c", action="config", help="YAML file with these settings.")
    names = parser.add_class_arguments(tool)
    switches = {f"--{name}" for name in names if isinstance(parser.get_defaults().get(name), bool)}
    following = [*arguments, "--"][1:]
    given = [
        f"{argument}=true" if argument in switches and after.startswith("-") else argument  # a switch alone is on
        for argument, after in zip(arguments, following, strict=True)
    ]
    config = parser.instantiate(parser.parse_args(given))
    return {name: config[name] for name in names}, tool
