"""`lightning human-eval score`: from the answers of annotators to one table, with intervals and agreement.

In: the `key.json` of a page, and the answers that annotators saved there. Out: `table.md`, `table.csv`. No text of a
reply is read or written.

Figures, of the real reply and of each system, mean over annotators and items:

    taken        share of the choices that took this reply; a reply that several gave counts for each in equal parts
    chance       the same for somebody who picks blindly
    naturalness, likeness    mean mark, 1 to 5

Intervals are 95 % BCa bootstrap over users, then items within them; the annotators are taken as they are.
Agreement is Krippendorff's alpha: nominal for choices, ordinal for marks. The value of a choice is the number of the
option: numbers are random, so the agreement to expect is that of picking blindly. By system, annotators who all know
the real reply would have nothing to disagree about, and alpha would be 0 or undefined for the best of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.human.export import REAL
from evaluation.report.cells import align, csv_lines
from evaluation.report.files import replace_file
from evaluation.statistics.agreement import krippendorff_alpha
from evaluation.statistics.bootstrap import MIN_UNITS, bca, jackknife_users, resample_users

ASKED = {"choice": ("taken",), "rating": ("naturalness", "likeness")}  # the answer to "taken" is an option's number
HIGHEST_MARK = 5
AGREEMENT = "Krippendorff's alpha"

Answers = dict[str, dict[str, Any]]  # by item


@dataclass(frozen=True)
class Figure:
    """A line of `table.csv`.

    Attributes:
        reply_of: "real reply", a system, or "Krippendorff's alpha".
        figure: taken, chance, naturalness or likeness.
        value: The figure.
        low: Lower end of the 95 % interval, None without interval.
        high: Upper end.
        num_items: What was averaged.
    """

    reply_of: str
    figure: str
    value: float
    low: float | None
    high: float | None
    num_items: int


class HumanEvalScore:
    """Puts the answers of annotators together: who was taken for the person, mean marks, agreement."""

    def __init__(
        self,
        key: Path,
        annotations: list[Path],
        output: Path | None = None,
        num_resamples: int = 10_000,
        seed: int = 0,
        title: str = "Human evaluation",
    ) -> None:
        """Takes the settings; nothing is read before `run`.

        Args:
            key: The key.json that `lightning human-eval export` wrote beside the page.
            annotations: The files that annotators saved, one of each: [ann.json, bob.json].
            output: Directory for table.md and table.csv; by default that of the key.
            num_resamples: Bootstrap resamples for the 95 % intervals.
            seed: Seed of the bootstrap.
            title: Headline of the table.
        """
        if not annotations:
            raise ValueError("annotations: expected at least one file, got none")
        if num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
        self.key = Path(key)
        self.annotations = [Path(path) for path in annotations]
        self.output = self.key.parent if output is None else Path(output)
        self.num_resamples = num_resamples
        self.seed = seed
        self.title = title

    def run(self) -> None:
        """Reads and checks all files, prints the table and writes it."""
        key = _read_json(self.key)
        if missing := [name for name in ("page", "systems", "items") if name not in key]:
            raise ValueError(
                f"{self.key}: not the key of a page, it has no {', '.join(missing)}; expected its key.json"
            )
        answers = read_annotations(self.annotations, key)
        figures = [
            figure
            for reply_of in (REAL, *key["systems"])
            for task, names in ASKED.items()
            for name in names
            for figure in self._figures(reply_of, task, name, key["items"], answers)
        ]
        figures += _agreement(key["items"], answers)
        markdown = "\n\n".join([f"# {self.title}", _markdown(figures), self._caption(key, answers)]) + "\n"
        print(markdown)
        self.output.mkdir(parents=True, exist_ok=True)
        lines = csv_lines(figures, Figure)
        replace_file(self.output / "table.md", lambda path: path.write_text(markdown, encoding="utf-8"))
        replace_file(self.output / "table.csv", lambda path: path.write_text(lines, encoding="utf-8"))

    def _figures(
        self, reply_of: str, task: str, name: str, items: dict[str, Any], answers: Sequence[Answers]
    ) -> list[Figure]:
        """One figure of one system with its interval; none if nothing was asked about it."""
        of_users: dict[str, list[tuple[float, float, float]]] = {}  # (figure, chance, 1) of each item
        for item_id, item in items.items():
            shares = [(reply_of in sources) / len(sources) for sources in item["replies"]]
            given = [one[item_id].get(name) for one in answers]
            if item["task"] != task or (task == "rating" and not shares[0]):
                continue
            if task == "choice":
                given = [shares[number - 1] for number in given]
            of_users.setdefault(item["user"], []).append((float(np.mean(given)), float(np.mean(shares)), 1.0))
        if not of_users:
            return []
        users = [np.array(rows) for rows in of_users.values()]
        sums = np.concatenate(users).sum(axis=0)
        drawn = resample_users(users, _mean, self.num_resamples, self.seed)
        value = sums[0] / sums[2]
        ends = (None, None) if drawn is None else map(float, bca(drawn, value, jackknife_users(users, _mean)))
        found = [Figure(reply_of, name, float(value), *ends, int(sums[2]))]
        if task == "choice":
            found.append(Figure(reply_of, "chance", float(sums[1] / sums[2]), None, None, int(sums[2])))
        return found

    def _caption(self, key: dict[str, Any], answers: Sequence[Answers]) -> str:
        items = key["items"].values()
        num_users = len({item["user"] for item in items})
        tasks = Counter(item["task"] for item in items)
        lines = [
            f"{len(answers)} annotator{'s' * (len(answers) > 1)}, {num_users} users, {tasks['choice']} choices and "
            f"{tasks['rating']} rated replies each; page {key['page']}. taken: % of the choices that took this reply "
            "for the person's; by chance: the same of picking blindly. naturalness, likeness: mean mark, 1 to 5.",
            f"[low, high]: 95 % BCa bootstrap over users, then items, {self.num_resamples:,} resamples, seed "
            f"{self.seed}; the annotators are taken as they are."
            if num_users >= MIN_UNITS
            else f"Only {num_users} users, fewer than {MIN_UNITS}: no intervals.",
            f"{AGREEMENT}: nominal for choices, by the number of the option, which is random; ordinal for marks; "
            "- where all answers are the same."
            if len(answers) > 1
            else f"One annotator: no {AGREEMENT}, which is of two or more.",
        ]
        lines += [f"{name}: {'; '.join(facts)}." for name, facts in key["systems"].items() if facts]
        return "\n".join(f"- {line}" for line in lines)


def read_annotations(paths: Sequence[Path], key: dict[str, Any]) -> list[Answers]:
    """Reads what annotators saved, and holds it against the key.

    Args:
        paths: One file an annotator.
        key: What `export` wrote: the page's fingerprint and its items.

    Returns:
        Of each annotator the answer to every item.

    Raises:
        ValueError: Names every file and item with a problem, and the problem.
    """
    problems: list[str] = []
    annotators: dict[str, Path] = {}
    found = []
    for path in paths:
        record = _read_json(path)
        answers, name = record.get("answers"), record.get("annotator")
        if record.get("page") != key["page"]:
            problems.append(f"{path}: answers of page {record.get('page')}, the key is that of page {key['page']}")
        elif not isinstance(name, str) or not isinstance(answers, list):
            problems.append(f"{path}: expected the keys 'annotator' (a string) and 'answers' (a list)")
        elif name in annotators:
            problems.append(f"{path}: a second file of annotator {name!r}, the first is {annotators[name]}")
        else:
            annotators[name] = path
            if wrong := _problems(answers, key["items"]):
                problems += [f"{path}: {problem}" for problem in wrong]
            else:
                found.append({answer["item"]: answer for answer in answers})
    if problems:
        raise ValueError("the answers cannot be scored:\n" + "\n".join(problems))
    return found


def _problems(answers: list[Any], items: dict[str, Any]) -> list[str]:
    """What is wrong with the answers of one annotator."""
    ids = [str(answer.get("item")) if isinstance(answer, dict) else "?" for answer in answers]
    problems = [f"item {item_id}: unknown, it is not in the key" for item_id in ids if item_id not in items]
    problems += [f"item {item_id}: answered {n} times" for item_id, n in Counter(ids).items() if n > 1]
    problems += [f"item {item_id}: missing, it is not answered" for item_id in items if item_id not in ids]
    for item_id, answer in zip(ids, answers, strict=True):
        item = items.get(item_id)
        for field in ASKED[item["task"]] if item else ():
            highest = len(item["replies"]) if field == "taken" else HIGHEST_MARK
            value = answer.get(field)
            if type(value) is not int or not 1 <= value <= highest:  # True is no mark
                problems.append(f"item {item_id}: {field} must be a whole number from 1 to {highest}, got {value!r}")
    return problems


def _agreement(items: dict[str, Any], answers: Sequence[Answers]) -> list[Figure]:
    if len(answers) < 2:
        return []
    found = []
    for task, names in ASKED.items():
        of_task = [item_id for item_id, item in items.items() if item["task"] == task]
        for name in names:
            values = [[one[item_id][name] for one in answers] for item_id in of_task]
            alpha = krippendorff_alpha(values, "nominal" if task == "choice" else "ordinal")
            if alpha is not None:
                found.append(Figure(AGREEMENT, name, alpha, None, None, len(values)))
    return found


def _mean(sums: np.ndarray) -> np.ndarray:
    """From sums of drawn users (resamples, users, 3) to the mean over items, (resamples,)."""
    total = sums.sum(axis=1)
    return total[:, 0] / total[:, 2]


def _markdown(figures: Sequence[Figure]) -> str:
    found = {(figure.reply_of, figure.figure): figure for figure in figures}
    rows = [["reply of", "taken %", "by chance %", "naturalness", "likeness"]]
    for reply_of in dict.fromkeys(figure.reply_of for figure in figures):
        cells = [_cell(found.get((reply_of, name))) for name in ("taken", "chance", "naturalness", "likeness")]
        rows.append([f"**{reply_of}**" if reply_of == AGREEMENT else reply_of, *cells])
    return align(rows)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    share = figure.reply_of != AGREEMENT and figure.figure in ("taken", "chance")
    scale, form = (100.0, ".1f") if share else (1.0, ".2f")
    value, *ends = (format(x * scale, form) for x in (figure.value, figure.low, figure.high) if x is not None)
    return f"{value} [{', '.join(ends)}]" if ends else value


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(record).__name__}")
    return record
