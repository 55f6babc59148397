"""Backbones: loading and saving, likelihood of replies, generation."""
