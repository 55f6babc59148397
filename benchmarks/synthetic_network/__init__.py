"""An invented social network of any size."""
