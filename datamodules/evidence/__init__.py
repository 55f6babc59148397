"""What a post says about its author: words, facts and label patterns for the profile network."""
