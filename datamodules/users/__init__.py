"""Batches of target users: their turns, histories, retrieved replies and general pairs."""
