"""Markov logic networks: formulas that people write, compiled to tensors, learned and inferred exactly for each user.

From the text on: syntax, tokens, parser, factors, grounding, potentials, network; then propagation between users, the
optimizer, files, and inference from posts.
"""
