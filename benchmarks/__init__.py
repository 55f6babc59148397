"""Speed and memory against what people would use instead; each module is a command that prints a Markdown table."""
