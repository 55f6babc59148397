"""Files on disk: their names and schemas, atomic writing, fingerprints. Standard library only."""
