"""Child experiments: the rows of a table and the points of a sweep."""
