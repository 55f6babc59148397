"""The language of Markov logic, and what a formula file says in it: a `Program` of declarations and formulas.

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

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Predicate:
    """A declared predicate."""

    name: str
    types: tuple[str, ...]  # of the arguments; the first is whom it is about
    is_evidence: bool  # given with the data, false where it is not given
    has_one_value: bool  # exactly one value of the last argument is true


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
    """One formula; `a => b` is read as `!a v b`, `a <=> b` as both implications."""

    expression: Expression
    text: str  # as written, without weight and comment; names the formula in tables and in files of weights
    weight: float  # the one it begins with
    types: dict[str, str]  # variable → type
    weighted: tuple[str, ...]  # variables with +, in the order in which they occur
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
