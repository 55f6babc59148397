"""The lines in which sample replies are printed: a callback writes them, forgetting a person erases them from logs."""

CONTEXT, SAID, MODEL = "  … ", "    said:  ", "    model: "


def sample_lines(context: str, said: str, reply: str) -> str:
    """One sample: the end of a context, what the person said, and what the model says."""
    return f"{CONTEXT}{context}\n{SAID}{said}\n{MODEL}{reply}"


def is_sample_line(line: str) -> bool:
    """Whether a line of a log is part of a sample."""
    return line.startswith((CONTEXT, SAID, MODEL))
