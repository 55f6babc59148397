"""Token shards as the data modules read them: rows of ids of different lengths."""
