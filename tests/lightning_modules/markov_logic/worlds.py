"""Markov logic by its definition: enumerate every world, count every grounding. Slow, simple, independent.

It shares the parser with the engine and nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lightning_modules.markov_logic.syntax import And, Atom, Equal, Expression, Not, Or, Program

World = Mapping[tuple[str, str], str]  # (attribute, user) → value; "true" and "false" for predicates of one argument
Evidence = Mapping[tuple[str, ...], float]  # (predicate, *arguments) → degree; absent is 0


def worlds(program: Program, users: Sequence[str]) -> Iterator[World]:
    """Every assignment of values to everybody's attributes."""
    variables = [(predicate.name, user) for user in users for predicate in program.attributes]
    choices = [
        program.domains[predicate.types[1]] if predicate.has_one_value else ("false", "true")
        for _ in users
        for predicate in program.attributes
    ]
    for values in itertools.product(*choices):
        yield dict(zip(variables, values, strict=True))


def counts(program: Program, users: Sequence[str], world: World, evidence: Evidence) -> Iterator[tuple]:
    """(formula, values of its weighted variables, how true) for every grounding of every formula."""
    for number, formula in enumerate(program.formulas):
        names = list(formula.types)
        choices = [
            users if formula.types[name] == program.unit else program.domains[formula.types[name]] for name in names
        ]
        for values in itertools.product(*choices):
            binding = dict(zip(names, values, strict=True))
            weight = tuple(program.domains[formula.types[name]].index(binding[name]) for name in formula.weighted)
            yield number, weight, expected_truth(formula.expression, binding, world, evidence)


def expected_truth(expression: Expression, binding: Mapping[str, str], world: World, evidence: Evidence) -> float:
    """Truth of a grounding, where each evidence atom holds with the probability of its degree, on its own."""
    given = [atom for atom in evidence_atoms(expression)]
    ground = list(dict.fromkeys(ground_atom(atom, binding) for atom in given))
    uncertain = [atom for atom in ground if 0 < evidence.get(atom, 0.0) < 1]
    total = 0.0
    for chosen in itertools.product((False, True), repeat=len(uncertain)):
        truth = {atom: evidence.get(atom, 0.0) == 1 for atom in ground} | dict(zip(uncertain, chosen, strict=True))
        probability = math.prod(
            evidence[atom] if holds else 1 - evidence[atom] for atom, holds in zip(uncertain, chosen, strict=True)
        )
        total += probability * holds_in(expression, binding, world, truth)
    return total


def evidence_atoms(expression: Expression) -> list[Atom]:
    if isinstance(expression, Atom):
        return [expression] if expression.predicate.is_evidence else []
    if isinstance(expression, Equal):
        return []
    if isinstance(expression, Not):
        return evidence_atoms(expression.inner)
    return evidence_atoms(expression.left) + evidence_atoms(expression.right)


def ground_atom(atom: Atom, binding: Mapping[str, str]) -> tuple[str, ...]:
    return (atom.predicate.name, *(binding.get(term.name, term.name) for term in atom.terms))


def holds_in(expression: Expression, binding: Mapping[str, str], world: World, truth: Mapping[tuple, bool]) -> bool:
    if isinstance(expression, Not):
        return not holds_in(expression.inner, binding, world, truth)
    if isinstance(expression, And):
        return holds_in(expression.left, binding, world, truth) and holds_in(expression.right, binding, world, truth)
    if isinstance(expression, Or):
        return holds_in(expression.left, binding, world, truth) or holds_in(expression.right, binding, world, truth)
    if isinstance(expression, Equal):
        return binding.get(expression.left.name, expression.left.name) == binding.get(
            expression.right.name, expression.right.name
        )
    name, *arguments = ground_atom(expression, binding)
    if expression.predicate.is_evidence:
        return truth[(name, *arguments)]
    value = world[name, arguments[0]]
    return value == (arguments[1] if expression.predicate.has_one_value else "true")


def log_weights(
    program: Program, users: Sequence[str], evidence: Evidence, weights: Sequence[np.ndarray]
) -> tuple[list[World], np.ndarray, list[list[np.ndarray]]]:
    """All worlds, their unnormalised log probabilities, and for each world the counts of every weight."""
    every = list(worlds(program, users))
    scores, features = [], []
    for world in every:
        total = [np.zeros_like(weight, dtype=float) for weight in weights]
        for number, index, truth in counts(program, users, world, evidence):
            total[number][index] += truth
        features.append(total)
        scores.append(sum(float((count * weight).sum()) for count, weight in zip(total, weights, strict=True)))
    return every, np.array(scores), features
