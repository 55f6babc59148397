"""From tokens to declarations and formulas: recursive descent over the language that `syntax.py` describes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .syntax import And, Atom, Equal, Expression, Formula, Not, Or, Predicate, Program, Term
from .tokens import FormulaError, Token, statements

CONNECTIVES: list[tuple[str, Callable[[Expression, Expression], Expression]]] = [
    ("<=>", lambda left, right: And(Or(Not(left), right), Or(Not(right), left))),
    ("=>", lambda left, right: Or(Not(left), right)),
    ("v", Or),
    ("^", And),
]
RESERVED = {"v", "EXIST", "Exist", "exist", "FORALL", "Forall", "forall"}


def parse(text: str, source: str = "formulas", before: Program | None = None) -> Program:
    """Reads the text of a formula file, which `source` names in messages; it continues the file `before`.

    Raises:
        FormulaError: a mistake, with line and column.
    """
    program = Program(source)
    if before is not None:
        program = Program(source, dict(before.predicates), dict(before.domains), list(before.formulas))
    for tokens in statements(text, source):
        _Parser(program, tokens, text).statement()
    if not program.attributes:
        raise ValueError(f"{source}: no predicate to infer is declared, such as Gender(user, gender!)")
    return program


class _Parser:
    """Recursive descent over the tokens of one statement."""

    def __init__(self, program: Program, tokens: list[Token], text: str) -> None:
        self.program = program
        self.tokens = tokens
        self.text = text
        self.position = 0
        self.types: dict[str, str] = {}
        self.weighted: dict[str, None] = {}
        self.terms: dict[str, Token] = {}

    def peek(self, ahead: int = 0) -> Token | None:
        position = self.position + ahead
        return self.tokens[position] if position < len(self.tokens) else None

    def is_next(self, text: str) -> bool:
        token = self.peek()
        return token is not None and token.text == text and token.kind in ("symbol", "name")

    def accept(self, text: str) -> Token | None:
        """Takes the next token if it is this text."""
        return self.take(text) if self.is_next(text) else None

    def listed(self, item: Callable[[], Any], opening: str, closing: str) -> list[Any]:
        """Items between brackets, with commas between them."""
        self.take(opening)
        items = [item()]
        while self.accept(","):
            items.append(item())
        self.take(closing)
        return items

    def take(self, *texts: str) -> Token:
        """The next token, which must be one of these texts or kinds."""
        token = self.peek()
        if token is None:
            raise self.error(f"the line ends where {_listed(texts)} is expected", self.tokens[-1])
        if token.text not in texts and token.kind not in texts:
            raise self.error(f"expected {_listed(texts)}, got {token.text!r}", token)
        self.position += 1
        return token

    def error(self, message: str, token: Token) -> FormulaError:
        return FormulaError(message, self.program.source, token.line, token.column)

    def statement(self) -> None:
        first, second = self.peek(), self.peek(1)
        if self.accept("*"):
            self.declaration(is_evidence=True)
        elif first.kind == "name" and second is not None and second.text == "=":
            self.domain()
        elif self.is_declaration():
            self.declaration(is_evidence=False)
        else:
            self.formula()
        if (rest := self.peek()) is not None:
            raise self.error(f"expected the end of the line, got {rest.text!r}", rest)

    def is_declaration(self) -> bool:
        """A single atom of a name that is not known yet."""
        texts = [token.text for token in self.tokens]
        is_atom = self.tokens[0].kind == "name" and texts[1:2] == ["("] and texts[-1] == ")" and texts.count("(") == 1
        is_known = texts[0] in self.program.predicates
        return is_atom and not is_known and {"+", "^", "v", "=>", "<=>"}.isdisjoint(texts)

    def declaration(self, is_evidence: bool) -> None:
        name = self.take("name")
        if name.text in RESERVED:
            raise self.error(f"{name.text!r} is reserved", name)
        if name.text in self.program.predicates:
            raise self.error(f"{name.text} is declared twice", name)
        arguments = self.listed(lambda: (self.take("name"), self.accept("!")), "(", ")")
        types = [type for type, _ in arguments]
        exactly_one = next((mark for _, mark in arguments if mark), None)
        unit = self.program.unit if self.program.predicates else types[0].text
        if types[0].text != unit:
            raise self.error(f"all predicates are about a {unit}, the first argument; got {types[0].text!r}", types[0])
        if is_evidence and exactly_one:
            raise self.error("evidence has no '!': it is given", exactly_one)
        if not is_evidence and len(types) != (2 if exactly_one else 1):
            raise self.error(
                f"a predicate to infer is {name.text}({unit}), true or false, or {name.text}({unit}, value!), exactly "
                f"one value; mark evidence with *{name.text}",
                name,
            )
        if exactly_one and types[1].text == unit:
            raise self.error(f"the value of {name.text} cannot be a {unit}", types[1])
        self.program.predicates[name.text] = Predicate(
            name.text, tuple(token.text for token in types), is_evidence, exactly_one is not None
        )

    def domain(self) -> None:
        name = self.take("name")
        if name.text in self.program.domains:
            raise self.error(f"the values of {name.text} are given twice", name)
        self.take("=")
        tokens = self.listed(lambda: self.take("name", "text", "number"), "{", "}")
        values = [_constant(token) for token in tokens]
        for number, token in enumerate(tokens):
            if values[number] in values[:number]:
                raise self.error(f"the value {token.text} is there twice", token)
        self.program.domains[name.text] = tuple(values)

    def formula(self) -> None:
        weight = 0.0
        if self.peek().kind == "number":
            weight = float(self.take("number").text)
            if self.peek() is None:
                raise self.error("a weight without a formula", self.tokens[0])
        start = self.position
        expression = self.expression()
        if self.is_next("."):
            raise self.error("formulas that must hold ('.') are not supported; give a large weight", self.peek())
        last = self.tokens[self.position - 1]
        written = self.text[self.tokens[start].start : last.start + len(last.text)]
        text = " ".join(re.sub(r"//[^\n]*", "", written).split())
        if any(formula.text == text for formula in self.program.formulas):
            raise self.error("this formula is there twice", self.tokens[start])
        for name in self.weighted:
            if self.types[name] == self.program.unit:
                raise self.error(f"+{name}: a {self.program.unit} has no weights of its own", self.terms[name])
        self.program.formulas.append(
            Formula(expression, text, weight, self.types, tuple(self.weighted), self.tokens[0].line)
        )

    def expression(self, level: int = 0) -> Expression:
        """An expression of connectives from this level on, the loosest first."""
        if level == len(CONNECTIVES):
            return self.negation()
        symbol, combine = CONNECTIVES[level]
        left = self.expression(level + 1)
        while self.accept(symbol):  # to the right: a => b => c is a => (b => c)
            left = combine(left, self.expression(level if symbol == "=>" else level + 1))
        return left

    def negation(self) -> Expression:
        if self.accept("!"):
            return Not(self.negation())
        if self.accept("("):
            inner = self.expression()
            self.take(")")
            return inner
        return self.atom()

    def atom(self) -> Expression:
        following = self.peek(1)
        if following is None or following.text != "(":
            return self.comparison()
        name = self.take("name")
        if name.text in RESERVED:
            raise self.error(f"{name.text} is not supported: formulas have no quantifiers", name)
        predicate = self.program.predicates.get(name.text)
        if predicate is None:
            known = ", ".join(self.program.predicates) or "none yet"
            raise self.error(
                f"unknown predicate {name.text} (known: {known}); declare it above, as {name.text}(user, value!) to "
                f"infer it or *{name.text}(user, ...) for evidence",
                name,
            )
        terms = self.listed(self.term, "(", ")")
        if len(terms) != len(predicate.types):
            raise self.error(
                f"{name.text} has {len(predicate.types)} arguments ({', '.join(predicate.types)}), got {len(terms)}",
                name,
            )
        for term, type in zip(terms, predicate.types, strict=True):
            self.check(term, type)
        return Atom(predicate, tuple(term for term, _ in terms))

    def comparison(self) -> Expression:
        left, token = self.term()
        sign = self.take("=", "!=", "(")
        if sign.text == "(":
            raise self.error(f"{token.text} is no predicate", token)
        right, _ = self.term()
        equal = Equal(left, right)
        return equal if sign.text == "=" else Not(equal)

    def term(self) -> tuple[Term, Token]:
        has_weights = self.accept("+") is not None
        token = self.take("name", "text", "number")
        is_variable = token.kind == "name" and token.text[0].islower()
        if token.text in RESERVED:
            raise self.error(f"{token.text!r} is reserved", token)
        if has_weights and not is_variable:
            raise self.error(f"+ is for variables, {token.text} is a constant", token)
        if has_weights:
            self.weighted[token.text] = None
        return Term(token.text if is_variable else _constant(token), is_variable, has_weights), token

    def check(self, item: tuple[Term, Token], type: str) -> None:
        """A variable keeps its type, and a constant is a value of it."""
        term, token = item
        if not term.is_variable:
            if type == self.program.unit:
                raise self.error(f"{term.name} stands where a {type} is expected; formulas hold for all of them", token)
            values = self.program.domains.get(type)
            if values is not None and term.name not in values:
                raise self.error(f"{term.name!r} is no {type}; there are {', '.join(values)}", token)
            return
        known = self.types.setdefault(term.name, type)
        self.terms.setdefault(term.name, token)
        if known != type:
            raise self.error(f"{term.name} is a {known} elsewhere in this formula, here a {type} is expected", token)


def _constant(token: Token) -> str:
    return token.text[1:-1] if token.kind == "text" else token.text


def _listed(texts: tuple[str, ...]) -> str:
    names = {"name": "a name", "text": "a text in quotes", "number": "a number"}
    return " or ".join(names.get(text, f"'{text}'") for text in texts)
