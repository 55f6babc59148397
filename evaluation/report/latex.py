"""A table as LaTeX, for a paper: `tabular` with the rules of the package booktabs.

In: rows of cells as they stand in the Markdown table. Out: LaTeX.
"""

import re
from collections.abc import Sequence

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
BOLD = re.compile(r"\*\*(.+?)\*\*")


def latex(rows: Sequence[Sequence[str]], caption: str) -> str:
    """A `table` environment; the first row is the heading, `**text**` becomes bold.

    Args:
        rows: cells, all rows of one length.
        caption: plain text.
    """
    heading, *body = [" & ".join(_cell(cell) for cell in row) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}"]
    lines += [r"\toprule", heading, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\caption{{{_cell(caption)}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def latex_notes(lines: Sequence[str]) -> str:
    """What a reader has to know, as a list below the tables."""
    items = "".join(rf"\item {{}}{_cell(line)}" + "\n" for line in lines)
    return "{\\footnotesize\n\\begin{itemize}\n" + items + "\\end{itemize}}\n"


def _cell(text: str) -> str:
    escaped = "".join(SPECIAL.get(character, character) for character in text)
    return BOLD.sub(r"\\textbf{\1}", escaped)
