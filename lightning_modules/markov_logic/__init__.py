"""Markov logic networks: formulas that people write, compiled to tensors, learned and inferred exactly for each user.

syntax.py        the language: declarations and formulas
tokens.py        text → statements
parser.py        statements → declarations and formulas
factors.py       formulas → log-linear factors
grounding.py     facts → which rows of a factor apply to whom
potentials.py    log potentials and the operations on them
network.py       weights, potentials, likelihoods, marginals
propagation.py   belief propagation between users
proximal.py      the optimizer
network_files.py a learned network as a directory
inference.py     profiles from posts by a learned network
decisions.py     from chunks to a user
"""
