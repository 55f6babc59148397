"""Prompted language models, local and behind an OpenAI-compatible endpoint."""
