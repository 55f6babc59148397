"""Token shards as the data modules read them: rows of ids, and a shuffled stream with an exact position."""
