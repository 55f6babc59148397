"""From scores to what a reader sees: rows of cells, Markdown, CSV, the values of a picture.

In: `Score` records. Out: cells with intervals and marks; the first row of a table is its heading.
"""

import csv
import io
import math
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import astuple, fields, replace
from typing import Any

import numpy as np

from evaluation.report.plots import UserPanels
from evaluation.scores.user_scores import COMPARISONS, CORPUS, MACRO, METRICS, MICRO, RUN, Score
from evaluation.statistics.significance import Standing, Standings

LABEL_LENGTH = 8
REFERENCES = {"perplexity_ratio": 1.0, "similarity_change": 0.0}  # of the first system against itself
OF_A_RUN = {  # metric: heading, what it is divided by, form
    "paper_similarity": ("sim in the paper", 1, ".2f"),
    "validation_perplexity": ("macro ppl in validation", 1, ".2f"),
    "adapter_parameters": ("parameters of an adapter", 1, ",.0f"),
    "adapter_bytes": ("kB on disk", 1000, ",.0f"),
}


def user_labels(users: Sequence[str]) -> dict[str, str]:
    """Labels of at most 8 ASCII characters: the beginning of the name, or a number where that is not unique."""
    short = [user[:LABEL_LENGTH] for user in users]
    if len(set(short)) < len(short) or not all(label.isascii() for label in short):
        short = [f"user{number:03d}" for number in range(1, len(users) + 1)]
    return dict(zip(users, short, strict=True))


def main_rows(
    scores: Sequence[Score],
    systems: Sequence[str],
    labels: Mapping[str, str],
    standings: Standings,
    shown: Container[str],
) -> list[list[str]]:
    """A user a row, then all turns and the mean over users.

    Args:
        scores: of users and overall.
        systems: the first is the reference.
        labels: of the users.
        standings: how the systems stand.
        shown: figures that get a column for each system, where some system has them.
    """
    found = {(s.system, s.user, s.metric): s for s in scores}
    there = {metric for _, user, metric in found if user == MICRO and metric in shown}
    columns = [
        (name, metric)
        for name in systems
        for metric in METRICS
        if metric in there and (name != systems[0] or metric in METRICS[:2])
    ]
    if not columns:
        return [["user"]]
    headings = {
        "perplexity": "{0} ppl",
        "similarity": "{0} sim",
        "perplexity_ratio": "{0}/{1} ppl %",
        "similarity_change": "{0}-{1} sim",
    }
    rows = [["user", "turns", *(headings[metric].format(name, systems[0]) for name, metric in columns)]]
    turns = {user: str(s.n) for (_, user, metric), s in found.items() if metric in METRICS} | {MACRO: ""}
    for user, label in {**labels, MICRO: "**micro**", MACRO: "**macro**"}.items():
        cells = (
            marked(cell(found.get((name, user, metric))), name, standings.get((user, metric)))
            for name, metric in columns
        )
        rows.append([label, turns[user], *cells])
    if len(systems) > 1:
        rows.append(["**better**", "", *(_improved(found, name, metric, labels) for name, metric in columns)])
    return rows


def overall_rows(
    scores: Sequence[Score],
    systems: Sequence[str],
    labels: Mapping[str, str],
    standings: Standings,
    failed: Collection[str],
    shown: Container[str],
) -> list[list[str]]:
    """A system a row: over all turns, and how many users have a lower perplexity than with the first system.

    Args:
        scores: of the systems.
        systems: all of the table, with those that were not scored.
        labels: of the users.
        standings: how the systems stand.
        failed: systems of which this is said.
        shown: figures that get a column where some system has them.
    """
    found = {(s.system, s.user, s.metric): s for s in scores}
    first = next((name for name in systems if name not in failed), systems[0])
    columns = [
        ("ppl", MICRO, "perplexity"),
        (f"% of {first}", MICRO, "perplexity_ratio"),
        ("macro ppl", MACRO, "perplexity"),
        ("macro %", MACRO, "perplexity_ratio"),
        ("better for", MICRO, "perplexity_ratio"),
        ("sim", MICRO, "similarity"),
        ("change of sim", MICRO, "similarity_change"),
        *((heading, RUN, metric) for metric, (heading, _, _) in OF_A_RUN.items()),
    ]
    there = {(user, metric) for _, user, metric in found if metric in shown}
    columns = [column for column in columns if column[1:] in there]
    rows = [[heading for heading, _, _ in columns]]
    rows[0].insert(0, "system")
    for name in systems:
        cells = []
        for heading, user, metric in columns:
            if heading == "better for":
                cells.append(_improved(found, name, "perplexity_ratio", labels))
            elif user == RUN:
                cells.append(cell(found[name, user, metric]) if (name, user, metric) in found else "")
            else:
                cells.append(marked(cell(found.get((name, user, metric))), name, standings.get((user, metric))))
        rows.append([name, *(["failed", *cells[1:]] if name in failed else cells)])
    return rows


def _improved(found: Mapping[tuple[str, str, str], Score], system: str, metric: str, users: Mapping[str, str]) -> str:
    """How many users have a lower perplexity, or a higher similarity, than with the reference system."""
    gains = [found[system, user, metric].value for user in users if (system, user, metric) in found]
    if metric not in COMPARISONS or not gains:
        return ""
    better = sum(gain < 1.0 if metric == "perplexity_ratio" else gain > 0.0 for gain in gains)
    return f"{better} of {len(users)} users"


