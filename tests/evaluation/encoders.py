"""A sentence encoder whose vectors are known."""

import numpy as np

COMPASS = {"east": (1.0, 0.0), "north": (0.0, 2.0), "northeast": (3.0, 4.0), "nowhere": (0.0, 0.0)}
INSTRUMENTS = {"guitar": (1.0, 0.0), "violin": (0.0, 1.0), "drums": (3.0, 4.0)}


class Directions:
    """Looks up the direction of each text; notes what it was asked."""

    def __init__(self, directions, name="directions"):
        self.directions, self.name, self.asked = directions, name, []

    def encode(self, sentences):
        self.asked += sentences
        return np.array([self.directions[sentence] for sentence in sentences], dtype=np.float32)
