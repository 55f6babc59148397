"""Preparation of posts that do not fit in memory, in stages that can be repeated."""
