"""The files of a table: Markdown, LaTeX, CSV and a picture, and the same figures at Weights & Biases.

In: rows of cells, notes, figures. Out: `table.md`, `.tex`, `.csv`, `.png`.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from artefacts.commit import git_commit
from evaluation.report.cells import align
from evaluation.report.latex import latex, latex_notes
from evaluation.report.plots import save_png


def write_tables(
    output: Path,
    title: str,
    tables: Sequence[Sequence[Sequence[str]]],
    notes: Sequence[str],
    csv_text: str,
    figure: Figure | None,
) -> None:
    """Prints the tables and writes table.md, .tex, .csv and .png.

    Args:
        output: Directory, made if missing; older tables are replaced.
        title: Headline, and caption in LaTeX.
        tables: Rows of cells, the first row the heading.
        notes: What a reader has to know, a line each; the commit of this code is added.
        csv_text: table.csv, one line a figure.
        figure: table.png; None leaves none there.
    """
    commit = git_commit()
    notes = [*notes, *([f"Table made by commit {commit}."] if commit else [])]
    caption = "\n".join(f"- {line}" for line in notes)
    markdown = "\n\n".join([f"# {title}", *map(align, tables), caption]) + "\n"
    print(markdown)
    output.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("table.md", markdown),
        ("table.tex", "\n".join([*(latex(rows, title) for rows in tables), latex_notes(notes)])),
        ("table.csv", csv_text),
    ):
        replace_file(output / name, lambda path, text=text: path.write_text(text, encoding="utf-8", newline=""))
    if figure is None:
        (output / "table.png").unlink(missing_ok=True)  # an older table's
    else:
        replace_file(output / "table.png", lambda path: save_png(figure, path))


def log_to_wandb(project: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], output: Path) -> None:
    """Logs figures as a table of Weights & Biases; offline, below `output`, unless WANDB_MODE says otherwise."""
    import wandb  # two seconds that most tables do not need

    os.environ.setdefault("WANDB_MODE", "offline")
    with wandb.init(project=project, job_type="table", name=title, dir=output.absolute()) as run:
        run.log({"table": wandb.Table(columns=list(columns), data=[list(row) for row in rows])})


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Writes to a temporary name and renames, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"wrote {path}")
