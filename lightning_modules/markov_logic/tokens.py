"""From the text of a formula file to its statements, each a list of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOKENS = re.compile(
    r"""
      (?P<blank>[^\S\n]+|//[^\n]*)
    | (?P<newline>\n)
    | (?P<number>[-+]?(?:\d+\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<text>"[^"\n]*")
    | (?P<name>[^\W\d]\w*)
    | (?P<symbol><=>|=>|!=|[()^!=*+,.{}])
    """,
    re.VERBOSE,
)


class FormulaError(ValueError):
    """A mistake in a formula file, with its line and column."""

    def __init__(self, message: str, source: str, line: int, column: int) -> None:
        super().__init__(f"{source}, line {line}, column {column}: {message}")


@dataclass(frozen=True)
class Token:
    """A word of the language and where it stands; line and column count from 1."""

    kind: str
    text: str
    line: int
    column: int
    start: int  # in the whole text


def statements(text: str, source: str) -> Iterator[list[Token]]:
    """The tokens of every statement; it continues over line ends inside brackets and after a connective."""
    tokens: list[Token] = []
    line, start, depth, position = 1, 0, 0, 0
    while position < len(text):
        match = TOKENS.match(text, position)
        if match is None:
            raise FormulaError(f"unexpected character {text[position]!r}", source, line, position - start + 1)
        kind = match.lastgroup
        token = Token(kind, match.group(), line, position - start + 1, position)
        position = match.end()
        if kind == "newline":
            line, start = line + 1, position
            if tokens and not depth and tokens[-1].text not in ("^", "v", "=>", "<=>", "=", "!="):
                yield tokens
                tokens = []
        elif kind != "blank":
            depth += (token.text in "({") - (token.text in ")}") if kind == "symbol" else 0
            tokens.append(token)
    if tokens:
        yield tokens
