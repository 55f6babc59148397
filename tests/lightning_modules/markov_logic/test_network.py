"""The engine against brute force: partition functions, marginals, likelihoods and gradients of small worlds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from worlds import Evidence, log_weights

from datamodules.batches import Facts
from lightning_modules.markov_logic.grounding import ground
from lightning_modules.markov_logic.network import MarkovLogicNetwork
from lightning_modules.markov_logic.parser import parse
from lightning_modules.markov_logic.potentials import log_sum
from lightning_modules.markov_logic.propagation import BeliefPropagation

DECLARATIONS = """
Gender(user, gender!)
Age(user, age!)
Job(user, job!)
Smokes(user)
*HasWord(user, word)
*Says(user, pattern, job)
*Replies(user, user)
gender = {F, M}
age = {Young, Middle, Old}
job = {Student, Nurse}
word = {red, "two words", blue}
pattern = {am, was}
"""

ONE_USER = [
    "Gender(user, +g)",
    "0.7 Smokes(user)",
    "Smokes(u) <=> Gender(u, M)",
    "HasWord(user, +word) => Gender(user, +g)",
    "HasWord(user, +word) ^ Age(user, Old)",
    "HasWord(user, word) => Gender(user, +g)",
    "!HasWord(user, +word) => Age(user, +a)",
    "Says(u, +p, j) => Job(u, j)",
    "Says(u, +p, +j) ^ Age(u, +a) => Job(u, +j)",
    'Says(u, "am", j) ^ Job(u, k) => j = k',
    'HasWord(u, "red") ^ HasWord(u, "blue") ^ Age(u, +a)',
    'HasWord(u, w) v HasWord(u, "red") v Gender(u, +g)',
    "HasWord(u, +w) ^ Says(u, +p, j) => Job(u, j)",
    "Age(user, +a) ^ Job(user, +j)",
    "Age(user, +a) ^ Job(user, +j) ^ Gender(user, +g)",
    "Age(user, a) ^ a != Old => Smokes(user)",
    "Age(user, Young) => (Job(user, Student) <=> !Smokes(user))",
]
TWO_USERS = [
    "Replies(u, o) ^ Gender(u, +g) => Gender(o, +h)",
    "Replies(u, o) ^ Smokes(u) => Smokes(o)",
    "Replies(u, o) => (Age(u, a) <=> Age(o, a))",
    "Replies(u, o) ^ Age(u, +a) ^ Job(u, +j) => Smokes(o)",
    "Replies(u, o) ^ HasWord(u, +w) ^ HasWord(o, w) => (Gender(u, g) <=> Gender(o, g))",
]
ONE_OF_TWO = ["Replies(u, o) ^ HasWord(o, +w) => Gender(u, +g)", "Replies(o, u) ^ Says(o, +p, j) => Job(u, j)"]

EVIDENCE: Evidence = {
    ("HasWord", "ada", "red"): 1.0,
    ("HasWord", "ada", "two words"): 0.5,
    ("HasWord", "ben", "red"): 1.0,
    ("HasWord", "ben", "blue"): 1.0,
    ("HasWord", "cleo", "blue"): 0.25,
    ("Says", "ada", "am", "Nurse"): 1.0,
    ("Says", "ben", "am", "Student"): 1.0,
    ("Says", "ben", "was", "Nurse"): 0.5,
    ("Replies", "ada", "ben"): 1.0,
    ("Replies", "ben", "ada"): 1.0,
    ("Replies", "ben", "cleo"): 1.0,
}


def network_of(formulas: list[str]) -> MarkovLogicNetwork:
    """With random weights, in double precision."""
    absent = [name for name in ("Gender", "Age", "Job", "Smokes") if not any(name + "(" in one for one in formulas)]
    kept = [line for line in DECLARATIONS.splitlines() if line.partition("(")[0] not in absent]  # fewer worlds
    network = MarkovLogicNetwork(parse("\n".join([*kept, *formulas]))).double()
    random = torch.Generator().manual_seed(1)
    for weight in network.weights:
        weight.data = torch.randn(weight.shape, generator=random, dtype=torch.float64)
    return network


def facts_of(network: MarkovLogicNetwork, users: list[str]) -> dict[str, Facts]:
    found: dict[str, tuple[list, list]] = {}
    for (name, user, *others), degree in EVIDENCE.items():
        types = network.program.predicates[name].types[1:]
        if user not in users or (types == ("user",) and others[0] not in users):
            continue
        domains = [users if type == "user" else network.domains[type] for type in types]
        row = [users.index(user), *(list(domain).index(value) for domain, value in zip(domains, others, strict=True))]
        found.setdefault(name, ([], []))
        found[name][0].append(row)
        found[name][1].append(degree)
    return {name: Facts(torch.tensor(rows), torch.tensor(degrees)) for name, (rows, degrees) in found.items()}


class Truth:
    """Everything about a small network, by brute force."""

    def __init__(self, network: MarkovLogicNetwork, users: list[str]) -> None:
        self.network, self.users = network, users
        evidence = {key: degree for key, degree in EVIDENCE.items() if key[1] in users}
        weights = [weight[0].detach().numpy() for weight in network.weights]
        self.worlds, self.scores, self.features = log_weights(network.program, users, evidence, weights)
        shifted = np.exp(self.scores - self.scores.max())
        self.probabilities = shifted / shifted.sum()

    def marginal(self, attribute: str) -> torch.Tensor:
        values = self.network.values[attribute]
        found = torch.zeros(len(self.users), len(values), dtype=torch.float64)
        for world, probability in zip(self.worlds, self.probabilities, strict=True):
            for row, user in enumerate(self.users):
                found[row, values.index(world[attribute, user])] += probability
        return found

    def conditional(self, consistent: np.ndarray, among: np.ndarray | None = None) -> float:
        """Log probability of some worlds, given that it is one of `among`."""
        among = np.ones_like(consistent) if among is None else among
        return float(np.log(self.probabilities[consistent & among].sum()) - np.log(self.probabilities[among].sum()))

    def where(self, known: dict[tuple[str, str], str]) -> np.ndarray:
        return np.array([all(world[key] == value for key, value in known.items()) for world in self.worlds])


def potentials_of(network: MarkovLogicNetwork, users: list[str], facts: dict[str, Facts] | None = None):
    facts = facts or facts_of(network, users)
    groundings = [ground(factor, facts, len(users), network.domains) for factor in network.factors]
    return network.potentials(groundings, len(users))


def labels_of(network: MarkovLogicNetwork, users: list[str], known: dict[tuple[str, str], str]) -> torch.Tensor:
    labels = torch.full((len(users), len(network.attributes)), -1)
    for (attribute, user), value in known.items():
        column = network.attributes.index(attribute)
        labels[users.index(user), column] = network.values[attribute].index(value)
    return labels


def all_labels(network: MarkovLogicNetwork, users: list[str]) -> dict[tuple[str, str], str]:
    return {
        (attribute, user): network.values[attribute][(number + column) % 2]
        for number, user in enumerate(users)
        for column, attribute in enumerate(network.attributes)
    }


def some_labels(network: MarkovLogicNetwork, users: list[str]) -> dict[tuple[str, str], str]:
    """The first user's last attribute is not known, everything else is."""
    labels = all_labels(network, users)
    del labels[network.attributes[-1], users[0]]
    return labels


