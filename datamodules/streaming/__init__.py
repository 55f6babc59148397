"""An endless shuffled stream of reply pairs with an exact position."""
