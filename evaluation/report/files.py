"""The files of a table: Markdown, LaTeX, CSV and a picture, and the same figures at Weights & Biases."""

import os
import re
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Picture

from artefacts.commit import git_commit
from artefacts.files import replacing
from evaluation.report.cells import align, csv_lines
from evaluation.report.plots import save_png

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
BOLD = re.compile(r"\*\*(.+?)\*\*")


def write_tables(
    output: Path,
    title: str,
    tables: Sequence[Sequence[Sequence[str]]],
    notes: Sequence[str],
    records: Sequence[Any],
    kind: type,
    picture: Picture | None,
    wandb_project: str | None,
) -> None:
    """Prints the tables and writes table.md, .tex, .csv and .png over older ones.

    Args:
        output: Directory, made if missing.
        title: Headline, and caption in LaTeX.
        tables: Rows of cells, the first row the heading.
        notes: What a reader has to know, a line each; the commit of this code is added.
        records: The lines of table.csv.
        kind: Their dataclass, whose attributes are the columns.
        picture: None leaves none there.
        wandb_project: Also logs the records to this project of Weights & Biases.
    """
    commit = git_commit()
    notes = [*notes, *([f"Table made by commit {commit}."] if commit else [])]
    caption = "\n".join(f"- {line}" for line in notes)
    write_markdown(output, title, [*map(align, tables), caption], records, kind)
    write_file(output / "table.tex", "\n".join([*(latex(rows, title) for rows in tables), latex_notes(notes)]))
    if picture is None:
        (output / "table.png").unlink(missing_ok=True)  # an older table's
    else:
        write_file(output / "table.png", picture)
    if wandb_project:
        _log_to_wandb(wandb_project, title, records, kind, output)


def write_markdown(output: Path, title: str, parts: Sequence[str], records: Sequence[Any], kind: type) -> None:
    """Prints a headline with what stands below it, and writes that and the records: table.md and table.csv."""
    markdown = "\n\n".join([f"# {title}", *parts]) + "\n"
    print(markdown)
    write_file(output / "table.md", markdown)
    write_file(output / "table.csv", csv_lines(records, kind))


def write_file(path: Path, content: str | Picture) -> None:
    """Writes a text or a picture in one step, so that a reader never sees half a file, and says so."""
    with replacing(path, shared=True) as partial:
        if isinstance(content, str):
            partial.write_text(content, encoding="utf-8", newline="")
        else:
            save_png(content, partial)
    print(f"wrote {path}")


def _log_to_wandb(project: str, title: str, records: Sequence[Any], kind: type, output: Path) -> None:
    """Logs records as a table of Weights & Biases; offline, below `output`, unless WANDB_MODE says otherwise."""
    import wandb  # two seconds that most tables do not need

    os.environ.setdefault("WANDB_MODE", "offline")
    columns = [field.name for field in fields(kind)]
    with wandb.init(project=project, job_type="table", name=title, dir=output.absolute()) as run:
        run.log({"table": wandb.Table(columns=columns, data=[list(astuple(record)) for record in records])})


def latex(rows: Sequence[Sequence[str]], caption: str) -> str:
    """A `table` environment with the rules of the package booktabs; `**text**` becomes bold."""
    heading, *body = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}"]
    lines += [r"\toprule", heading, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\caption{{{_escaped(caption)}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def latex_notes(lines: Sequence[str]) -> str:
    """What a reader has to know, as a list below the tables."""
    items = "".join(rf"\item {{}}{_escaped(line)}" + "\n" for line in lines)
    return "{\\footnotesize\n\\begin{itemize}\n" + items + "\\end{itemize}}\n"


def _escaped(text: str) -> str:
    return BOLD.sub(r"\\textbf{\1}", "".join(SPECIAL.get(character, character) for character in text))
