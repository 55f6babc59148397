"""What runs leave on disk, as the evaluation reads it."""
