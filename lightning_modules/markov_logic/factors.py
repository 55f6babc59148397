"""What formulas mean: each becomes factors over attributes, in tensors.

A world y has the unnormalised log probability  sum over formulas f, groundings g:  w(f, g) [g holds in y]
(Richardson and Domingos 2006, eq. 3). Evidence is given, so a grounding that has the evidence atoms e1 ... em is a
function of their truth values and of the attributes in its scope. Written as a polynomial in the truth values,

    [g holds] = sum over S of  c_S(y) * product of e_i, i in S,     c_S(y) = sum over T in S of (-1)^|S - T| f_T(y)

with f_T(y) the truth of g where exactly the evidence atoms in T hold. A term whose c_S does not depend on y cancels
in every conditional probability. For `HasWord(user, +word) => Gender(user, +g)` all that is left is the term of
S = {HasWord}: one row of a table for every word a user has said. Terms are linear in each truth value, so evidence
may also have a degree between 0 and 1 (Wang and Domingos 2008); atoms of one grounding multiply.

Shapes: columns are the values of the variables that evidence fixes; the other axes are states of the scope.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from string import ascii_lowercase

import numpy as np
import torch
from torch import Tensor

from .syntax import And, Atom, Equal, Expression, Formula, Not, Or, Program, Term

Domains = Mapping[str, Sequence[str]]
Axis = tuple[int, str]
"""A place in a scope: whose attribute (0 the first user of a formula, 1 the second), and which."""

MAX_TABLE = 30_000_000


@dataclass(frozen=True)
class Factor:
    """One term of one formula."""

    formula: int  # its index in the program
    scope: tuple[Axis, ...]
    evidence: tuple[Atom, ...]  # atoms that must hold together; none for a prior
    units: tuple[str, ...]  # the formula's variables for users, first and second
    columns: tuple[str, ...]  # the variables whose values choose a row of the table
    sizes: tuple[int, ...]  # number of values of each of `columns`
    equation: str  # table from weights and coefficients, for `torch.einsum`
    coefficients: Tensor  # c_S, over the label variables and the states of the scope

    @property
    def is_relational(self) -> bool:
        """Whether it is about two users."""
        return len({side for side, _ in self.scope}) > 1

    def table(self, weights: Tensor) -> Tensor:
        """Log potentials, (columns, learners, *states), from its formula's weights, (learners, *values)."""
        table = torch.einsum(self.equation, weights, self.coefficients.to(weights))
        return table.reshape(-1, *table.shape[len(self.columns) :])


