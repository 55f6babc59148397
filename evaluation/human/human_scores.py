"""From the answers of annotators to figures, with intervals and agreement; no text of a reply is read or written.

Figures, of the real reply and of each system, mean over annotators and items:

    taken        share of the choices that took this reply; a reply that several gave counts for each in equal parts
    chance       the same for somebody who picks blindly
    naturalness, likeness    mean mark, 1 to 5

Intervals are 95 % BCa bootstrap over users, then items within them; the annotators are taken as they are.
Agreement is Krippendorff's alpha: nominal for choices, ordinal for marks. The value of a choice is the number of the
option: numbers are random, so the agreement to expect is that of picking blindly. By system, annotators who all know
the real reply would have nothing to disagree about, and alpha would be 0 or undefined for the best of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.human.annotations import ASKED, Answers
from evaluation.human.page import REAL
from evaluation.scores.figure import interval_cell
from evaluation.statistics.agreement import krippendorff_alpha
from evaluation.statistics.bootstrap import MIN_UNITS, Bootstrap

AGREEMENT = "Krippendorff's alpha"


@dataclass(frozen=True)
class HumanScore:
    """A line of `table.csv`; an interval is None with too few users, and of what has none."""

    reply_of: str  # "real reply", a system, or "Krippendorff's alpha"
    figure: str  # taken, chance, naturalness or likeness
    value: float
    low: float | None
    high: float | None
    num_items: int  # what was averaged


def human_scores(key: dict[str, Any], answers: Sequence[Answers], bootstrap: Bootstrap) -> list[HumanScore]:
    """All figures of the real reply and of each system, then the agreement."""
    scores = [
        score
        for reply_of in (REAL, *key["systems"])
        for task, names in ASKED.items()
        for name in names
        for score in _scores(reply_of, task, name, key["items"], answers, bootstrap)
    ]
    return scores + _agreement(key["items"], answers)


def _scores(
    reply_of: str, task: str, name: str, items: dict[str, Any], answers: Sequence[Answers], bootstrap: Bootstrap
) -> list[HumanScore]:
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
    total, chance, num_items = np.concatenate(users).sum(axis=0)
    value = total / num_items
    low, high = bootstrap.of_users(users, _mean, value).tolist()
    scores = [HumanScore(reply_of, name, float(value), low, high, int(num_items))]
    if task == "choice":
        scores.append(HumanScore(reply_of, "chance", float(chance / num_items), None, None, int(num_items)))
    return scores


def _agreement(items: dict[str, Any], answers: Sequence[Answers]) -> list[HumanScore]:
    if len(answers) < 2:
        return []
    scores = []
    for task, names in ASKED.items():
        of_task = [item_id for item_id, item in items.items() if item["task"] == task]
        for name in names:
            values = [[one[item_id][name] for one in answers] for item_id in of_task]
            alpha = krippendorff_alpha(values, "nominal" if task == "choice" else "ordinal")
            if alpha is not None:
                scores.append(HumanScore(AGREEMENT, name, alpha, None, None, len(values)))
    return scores


def _mean(sums: np.ndarray) -> np.ndarray:
    """From sums of drawn users (resamples, users, 3) to the mean over items, (resamples,)."""
    total = sums.sum(axis=1)
    return total[:, 0] / total[:, 2]


def rows_of(scores: Sequence[HumanScore]) -> list[list[str]]:
    """The heading, then the real reply, each system and the agreement, a row each."""
    by_name = {(score.reply_of, score.figure): score for score in scores}
    rows = [["reply of", "taken %", "by chance %", "naturalness", "likeness"]]
    for reply_of in dict.fromkeys(score.reply_of for score in scores):
        cells = [_cell(by_name.get((reply_of, name))) for name in ("taken", "chance", "naturalness", "likeness")]
        rows.append([f"**{reply_of}**" if reply_of == AGREEMENT else reply_of, *cells])
    return rows


def _cell(score: HumanScore | None) -> str:
    if score is None:
        return "-"
    is_share = score.reply_of != AGREEMENT and score.figure in ("taken", "chance")
    return interval_cell(score.value, score.low, score.high, *((".1f", 100.0) if is_share else (".2f",)))


def caption_of(key: dict[str, Any], answers: Sequence[Answers], bootstrap: Bootstrap) -> str:
    """How the figures are to be read, and what they are of."""
    items = key["items"].values()
    num_users = len({item["user"] for item in items})
    tasks = Counter(item["task"] for item in items)
    lines = [
        f"{len(answers)} annotator{'s' * (len(answers) > 1)}, {num_users} users, {tasks['choice']} choices and "
        f"{tasks['rating']} rated replies each; page {key['page']}. taken: % of the choices that took this reply "
        "for the person's; by chance: the same of picking blindly. naturalness, likeness: mean mark, 1 to 5.",
        f"[low, high]: 95 % BCa bootstrap over users, then items, {bootstrap.num_resamples:,} resamples, seed "
        f"{bootstrap.seed}; the annotators are taken as they are."
        if num_users >= MIN_UNITS
        else f"Only {num_users} users, fewer than {MIN_UNITS}: no intervals.",
        f"{AGREEMENT}: nominal for choices, by the number of the option, which is random; ordinal for marks; "
        "- where all answers are the same."
        if len(answers) > 1
        else f"One annotator: no {AGREEMENT}, which is of two or more.",
    ]
    lines += [f"{name}: {'; '.join(facts)}." for name, facts in key["systems"].items() if facts]
    return "\n".join(f"- {line}" for line in lines)
