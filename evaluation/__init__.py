"""Reads prediction files and makes scores, a table and a plot; knows nothing of trainers, models or data modules."""
