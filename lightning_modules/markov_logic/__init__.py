"""Markov logic networks: formulas that people write, compiled to tensors, learnt and inferred exactly for each user.

syntax.py        text → declarations and formulas
factors.py       formulas → log-linear factors
grounding.py     facts → which rows of a factor apply to whom
network.py       weights, potentials, likelihoods, marginals
propagation.py   belief propagation between users
proximal.py      the optimizer
network_files.py a learned network, read from disk
inference.py     profiles from posts by a learned network
"""
