"""`lightning table`: from prediction files to one table, its tidy CSV and its picture.

In: a `predictions.jsonl` per system, all over the same reply pairs. Out: `table.md`, `table.csv`, `table.png`.
Not its job: the figures (`scores.py`), the drawing (`plots.py`). No text of a reply or context is written anywhere.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.intervals import MIN_UNITS
from evaluation.plots import UserPanels, draw_users, save_png
from evaluation.predictions import (
    Prediction,
    card_facts,
    check_same_pairs,
    check_same_split,
    read_card,
    read_predictions,
)
from evaluation.scores import (
    COMPARISONS,
    CORPUS,
    MACRO,
    METRICS,
    MICRO,
    Score,
    corpus_scores,
    items_of_users,
    same_tokens,
    user_scores,
)
from evaluation.significance import ALPHA, Standing, overall_standings
from evaluation.similarity import DEFAULT_ENCODER, TextEncoder
from evaluation.text_metrics import Unit

LABEL_LENGTH = 8


class Table:
    """Scores several systems on the same test turns and writes table.md, table.csv and table.png."""

    def __init__(
        self,
        systems: dict[str, Path],
        output: Path,
        encoder: str | None = DEFAULT_ENCODER,
        num_resamples: int = 10_000,
        seed: int = 0,
        title: str = "Perplexity and similarity per user",
        unit: Unit = "word",
        per_user: bool = True,
    ) -> None:
        """Takes the settings; nothing is read before `run`.

        Args:
            systems: Name of a system and its predictions.jsonl; the first is the reference the others are compared to.
            output: Directory for table.md, table.csv and table.png; made if missing, older tables are replaced.
            encoder: Sentence encoder for similarity, a name or a directory (not stated in the paper); None leaves
                similarity out, and needs `per_user` false.
            num_resamples: Bootstrap resamples for the 95 % intervals.
            seed: Seed of the bootstrap.
            title: Headline of the table and of the picture.
            unit: What distinct-n and the length ratio count; "character" for Japanese.
            per_user: Whether single users are shown. Without them a system is a row and there is no picture: for many
                systems, and for a corpus whose terms ask for aggregates only.
        """
        if not systems:
            raise ValueError("systems: expected at least one `name: path/to/predictions.jsonl`, got none")
        if num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
        if encoder is None and per_user:
            raise ValueError("without an encoder there is no picture of users; set per_user=false")
        self.systems = {name: Path(path) for name, path in systems.items()}
        self.output = Path(output)
        self.encoder = encoder
        self.num_resamples = num_resamples
        self.seed = seed
        self.title = title
        self.unit: Unit = unit
        self.per_user = per_user

    def run(self) -> None:
        """Reads, scores, prints the table and writes the three files."""
        predictions = {name: read_predictions(path) for name, path in self.systems.items()}
        cards = {name: read_card(path) for name, path in self.systems.items()}
        reference = next(iter(self.systems))
        for name in self.systems:
            check_same_split(reference, cards[reference], name, cards[name])
            check_same_pairs(reference, predictions[reference], name, predictions[name])
        text_encoder = None if self.encoder is None else TextEncoder(self.encoder)
        users = items_of_users(predictions, text_encoder)
        scores = user_scores(list(predictions), users, self.num_resamples, self.seed)
        scores += corpus_scores(predictions, self.unit)
        if text_encoder is None:
            scores = [score for score in scores if not score.metric.startswith("similarity")]
        name = "none" if text_encoder is None else text_encoder.name
        self._write(scores, user_labels(list(users)), self._caption(predictions, cards, users, name), name)

    def _caption(
        self,
        predictions: dict[str, list[Prediction]],
        cards: dict[str, dict[str, Any]],
        users: dict[str, np.ndarray],
        encoder_name: str,
    ) -> str:
        reference = next(iter(predictions))
        few_users = f" Only {len(users)} users, fewer than {MIN_UNITS}: no overall intervals, and no tests."
        lines = [
            f"{len(users)} users, {len(predictions[reference])} test turns. ppl: perplexity per label token. sim: mean "
            f"cosine of generated and reference reply, encoder {encoder_name}, mean over a turn's candidates, an empty "
            "reply counts 0. micro: all turns pooled; macro: mean over users of the per-user figure.",
            f"[low, high]: 95 % BCa bootstrap, {self.num_resamples:,} resamples, seed {self.seed}; user rows "
            "draw the user's turns, overall rows draw users, then turns within users (errs on the wide side); ratios "
            f"and changes are paired. No interval for a user with fewer than {MIN_UNITS} turns."
            + (few_users if len(users) < MIN_UNITS else ""),
            f"distinct-n and length ratio count {self.unit}s over all candidates; distinct-n falls with more replies.",
        ]
        if len(predictions) > 1:
            lines.insert(
                2,
                "Overall, of perplexity and similarity: bold is the best system, = one that is not significantly worse "
                "(Wilcoxon's signed rank test of users' own figures against the best, two-sided, Holm over systems and "
                f"figures, alpha {ALPHA}). Perplexities over other label tokens take no part.",
            )
        for (name, records), comparable in zip(predictions.items(), same_tokens(users), strict=True):
            has_likelihoods = records[0].nll is not None
            tokens = f"{sum(p.tokens or 0 for p in records):,} label tokens" if has_likelihoods else "no likelihoods"
            facts = [tokens, *card_facts(cards[name])]
            if has_likelihoods and not comparable:
                facts.append(f"not the label tokens of {reference}, so no perplexity ratio")
            lines.append(f"{name}: {'; '.join(facts)}.")
        return "\n".join(f"- {line}" for line in lines)

    def _write(self, scores: list[Score], labels: dict[str, str], caption: str, encoder_name: str) -> None:
        systems = list(self.systems)
        figure = None
        if self.per_user:
            main_table = _main_table(scores, systems, labels)
            figure = draw_users(_panels(scores, systems, labels, encoder_name), self.title)
        else:
            main_table = _overall_table(scores, systems, labels)
            scores = [score for score in scores if score.user not in labels]
        parts = [f"# {self.title}", main_table, _corpus_table(scores, systems), caption]
        markdown = "\n\n".join(parts) + "\n"
        table = _csv(scores, encoder_name)
        print(markdown)
        self.output.mkdir(parents=True, exist_ok=True)
        replace_file(self.output / "table.md", lambda path: path.write_text(markdown, encoding="utf-8"))
        replace_file(self.output / "table.csv", lambda path: path.write_text(table, encoding="utf-8", newline=""))
        picture = self.output / "table.png"
        if figure is None:
            picture.unlink(missing_ok=True)  # an older table's
        else:
            replace_file(picture, lambda path: save_png(figure, path))


def user_labels(users: Sequence[str]) -> dict[str, str]:
    """Labels of at most 8 ASCII characters: the beginning of the name, or a number where that is not unique."""
    short = [user[:LABEL_LENGTH] for user in users]
    if len(set(short)) < len(short) or not all(label.isascii() for label in short):
        short = [f"user{number:03d}" for number in range(1, len(users) + 1)]
    return dict(zip(users, short, strict=True))


def _main_table(scores: list[Score], systems: list[str], labels: dict[str, str]) -> str:
    found = {(s.system, s.user, s.metric): s for s in scores}
    columns = [(name, metric) for name in systems for metric in METRICS if name != systems[0] or metric in METRICS[:2]]
    headings = {
        "perplexity": "{0} ppl",
        "similarity": "{0} sim",
        "perplexity_ratio": "{0}/{1} ppl %",
        "similarity_change": "{0}-{1} sim",
    }
    rows = [["user", "turns", *(headings[metric].format(name, systems[0]) for name, metric in columns)]]
    standings = overall_standings(scores)
    turns = {user: str(found[systems[0], user, "similarity"].n) for user in [*labels, MICRO]} | {MACRO: ""}
    for user, label in {**labels, MICRO: "**micro**", MACRO: "**macro**"}.items():
        cells = (_marked(found.get((name, user, metric)), standings.get((user, metric))) for name, metric in columns)
        rows.append([label, turns[user], *cells])
    if len(systems) > 1:
        rows.append(["**better**", "", *(_improved(found, name, metric, labels) for name, metric in columns)])
    return align(rows)


def _overall_table(scores: list[Score], systems: list[str], labels: dict[str, str]) -> str:
    """A system a row: over all turns, and how many users have a lower perplexity than with the first system."""
    found = {(s.system, s.user, s.metric): s for s in scores}
    standings = overall_standings(scores)
    rows = [["system", "ppl", f"% of {systems[0]}", "macro %", "better for", "sim", "change of sim"]]

    def cells(name: str, *columns: tuple[str, str]) -> list[str]:
        return [_marked(found.get((name, row, metric)), standings.get((row, metric))) for row, metric in columns]

    for name in systems:
        perplexities = cells(name, (MICRO, "perplexity"), (MICRO, "perplexity_ratio"), (MACRO, "perplexity_ratio"))
        similarities = cells(name, (MICRO, "similarity"), (MICRO, "similarity_change"))
        rows.append([name, *perplexities, _improved(found, name, "perplexity_ratio", labels), *similarities])
    return align(rows)


def _improved(found: dict[tuple[str, str, str], Score], system: str, metric: str, users: dict[str, str]) -> str:
    """How many users have a lower perplexity, or a higher similarity, than with the reference system."""
    gains = [found[system, user, metric].value for user in users if (system, user, metric) in found]
    if metric not in COMPARISONS or not gains:
        return ""
    better = sum(gain < 1.0 if metric == "perplexity_ratio" else gain > 0.0 for gain in gains)
    return f"{better} of {len(users)} users"


def _corpus_table(scores: list[Score], systems: list[str]) -> str:
    corpus = [score for score in scores if score.user == CORPUS]
    rows = [["system", *dict.fromkeys(score.metric.replace("_", " ") for score in corpus), "replies"]]
    for name in systems:
        own = [score for score in corpus if score.system == name]
        rows.append([name, *(_cell(score) for score in own), f"{own[0].n:,}"])
    return align(rows)


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    scale = 100.0 if score.metric == "perplexity_ratio" else 1.0
    form = {"perplexity": ".2f", "perplexity_ratio": ".1f", "similarity_change": "+.3f", "chrF": ".1f"}
    numbers = [x * scale for x in (score.value, score.low, score.high) if x is not None]
    value, *ends = (format(number, form.get(score.metric, ".3f")) for number in numbers)
    return f"{value} [{', '.join(ends)}]" if ends else value


def _marked(score: Score | None, standing: Standing | None) -> str:
    """A cell with its mark: the best bold, = behind what is not significantly worse."""
    cell = _cell(score)
    if score is None or standing is None:
        return cell
    value, *ends = cell.split(" ", 1)
    if score.system == standing.best:
        return " ".join([f"**{value}**", *ends])
    return f"{cell} =" if score.system in standing.not_worse else cell


def _value(score: Score | None) -> float:
    return math.nan if score is None else score.value


def align(rows: list[list[str]]) -> str:
    """A Markdown table whose source is readable as plain text; the first row is the heading."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def _panels(scores: list[Score], systems: list[str], labels: dict[str, str], encoder_name: str) -> UserPanels:
    found = {(s.system, s.user, s.metric): s for s in scores}
    reference, *others = systems
    shown = others or systems
    ppl, sim = COMPARISONS if others else METRICS[:2]

    def overall(name: str, metric: str, what: str) -> str:
        if (name, MICRO, metric) not in found:
            return f"{name[:24]}: no likelihoods, or of other tokens; not comparable"
        better = _improved(found, name, metric, labels)
        return f"{name[:24]}: {_cell(found[name, MICRO, metric])}{what}{better and ', better for ' + better}"

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


def _csv(scores: list[Score], encoder_name: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Score))
    for s in scores:
        metric = f"{s.metric}:{encoder_name}" if s.metric.startswith("similarity") else s.metric
        writer.writerow(astuple(replace(s, metric=metric)))
    return text.getvalue()


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Writes to a temporary name and renames, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"wrote {path}")
