"""Friends and smokers (Richardson and Domingos 2006, table 1), by hand and against pgmpy; and formulas that fail."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch

from datamodules.batches import EvidenceBatch, Facts
from lightning_modules.markov_logic.network import MarkovLogicNetwork
from lightning_modules.markov_logic.parser import parse
from lightning_modules.markov_logic.propagation import BeliefPropagation

FRIENDS_AND_SMOKERS = """
Smokes(person)
Cancer(person)
*Friends(person, person)
1.5 Smokes(x) => Cancer(x)
1.1 Friends(x, y) => (Smokes(x) <=> Smokes(y))
"""
ANNA, BOB, CLEO, DAN = range(4)


def batch(num_people: int, friends: list[tuple[int, int]]) -> EvidenceBatch:
    both = [*friends, *((second, first) for first, second in friends)]
    facts = {"Friends": Facts(torch.tensor(both).reshape(-1, 2), torch.ones(len(both)))}
    nothing = torch.zeros(num_people, dtype=torch.int64)
    return EvidenceBatch(facts, nothing[:, None] - 1, nothing.float(), nothing, nothing)


def marginals(text: str, num_people: int, friends: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    network = MarkovLogicNetwork(parse(text)).double()
    given = batch(num_people, friends)
    potentials = network.potentials(network.ground(given), num_people)
    beliefs = BeliefPropagation(tolerance=1e-12, max_rounds=1000).beliefs(potentials)
    return {name: found[:, 1].detach().numpy() for name, found in network.marginals(beliefs).items()}


def test_one_person_by_hand():
    """Of four worlds only the smoker without cancer weighs 1 instead of e^1.5."""
    found = marginals(FRIENDS_AND_SMOKERS, 1, [])
    e = math.exp(1.5)
    assert found["Smokes"][0] == pytest.approx((1 + e) / (1 + 3 * e))
    assert found["Cancer"][0] == pytest.approx(2 * e / (1 + 3 * e))


@pytest.mark.parametrize("friends", [[], [(ANNA, BOB)], [(ANNA, BOB), (BOB, CLEO), (BOB, DAN)]])
def test_marginals_equal_pgmpys(friends):
    from pgmpy.factors.discrete import DiscreteFactor
    from pgmpy.inference import VariableElimination
    from pgmpy.models import DiscreteMarkovNetwork

    model = DiscreteMarkovNetwork()
    people = range(4)
    factors = []
    for x in people:
        holds = [math.exp(1.5 * (not smokes or cancer)) for smokes, cancer in itertools.product((0, 1), repeat=2)]
        factors.append(DiscreteFactor([f"Smokes {x}", f"Cancer {x}"], [2, 2], holds))
        factors.append(DiscreteFactor([f"Smokes {x}"], [2], [1.0, math.exp(0.4)]))
    for x, y in friends:  # twice, for x and y and for y and x
        holds = [math.exp(2 * 1.1 * (first == second)) for first, second in itertools.product((0, 1), repeat=2)]
        factors.append(DiscreteFactor([f"Smokes {x}", f"Smokes {y}"], [2, 2], holds))
    for factor in factors:
        variables = factor.scope()
        model.add_nodes_from(variables)
        if len(variables) == 2:
            model.add_edge(*variables)
    model.add_factors(*factors)
    exact = VariableElimination(model)
    found = marginals(FRIENDS_AND_SMOKERS + "0.4 Smokes(x)\n", 4, friends)
    for name, x in itertools.product(("Smokes", "Cancer"), people):
        values = exact.query([f"{name} {x}"], show_progress=False).values  # not normalised where parts are not linked
        assert found[name][x] == pytest.approx(values[1] / values.sum(), abs=1e-7)


def test_friends_of_each_other_are_one_edge_and_no_cycle():
    """Otherwise what Anna tells Bob would come back to her by the second edge."""
    network = MarkovLogicNetwork(parse(FRIENDS_AND_SMOKERS))
    potentials = network.potentials(network.ground(batch(2, [(ANNA, BOB)])), 2)
    (link,) = potentials.links
    torch.testing.assert_close(link.table[0], 2.2 * (torch.eye(2) - 1), atol=1e-6, rtol=0)


def test_not_converging_is_told():
    network = MarkovLogicNetwork(parse(FRIENDS_AND_SMOKERS + "0.4 Smokes(x)\n"))
    given = batch(3, [(ANNA, BOB), (BOB, CLEO), (CLEO, ANNA)])
    potentials = network.potentials(network.ground(given), 3)
    with pytest.warns(UserWarning, match="belief propagation has not converged after 2 rounds"):
        BeliefPropagation(max_rounds=2).beliefs(potentials)


def test_somebody_related_to_themselves_is_refused():
    network = MarkovLogicNetwork(parse(FRIENDS_AND_SMOKERS))
    with pytest.raises(ValueError, match="a user is related to themselves by Friends"):
        network.ground(batch(2, [(ANNA, ANNA)]))


HEADER = (
    "Gender(user, gender!)\nAge(user, age!)\n*Word(user, word)\n*Knows(user, user)\ngender = {F, M}\nage = {1, 2}\n"
)
MISTAKES = {
    "Word(u, +w) => Word(u, w)": "says nothing about an attribute that is inferred",
    "Gender(u, +g) => Gender(o, +g)": "is about u and o, whoever they are; let it hold for those who are related only",
    "Knows(u, o) v Gender(u, +g) ^ Gender(o, +g)": "is about u and o, whoever they are",
    "Knows(u, o) ^ Knows(o, p) => Gender(p, +g)": "is about 3 users; at most two are supported",
    "Knows(u, o) ^ u != o => Gender(o, +g)": "compares o; only values can be compared",
    "Gender(u, X)": "'X' is no gender; there are F, M",
}


@pytest.mark.parametrize(("formula", "told"), MISTAKES.items(), ids=MISTAKES)
def test_formulas_that_cannot_be_compiled(formula, told):
    text = HEADER + "word = {a, b}\n" + formula
    with pytest.raises(ValueError, match=rf"my.mln, line 8.*{re.escape(told)}"):
        MarkovLogicNetwork(parse(text, "my.mln"))


def test_a_type_without_values_and_a_table_too_large_are_refused():
    with pytest.raises(ValueError, match=r"my.mln: no values of word; write word = \{...\}, or give data that have"):
        MarkovLogicNetwork(parse(HEADER + "Word(u, +w) => Gender(u, +g)", "my.mln"))
    many = ", ".join(f"v{number}" for number in range(400))
    text = f"A(user, a!)\nB(user, b!)\na = {{{many}}}\nb = {{{many}}}\nA(u, +x) ^ B(u, +y)"
    with pytest.raises(ValueError, match="needs a table of .* numbers; take fewer attributes or values into one form"):
        MarkovLogicNetwork(parse(text))
