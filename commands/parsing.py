"""How a command line is read: files before flags, no key twice in a file, and what is wrong with it in one line."""

import json
import re
import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import yaml

KEY = re.compile(r'^( *)(?:- )?(?:Unable to .*? )?Parser key "([\w.]+)":', re.MULTILINE)
CLASS = re.compile(r"Problem with given class_path '([\w.]+)':\s*(.+)")
TYPE = re.compile(r"<class '(?:\w+\.)*(\w+)'>")


class ExplainedExit:
    """A parser that ends with one line, which is a note on its SystemExit too."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        line = shortened(message)
        print(f"error: {line}", file=sys.stderr)
        end = SystemExit(2)
        end.add_note(line)
        raise end


def shortened(message: str) -> str:
    """The innermost part of a message of jsonargparse: the key, what was expected and what was given."""
    keys = list(KEY.finditer(message))
    key = ".".join(match[2] for match in keys)
    inner = message[keys[-1].end() :] if keys else message
    if keys:  # what is indented less belongs to the keys around it
        inner = re.split(rf"\n {{0,{len(keys[-1][1])}}}(?=\S)", inner, maxsplit=1)[0]
    if problem := CLASS.search(inner):
        text = f"{problem[1]}: {problem[2]}"
    elif (types := re.search(r"Subtypes: \[(.*)\]", inner)) and (given := re.search(r"Given value: (.*)", inner)):
        text = f"expected {types[1].replace(', ', ' or ')}, got {given[1]}"
    else:
        text = " ".join(inner.split())
    text = TYPE.sub(r"\1", text).replace("NoneType", "null")
    text = re.sub(r"Expected a (\w+)\. Got value: ", r"expected \1, got ", text)
    text = re.sub(r"NestedArg\(key='(\w+)', val=(.*)\)", r"\1=\2", text)
    return f"{key}: {text}" if key else text


def files_first(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with its `--config` before the flags, so that a flag always wins over a file."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    try:
        parsed, flags = parser.parse_known_args(arguments)
    except ArgumentError:  # a `--config` without a value, which the command's own parser reports
        return list(arguments)
    for path in parsed.config:
        require_unique_keys(Path(path))
    return [*(f"--config={path}" for path in parsed.config), *flags]


class _UniqueKeys(yaml.BaseLoader):
    """Refuses a mapping with a key twice, of which YAML would take the last, also in a file that is named."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise ValueError(f"{name} is there twice, in lines {lines[name]} and {line}; keep one")
            lines[name] = line
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        value = super().construct_scalar(node)
        if value.endswith(".yaml"):
            require_unique_keys(Path(value))
        return value


def require_unique_keys(path: Path) -> None:
    """ValueError if a YAML file, or one that it names, has a key twice; other mistakes in it are the parser's."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    with suppress(yaml.YAMLError):
        try:
            yaml.load(text, _UniqueKeys)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def with_names(arguments: Sequence[str], flags: Collection[str]) -> list[str]:
    """The arguments with what stands after these flags as names: `[12, 007]` is `["12", "007"]`, never numbers."""
    words = iter(arguments)
    result = []
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in flags and (equals or (value := next(words, None)) is not None):
            result.append(f"{flag}={_as_names(value)}")
        else:
            result.append(word)
    return result


def _as_names(text: str) -> str:
    """A name, or a list of names, as YAML that reads them as texts."""
    try:
        names = yaml.load(text, yaml.BaseLoader)  # every scalar is the text that was written
    except yaml.YAMLError:
        names = text
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return json.dumps(names, ensure_ascii=False)
    is_name = isinstance(names, dict) and not text.lstrip().startswith("{")  # `ann: lee`
    return json.dumps([text], ensure_ascii=False) if is_name else text
