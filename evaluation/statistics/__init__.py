"""Bootstrap intervals, tests and agreement."""
