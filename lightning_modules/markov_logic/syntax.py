"""The language of Markov logic: from a text that people write to declarations and formulas.

In: the text of a formula file. Out: a `Program`.

    // Declarations. Types are in lower case; the first argument is whom the predicate is about.
    Gender(user, gender!)                  // exactly one value for each user
    Smokes(user)                           // true or false
    *HasWord(user, word)                   // evidence: given, and false where it is not given
    *Replies(user, user)                   // evidence about two users
    gender = {Female, Male, Other}         // values of a type; may also come with the data

    // Formulas, each with a weight of its own. A variable with + has a weight for each of its values.
    Gender(user, +g)                                         // a prior
    HasWord(user, +word) => Gender(user, +g)
    Age(user, +a) ^ Occupation(user, +o)
    Replies(user, other) ^ Age(user, +a) => Age(other, +b)
    1.5 Smokes(x) => Cancer(x)                               // a weight to begin with

Connectives, the tightest first: `!` not, `^` and, `v` or, `=>` implies, `<=>` if and only if; `=` and `!=` compare
terms. Names in lower case are variables, names with a capital, numbers and quoted texts are constants. A predicate
is declared before it is used. After Richardson and Domingos (2006) and the notation of Alchemy and, for `*`, Tuffy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

RESERVED = {"v", "EXIST", "Exist", "exist", "FORALL", "Forall", "forall"}
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

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Predicate:
    """A declared predicate.

    Args:
        name: as in the file.
        types: of the arguments; the first is whom it is about.
        is_evidence: given with the data, false where it is not given.
        has_one_value: exactly one value of the last argument is true.
    """

    name: str
    types: tuple[str, ...]
    is_evidence: bool = False
    has_one_value: bool = False


@dataclass(frozen=True)
class Term:
    """An argument: a variable, with a weight for each value or not, or a constant."""

    name: str
    is_variable: bool
    has_weights: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Atom:
    """A predicate applied to terms."""

    predicate: Predicate
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Equal:
    """Two terms are the same."""

    left: Term
    right: Term


@dataclass(frozen=True)
class Not:
    """The inner expression does not hold."""

    inner: Expression


@dataclass(frozen=True)
class And:
    """Both hold."""

    left: Expression
    right: Expression


@dataclass(frozen=True)
class Or:
    """At least one holds."""

    left: Expression
    right: Expression


Expression = Atom | Equal | Not | And | Or


@dataclass(frozen=True)
class Formula:
    """One formula; `a => b` is read as `!a v b`, `a <=> b` as both implications.

    Args:
        expression: what holds or does not hold.
        text: as written, without weight and comment; names the formula in tables and in files of weights.
        weight: the weight it begins with.
        types: variable → type.
        weighted: variables with +, in the order in which they occur.
        line: where it stands.
    """

    expression: Expression
    text: str
    weight: float
    types: dict[str, str]
    weighted: tuple[str, ...]
    line: int


@dataclass
class Program:
    """A formula file as a whole."""

    source: str
    predicates: dict[str, Predicate] = field(default_factory=dict)
    domains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    formulas: list[Formula] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """The type that the predicates are about, such as `user`."""
        return next(iter(self.predicates.values())).types[0]

    @property
    def attributes(self) -> list[Predicate]:
        """The predicates that are inferred."""
        return [predicate for predicate in self.predicates.values() if not predicate.is_evidence]


def parse(text: str, source: str = "formulas", before: Program | None = None) -> Program:
    """Reads a formula file.

    Args:
        text: its content.
        source: what error messages call it.
        before: an earlier file that this one goes on from; its declarations and formulas come first.

    Raises:
        FormulaError: a mistake, with line and column.
    """
    program = Program(source)
    if before is not None:
        program = Program(source, dict(before.predicates), dict(before.domains), list(before.formulas))
    for line in _lines(text, source):
        _Parser(program, line, text).statement()
    if not program.attributes:
        raise ValueError(f"{source}: no predicate to infer is declared, such as Gender(user, gender!)")
    return program


def _lines(text: str, source: str) -> Iterator[list[Token]]:
    """The tokens of every statement; a statement goes on over line ends inside brackets and after a connective."""
    tokens: list[Token] = []
    line, start, depth, place = 1, 0, 0, 0
    while place < len(text):
        match = TOKENS.match(text, place)
        if match is None:
            raise FormulaError(f"unexpected character {text[place]!r}", source, line, place - start + 1)
        kind = match.lastgroup
        token = Token(kind, match.group(), line, place - start + 1, place)
        place = match.end()
        if kind == "newline":
            line, start = line + 1, place
            if tokens and not depth and tokens[-1].text not in ("^", "v", "=>", "<=>", "=", "!="):
                yield tokens
                tokens = []
        elif kind != "blank":
            depth += (token.text in "({") - (token.text in ")}") if kind == "symbol" else 0
            tokens.append(token)
    if tokens:
        yield tokens


class _Parser:
    """Recursive descent over the tokens of one statement."""

    def __init__(self, program: Program, tokens: list[Token], text: str) -> None:
        self.program = program
        self.tokens = tokens
        self.text = text
        self.place = 0
        self.types: dict[str, str] = {}
        self.weighted: dict[str, None] = {}
        self.terms: dict[str, Token] = {}

    # ---- tokens

    def peek(self, ahead: int = 0) -> Token | None:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def is_next(self, *texts: str) -> bool:
        token = self.peek()
        return token is not None and token.text in texts and token.kind in ("symbol", "name")

    def take(self, *texts: str) -> Token:
        """The next token, which must be one of these texts or kinds."""
        token = self.peek()
        if token is None:
            raise self.error(f"the line ends where {_listed(texts)} is expected", self.tokens[-1])
        if token.text not in texts and token.kind not in texts:
            raise self.error(f"expected {_listed(texts)}, got {token.text!r}", token)
        self.place += 1
        return token

    def error(self, message: str, token: Token) -> FormulaError:
        return FormulaError(message, self.program.source, token.line, token.column)

    # ---- statements

    def statement(self) -> None:
        first, second = self.peek(), self.peek(1)
        if first.text == "*":
            self.place += 1
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
        first, last = self.tokens[0], self.tokens[-1]
        is_atom = first.kind == "name" and len(self.tokens) > 1 and self.tokens[1].text == "(" and last.text == ")"
        return (
            is_atom
            and first.text not in self.program.predicates
            and [token.text for token in self.tokens].count("(") == 1
            and not any(token.text in ("+", "^", "v", "=>", "<=>") for token in self.tokens)
        )

    def declaration(self, is_evidence: bool) -> None:
        name = self.take("name")
        if name.text in RESERVED:
            raise self.error(f"{name.text!r} is reserved", name)
        if name.text in self.program.predicates:
            raise self.error(f"{name.text} is declared twice", name)
        self.take("(")
        types, exactly_one = [], None
        while True:
            types.append(self.take("name"))
            if self.is_next("!"):
                exactly_one = self.take("!")
            if not self.is_next(","):
                break
            self.take(",")
        self.take(")")
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
        self.take("{")
        values: list[str] = []
        while True:
            value = self.take("name", "text", "number")
            if _constant(value) in values:
                raise self.error(f"the value {value.text} is there twice", value)
            values.append(_constant(value))
            if not self.is_next(","):
                break
            self.take(",")
        self.take("}")
        self.program.domains[name.text] = tuple(values)

    def formula(self) -> None:
        weight = 0.0
        if self.peek().kind == "number":
            weight = float(self.take("number").text)
            if self.peek() is None:
                raise self.error("a weight without a formula", self.tokens[0])
        start = self.place
        expression = self.equivalence()
        if self.is_next("."):
            raise self.error("formulas that must hold ('.') are not supported; give a large weight", self.peek())
        written = self.text[self.tokens[start].start : self.tokens[self.place - 1].end]
        text = " ".join(re.sub(r"//[^\n]*", "", written).split())
        if any(formula.text == text for formula in self.program.formulas):
            raise self.error("this formula is there twice", self.tokens[start])
        for name in self.weighted:
            if self.types[name] == self.program.unit:
                raise self.error(f"+{name}: a {self.program.unit} has no weights of its own", self.terms[name])
        self.program.formulas.append(
            Formula(expression, text, weight, self.types, tuple(self.weighted), self.tokens[0].line)
        )

    # ---- expressions, the loosest connective first

    def equivalence(self) -> Expression:
        left = self.implication()
        while self.is_next("<=>"):
            self.take("<=>")
            right = self.implication()
            left = And(Or(Not(left), right), Or(Not(right), left))
        return left

    def implication(self) -> Expression:
        left = self.disjunction()
        if not self.is_next("=>"):
            return left
        self.take("=>")
        return Or(Not(left), self.implication())  # to the right: a => b => c is a => (b => c)

    def disjunction(self) -> Expression:
        left = self.conjunction()
        while self.is_next("v"):
            self.take("v")
            left = Or(left, self.conjunction())
        return left

    def conjunction(self) -> Expression:
        left = self.negation()
        while self.is_next("^"):
            self.take("^")
            left = And(left, self.negation())
        return left

    def negation(self) -> Expression:
        if self.is_next("!"):
            self.take("!")
            return Not(self.negation())
        if self.is_next("("):
            self.take("(")
            inner = self.equivalence()
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
        self.take("(")
        terms = [self.term()]
        while self.is_next(","):
            self.take(",")
            terms.append(self.term())
        self.take(")")
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
        has_weights = self.is_next("+")
        if has_weights:
            self.take("+")
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