@pytest.mark.parametrize("formula", [*ONE_USER, *ONE_OF_TWO])
def test_marginals_and_likelihood_of_one_formula_are_exact(formula):
    users = ["ada", "ben"]
    network = network_of([formula])
    truth = Truth(network, users)
    potentials = potentials_of(network, users)
    assert not potentials.links
    for attribute, found in network.marginals(potentials.joints).items():
        torch.testing.assert_close(found, truth.marginal(attribute), rtol=0, atol=1e-7)
    known = some_labels(network, users)
    found = network.log_likelihood(potentials, labels_of(network, users, known)).sum()
    assert found.item() == pytest.approx(truth.conditional(truth.where(known)), abs=1e-6)


def test_all_formulas_of_one_user_together_and_their_gradients():
    users = ["ben"]
    network = network_of(ONE_USER)
    truth = Truth(network, users)
    potentials = potentials_of(network, users)
    for attribute, found in network.marginals(potentials.joints).items():
        torch.testing.assert_close(found, truth.marginal(attribute), rtol=0, atol=1e-7)
    known = {("Gender", "ben"): "M", ("Job", "ben"): "Nurse"}  # age and smoking summed out
    network.log_likelihood(potentials, labels_of(network, users, known)).sum().backward()
    consistent = truth.probabilities * truth.where(known)
    consistent /= consistent.sum()
    for number, weight in enumerate(network.weights):
        expected = sum(  # counts in the consistent worlds minus counts in all
            (some - every) * features[number]
            for some, every, features in zip(consistent, truth.probabilities, truth.features, strict=True)
        )
        torch.testing.assert_close(weight.grad[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_partition_functions_differ_as_by_brute_force():
    """Up to what is the same in every world, which the engine leaves out."""
    users = ["ada"]
    network = network_of(["Gender(user, +g)", "HasWord(user, +word) => Gender(user, +g)", "Age(user, +a)"])
    potentials = potentials_of(network, users)
    truth = Truth(network, users)
    found = torch.cat([joint.flatten(1) for joint in potentials.joints], dim=1)
    assert len(network.components) == 2 and found.shape == (1, 5)
    ours = sum(log_sum(joint) for joint in potentials.joints).item()
    ours_of_best = sum(joint.flatten(1).max().item() for joint in potentials.joints)
    theirs = np.log(np.exp(truth.scores).sum())
    assert ours_of_best - ours == pytest.approx(truth.scores.max() - theirs, abs=1e-6)


@pytest.mark.parametrize("formula", TWO_USERS)
def test_belief_propagation_is_exact_on_a_tree(formula):
    users = ["ada", "ben", "cleo"]
    network = network_of([formula, "HasWord(user, +word) => Smokes(user)"])
    potentials = potentials_of(network, users)
    truth = Truth(network, users)
    beliefs = BeliefPropagation(tolerance=1e-12, max_rounds=500).beliefs(potentials)
    for attribute, found in network.marginals(beliefs).items():
        torch.testing.assert_close(found, truth.marginal(attribute), rtol=0, atol=1e-7)


@pytest.mark.parametrize("formula", TWO_USERS)
def test_pseudo_likelihood_is_each_user_given_the_others(formula):
    users = ["ada", "ben", "cleo"]
    network = network_of([formula, "HasWord(user, +word) => Smokes(user)"])
    truth = Truth(network, users)
    known = all_labels(network, users)
    found = network.log_likelihood(potentials_of(network, users), labels_of(network, users, known))
    for row, user in enumerate(users):
        others = truth.where({key: value for key, value in known.items() if key[1] != user})
        assert found[row].item() == pytest.approx(truth.conditional(truth.where(known), others), abs=1e-6)


def test_a_link_to_somebody_unknown_is_left_out_of_the_pseudo_likelihood():
    users = ["ada", "ben", "cleo"]
    network = network_of(["Replies(u, o) ^ Smokes(u) => Smokes(o)", "0.3 Smokes(u)"])
    labels = torch.tensor([[1], [0], [-1]])
    found = network.log_likelihood(potentials_of(network, users), labels)
    without = labels_of(network, users, {("Smokes", "ada"): "true", ("Smokes", "ben"): "false"})
    two = potentials_of(network, users[:2])
    expected = network.log_likelihood(two, without[:2])
    torch.testing.assert_close(found[:2], expected)
    assert found[2] == 0


def test_a_cycle_converges_near_the_truth():
    users = ["ada", "ben", "cleo"]
    network = network_of(["Replies(u, o) ^ Smokes(u) => Smokes(o)", "HasWord(u, +w) => Smokes(u)"])
    network.weights[0].data *= 0.5
    extra = {**EVIDENCE, ("Replies", "cleo", "ada"): 1.0}
    facts = facts_of(network, users)
    facts["Replies"] = Facts(torch.cat([facts["Replies"].arguments, torch.tensor([[2, 0]])]), torch.ones(4))
    potentials = potentials_of(network, users, facts)
    weights = [weight[0].detach().numpy() for weight in network.weights]
    every, scores, _ = log_weights(network.program, users, extra, weights)
    probabilities = np.exp(scores) / np.exp(scores).sum()
    truth = [sum(p for w, p in zip(every, probabilities, strict=True) if w["Smokes", user] == "true") for user in users]
    found = network.marginals(BeliefPropagation().beliefs(potentials))["Smokes"][:, 1]
    np.testing.assert_allclose(found.detach().numpy(), truth, atol=0.02)


def test_learners_side_by_side_are_as_each_alone():
    users = ["ada", "ben", "cleo"]
    formulas = [*TWO_USERS[:2], "HasWord(user, +word) => Smokes(user)", "Gender(user, +g)"]
    alone = [network_of(formulas), network_of(formulas)]
    for weight in alone[1].weights:
        weight.data = -0.3 * weight.data.flip(0)
    alone[1].weights[2].data[:, 1] = 0
    together = MarkovLogicNetwork(
        alone[0].program, num_learners=2, allowed={"word": torch.tensor([[True] * 3, [True, False, True]])}
    ).double()
    for weight, first, second in zip(together.weights, alone[0].weights, alone[1].weights, strict=True):
        weight.data = torch.cat([first.data, second.data])
    together.weights[2].data[1, 1] = 5.0  # not allowed, and so without effect
    labels = labels_of(alone[0], users, some_labels(alone[0], users))
    found = together.log_likelihood(potentials_of(together, users), labels.repeat_interleave(2, dim=0))
    beliefs = together.marginals(BeliefPropagation().beliefs(potentials_of(together, users)))
    for number, network in enumerate(alone):
        potentials = potentials_of(network, users)
        torch.testing.assert_close(found[number::2], network.log_likelihood(potentials, labels))
        for attribute, marginals in network.marginals(BeliefPropagation().beliefs(potentials)).items():
            torch.testing.assert_close(beliefs[attribute][number::2], marginals, atol=1e-3, rtol=0)
