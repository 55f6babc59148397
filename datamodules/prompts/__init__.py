"""What the model reads: turns, profiles and markers, as tokens."""