class Compiler:
    """Compiles one formula of a program.

    Raises:
        ValueError: the formula says nothing about what is inferred, or is about users who are not related.
    """

    def __init__(self, program: Program, number: int, domains: Domains) -> None:
        self.program = program
        self.number = number
        self.formula: Formula = program.formulas[number]
        self.domains = domains
        leaves = list(_leaves(self.formula.expression))
        atoms = dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, Atom))
        self.evidence = [atom for atom in atoms if atom.predicate.is_evidence]
        self.queries = [atom for atom in atoms if not atom.predicate.is_evidence]
        if not self.queries:
            raise self.error("says nothing about an attribute that is inferred")
        names = [term.name for atom in [*self.queries, *self.evidence] for term in atom.terms]
        types = self.formula.types
        self.units = tuple(dict.fromkeys(name for name in names if types.get(name) == program.unit))
        if len(self.units) > 2:
            raise self.error(f"is about {len(self.units)} users; at most two are supported")
        equals = [leaf for leaf in leaves if isinstance(leaf, Equal)]
        compared = {term.name for equal in equals for term in (equal.left, equal.right)}
        if bad := sorted(name for name in compared if name in self.units):
            raise self.error(f"compares {bad[0]}; only values can be compared")
        self.scope = tuple(
            dict.fromkeys((self.units.index(atom.terms[0].name), atom.predicate.name) for atom in self.queries)
        )
        in_queries = {term.name for atom in self.queries for term in atom.terms[1:] if term.is_variable}
        self.labels = [name for name in types if name in in_queries | compared and name not in self.units]
        axes = [*(name for name in types if name not in self.units), *self.scope]
        self.letters = dict(zip(axes, ascii_lowercase, strict=False))  # of einsum; Z is the learners' axis

    def error(self, message: str) -> ValueError:
        formula = self.formula
        return ValueError(f"{self.program.source}, line {formula.line}: the formula '{formula.text}' {message}")

    def size(self, variable: str) -> int:
        return len(self.domains[self.formula.types[variable]])

    def states(self, axis: Axis) -> int:
        predicate = self.program.predicates[axis[1]]
        return len(self.domains[predicate.types[1]]) if predicate.has_one_value else 2

    def factors(self) -> Iterator[Factor]:
        shape = [self.size(name) for name in self.labels] + [self.states(axis) for axis in self.scope]
        if np.prod(shape, dtype=float) > MAX_TABLE:
            raise self.error(f"needs a table of {shape} numbers; take fewer attributes or values into one formula")
        truths = {
            true: np.broadcast_to(self.evaluate(self.formula.expression, set(true)), shape).astype(np.float64)
            for true in _subsets(self.evidence)
        }
        states = tuple(range(len(self.labels), len(shape)))
        for subset in truths:
            coefficients = sum((-1.0) ** (len(subset) - len(true)) * truths[true] for true in _subsets(subset))
            if (coefficients == coefficients.max(axis=states, keepdims=True)).all():
                continue  # the same in every world
            related = any(set(self.units) <= {term.name for term in atom.terms} for atom in subset)
            if len(self.units) == 2 and not related:  # otherwise it would be about every two users
                raise self.error(
                    f"is about {' and '.join(self.units)}, whoever they are; let it hold for those who are related "
                    f"only, as in Knows({', '.join(self.units)}) ^ ... => ... with evidence *Knows"
                )
            yield self.factor(subset, torch.from_numpy(coefficients.astype(np.float32)))

    def factor(self, evidence: Sequence[Atom], coefficients: Tensor) -> Factor:
        formula = self.formula
        fixed = dict.fromkeys(term.name for atom in evidence for term in atom.terms if term.is_variable)
        columns = tuple(name for name in fixed if name in formula.weighted or name in self.labels)
        # Evidence variables that this term leaves open: each value adds a grounding.
        for name in formula.types:
            if name not in {*fixed, *self.labels, *self.units, *formula.weighted}:
                coefficients = coefficients * self.size(name)
        letters = self.letters
        weights, terms, rows, states = (
            "".join(letters[name] for name in names)
            for names in (formula.weighted, [*self.labels, *self.scope], columns, self.scope)
        )
        return Factor(
            formula=self.number,
            scope=self.scope,
            evidence=tuple(evidence),
            units=self.units,
            columns=columns,
            sizes=tuple(self.size(name) for name in columns),
            equation=f"Z{weights},{terms}->{rows}Z{states}",
            coefficients=coefficients,
        )

    # ---- truth tables, over (*labels, *scope)

    def evaluate(self, expression: Expression, true: set[Atom]) -> np.ndarray:
        match expression:
            case Not(inner):
                return ~self.evaluate(inner, true)
            case And(left, right):
                return self.evaluate(left, true) & self.evaluate(right, true)
            case Or(left, right):
                return self.evaluate(left, true) | self.evaluate(right, true)
            case Equal(left, right):
                return self.value(left, None) == self.value(right, None)
            case Atom() if expression.predicate.is_evidence:
                return np.array(expression in true)
        axis = (self.units.index(expression.terms[0].name), expression.predicate.name)
        state = self.along(len(self.labels) + self.scope.index(axis), self.states(axis))
        if not expression.predicate.has_one_value:
            return state == 1
        return state == self.value(expression.terms[1], expression.predicate.types[1])

    def value(self, term: Term, type: str | None) -> np.ndarray:
        """Number of the value that a term has, along the axis of its variable; names where the type is not known."""
        if term.is_variable:
            numbers = self.along(self.labels.index(term.name), self.size(term.name))
            return numbers if type else np.array(self.domains[self.formula.types[term.name]])[numbers]
        if type is None:
            return np.array(term.name)
        if term.name not in self.domains[type]:
            raise self.error(f"has {term.name!r}, which is no {type}; there are {', '.join(self.domains[type])}")
        return np.array(list(self.domains[type]).index(term.name))

    def along(self, axis: int, size: int) -> np.ndarray:
        shape = [1] * (len(self.labels) + len(self.scope))
        shape[axis] = size
        return np.arange(size).reshape(shape)


def _leaves(expression: Expression) -> Iterator[Atom | Equal]:
    match expression:
        case Not(inner):
            yield from _leaves(inner)
        case And(left, right) | Or(left, right):
            yield from _leaves(left)
            yield from _leaves(right)
        case _:
            yield expression


def _subsets(atoms: Sequence[Atom]) -> Iterator[tuple[Atom, ...]]:
    return chain.from_iterable(combinations(atoms, size) for size in range(len(atoms) + 1))
