"""Scores: metrics of each user and over all users, with intervals."""
