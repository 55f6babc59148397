"""Markov logic networks: formulas that people write, compiled to tensors, learnt and inferred exactly for each user.

syntax.py        text → declarations and formulas
factors.py       formulas → log-linear factors
grounding.py     facts → which rows of a factor apply to whom
network.py       weights, potentials, likelihoods, marginals
propagation.py   belief propagation between users
learnt.py        a learnt network, read and asked
profiles.py      the LightningModule: learning with cross-fitting, profiles from chunks
"""