def corpus_rows(
    scores: Sequence[Score], systems: Sequence[str], standings: Standings, shown: Container[str]
) -> list[list[str]]:
    """A system a row: figures of its texts, and how many replies they are of.

    Args:
        scores: from `corpus_scores`.
        systems: their names, in order.
        standings: how they stand.
        shown: figures that get a column where some system has them.
    """
    found = {(score.system, score.metric): score for score in scores if score.user == CORPUS}
    metrics = [metric for metric in dict.fromkeys(metric for _, metric in found) if metric in shown]
    if not metrics:
        return [["system"]]
    rows = [["system", *(metric.replace("_", " ") for metric in metrics), "replies"]]
    for name in systems:
        replies = found[name, "distinct-1"].n
        cells = (marked(cell(found.get((name, metric))), name, standings.get((CORPUS, metric))) for metric in metrics)
        rows.append([name, *cells, f"{replies:,}"])
    return rows


FORMS = {
    "perplexity": ".2f",
    "perplexity_ratio": ".1f",
    "similarity_change": "+.3f",
    "chrF": ".1f",
    "sacreBLEU": ".1f",
    "self-BLEU": ".1f",
    **{metric: form for metric, (_, _, form) in OF_A_RUN.items()},
}


def cell(score: Score | None, form: str | None = None) -> str:
    """A figure with its interval, in the form of its metric; a dash where there is none, or nothing to divide by."""
    if score is None or math.isnan(score.value):
        return "-"
    scale = 100.0 if score.metric == "perplexity_ratio" else 1 / OF_A_RUN.get(score.metric, ("", 1, ""))[1]
    numbers = [x * scale for x in (score.value, score.low, score.high) if x is not None and not math.isnan(x)]
    value, *ends = (format(number, form or FORMS.get(score.metric, ".3f")) for number in numbers)
    return f"{value} [{', '.join(ends)}]" if len(ends) == 2 else value


def marked(text: str, system: str, standing: Standing | None) -> str:
    """A cell with its mark: the best bold, = behind what is not significantly worse."""
    if standing is None:
        return text
    value, *ends = text.split(" ", 1)
    if system == standing.best:
        return " ".join([f"**{value}**", *ends])
    return f"{text} =" if system in standing.not_worse else text


def _value(score: Score | None) -> float:
    return math.nan if score is None else score.value


def align(rows: list[list[str]]) -> str:
    """A Markdown table whose source is readable as plain text; the first row is the heading."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def panels(scores: list[Score], systems: list[str], labels: dict[str, str], encoder_name: str) -> UserPanels:
    """What the picture of single users shows."""
    found = {(s.system, s.user, s.metric): s for s in scores}
    reference, *others = systems
    shown = others or systems
    ppl, sim = COMPARISONS if others else METRICS[:2]

    def overall(name: str, metric: str, what: str) -> str:
        if (name, MICRO, metric) not in found:
            return f"{name[:24]}: no likelihoods, or of other tokens; not comparable"
        better = _improved(found, name, metric, labels)
        return f"{name[:24]}: {cell(found[name, MICRO, metric])}{what}{better and ', better for ' + better}"

    percent = f" % of {reference[:24]}" if others else ""
    axis = f"change from {reference[:24]}" if others else "cosine with the reference reply"
    return UserPanels(
        labels=list(labels.values()),
        perplexity={  # not a number, which is not drawn, where a system has no likelihoods
            name: np.array([_value(found.get((name, user, "perplexity"))) for user in labels]) for name in systems
        },
        similarity={
            # (users, 3); None becomes NaN, which is not drawn
            name: np.array([astuple(found[name, user, sim])[3:6] for user in labels], dtype=np.float64)
            for name in shown
        },
        perplexity_title="\n".join(["Perplexity over all turns", *(overall(n, ppl, percent) for n in shown)]),
        similarity_title="\n".join(["Similarity over all turns", *(overall(n, sim, "") for n in shown)]),
        similarity_label=f"{axis} (higher is better; bars: 95 % interval)\nencoder {encoder_name}",
    )


def system_panels(scores: list[Score], systems: Sequence[str], encoder_name: str) -> dict[str, dict[str, np.ndarray]]:
    """What the picture of systems shows: over all turns, against the first one where that can be.

    Paired figures, because users differ more than systems do. Nothing where no system has a figure.
    """
    found = {(s.system, s.metric): s for s in scores if s.user == MICRO}
    first = systems[0]
    plain = {
        "perplexity": "perplexity (lower is better; bars: 95 % interval)",
        "similarity": f"similarity (higher is better)\nencoder {encoder_name}",
    }
    paired = {
        "perplexity_ratio": f"perplexity, % of {first} (lower is better; bars: 95 % interval)",
        "similarity_change": f"similarity, change from {first} (higher is better)\nencoder {encoder_name}",
    }
    shown = paired if any(metric in paired for _, metric in found) else plain
    shown = {metric: label for metric, label in shown.items() if any(metric == one for _, one in found)}
    found |= {(first, metric): Score(first, MICRO, metric, at, None, None, 1) for metric, at in REFERENCES.items()}
    nothing = Score("", MICRO, "", math.nan, None, None, 0)

    def ends(name: str, metric: str) -> np.ndarray:  # (3,); None becomes NaN, which is not drawn
        scale = 100.0 if metric == "perplexity_ratio" else 1.0
        return scale * np.array(astuple(found.get((name, metric), nothing))[3:6], dtype=np.float64)

    return {label: {name: ends(name, metric) for name in systems} for metric, label in shown.items()}


def csv_of(scores: list[Score], encoder_name: str) -> str:
    """One line a score; similarities carry their encoder."""
    named = [
        replace(s, metric=f"{s.metric}:{encoder_name}") if s.metric.startswith("similarity") else s for s in scores
    ]
    return csv_lines(named, Score)


def csv_lines(records: Sequence[Any], kind: type) -> str:
    """Records of a dataclass as CSV: a heading, a line each, None as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(kind))
    writer.writerows(map(astuple, records))
    return text.getvalue()
