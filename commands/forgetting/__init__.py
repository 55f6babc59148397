"""Removing a person from prepared data and runs."""
