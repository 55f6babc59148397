"""The command line: one file per `lightning X`."""
