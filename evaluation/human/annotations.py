"""The answers that annotators saved, held against the key of their page."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artefacts.files import read_object

ASKED = {"choice": ("taken",), "rating": ("naturalness", "likeness")}  # the answer to "taken" is an option's number
HIGHEST_MARK = 5

Answers = dict[str, dict[str, Any]]
"""Item → what was answered."""


def read_key(path: Path) -> dict[str, Any]:
    """The key of a page; raises ValueError where a file is none."""
    key = read_object(path)
    if missing := [name for name in ("page", "systems", "items") if name not in key]:
        raise ValueError(f"{path}: not the key of a page, it has no {', '.join(missing)}; expected its key.json")
    return key


def read_annotations(paths: Sequence[Path], key: dict[str, Any]) -> list[Answers]:
    """Of each annotator the answer to every item of the key; a file an annotator.

    Raises:
        ValueError: Names every file and item with a problem, and the problem.
    """
    problems: list[str] = []
    annotators: dict[str, tuple[Path, list[Any]]] = {}
    for path in paths:
        record = read_object(path)
        answers, name = record.get("answers"), record.get("annotator")
        if record.get("page") != key["page"]:
            problems.append(f"{path}: answers of page {record.get('page')}, the key is that of page {key['page']}")
        elif not isinstance(name, str) or not isinstance(answers, list):
            problems.append(f"{path}: expected the keys 'annotator' (a string) and 'answers' (a list)")
        elif name in annotators:
            problems.append(f"{path}: a second file of annotator {name!r}, the first is {annotators[name][0]}")
        else:
            annotators[name] = path, answers
            problems += [f"{path}: {problem}" for problem in _problems(answers, key["items"])]
    if problems:
        raise ValueError("the answers cannot be scored:\n" + "\n".join(problems))
    return [{answer["item"]: answer for answer in answers} for _, answers in annotators.values()]


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
