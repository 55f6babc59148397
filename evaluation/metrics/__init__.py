"""Metrics: each takes texts, embeddings or sums, and returns numbers."""
