"""Human evaluation: a page that annotators open, and the figures of what they answer; no server, no network."""
