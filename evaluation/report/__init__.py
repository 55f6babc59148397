"""What a reader sees: cells, captions, pictures, and the files of a table."""
