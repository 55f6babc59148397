"""`lightning fit|validate|test|predict`: run directories, names and resuming."""
