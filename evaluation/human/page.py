"""The page for annotators, `page.html`, and the key that stays behind, `key.json`, which says what every option is.

Two tasks, on different reply pairs so that neither gives the other away:

- choice: "which reply did this person write?", the real reply among those of the systems, in random order;
- rating: every reply, the real one too, from 1 to 5 for naturalness and for likeness to the person.

Replies of the same text are one option, which counts for all who gave it in equal parts. A pair where every system
gave the real reply asks nothing and is left out. Of several candidates the first is shown. Nothing that is shown on
the page, context or example, holds the real reply of another pair on it.

The page holds what people really wrote: give it only to those who may read it. It never holds a user id or the name
of a system.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from artefacts.files import read_json
from artefacts.fingerprints import fingerprint
from artefacts.predictions import Prediction
from evaluation.report.files import write_file
from evaluation.results.predictions import by_user

REAL = "real reply"
PAGE, KEY = "page.html", "key.json"


@dataclass(frozen=True)
class Pair:
    """One reply pair as it may be shown."""

    user: str  # who wrote the reference
    pair_id: int
    context: tuple[tuple[str, str], ...]  # (role, text) of the last turns before the reply, oldest first
    reference: str
    replies: dict[str, tuple[str, ...]]  # text → who gave it: the real one first, then the systems


def items_of(
    pairs: dict[str, list[Pair]],
    num_users: int,
    choices_per_user: int,
    ratings_per_user: int,
    num_examples: int,
    language: str,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page asks, and the key to it; both in the order in which they are asked."""
    draw = random.Random(seed)
    persons = _draw(pairs, num_users, choices_per_user + ratings_per_user, num_examples, draw)
    items: list[dict[str, Any]] = []
    key: dict[str, dict[str, Any]] = {}
    asked = {"choice": slice(0, choices_per_user), "rating": slice(choices_per_user, None)}
    for task, which in asked.items():
        for person, (chosen, _) in enumerate(persons):
            for pair in chosen[which]:
                texts = draw.sample(list(pair.replies), len(pair.replies))
                context = [[role == "speaker", text] for role, text in pair.context]
                for replies in [texts] if task == "choice" else [[text] for text in texts]:
                    item = {"id": f"{draw.getrandbits(64):016x}", "task": task, "person": person}
                    items.append({**item, "context": context, "replies": replies})
                    sources = [pair.replies[text] for text in replies]
                    key[item["id"]] = {
                        "task": task,
                        "user": pair.user,
                        "pair_id": str(pair.pair_id),
                        "replies": sources,
                    }
    page = {"language": language, "persons": [examples for _, examples in persons], "items": items}
    return page, {"seed": seed, "items": key}


def _draw(
    pairs: dict[str, list[Pair]], num_users: int, needed: int, num_examples: int, draw: random.Random
) -> list[tuple[list[Pair], list[str]]]:
    """Of each person drawn the pairs that are asked about, and the examples."""
    persons: list[tuple[list[Pair], list[str]]] = []
    shown: set[str] = set()
    answers: set[str] = set()
    for user in draw.sample(list(pairs), len(pairs)):
        if len(persons) == num_users:
            break
        order = draw.sample(pairs[user], len(pairs[user]))
        chosen: list[Pair] = []
        seen, taken = set(shown), set(answers)
        for pair in order:
            context = {text for _, text in pair.context}
            if len(chosen) < needed and pair.reference not in seen | taken and not context & taken:
                chosen.append(pair)
                seen |= context
                taken.add(pair.reference)
        options = {text for pair in chosen for text in pair.replies}
        others = [pair.reference for pair in order if pair.reference not in taken | options]
        examples = list(dict.fromkeys(others))[:num_examples]
        if len(chosen) == needed and len(examples) == num_examples:
            persons.append((chosen, examples))
            shown, answers = seen | set(examples), taken
    if len(persons) < num_users:
        raise ValueError(
            f"only {len(persons)} of {len(pairs)} users have {needed} reply pairs to ask about and "
            f"{num_examples} other replies as examples, num_users is {num_users}; lower num_users, choices_per_user, "
            "ratings_per_user or num_examples"
        )
    return persons


def write_page(output: Path, page: dict[str, Any], key: dict[str, Any]) -> None:
    """Writes the page and its key; raises ValueError where the key of another page would be lost."""
    of_page = fingerprint(json.dumps(page))
    path = output / KEY
    if path.is_file() and read_json(path)["page"] != of_page:
        raise ValueError(
            f"{path} is the key of another page, whose answers could not be scored without it; give another "
            "output, or delete that file"
        )
    template = files("evaluation.human").joinpath(PAGE).read_text(encoding="utf-8")
    html = template.replace("{{language}}", page["language"])
    html = html.replace("{{data}}", json_in_html({"page": of_page, **page}))
    write_file(path, json.dumps({"page": of_page, **key}, ensure_ascii=False, indent=1) + "\n")
    write_file(output / PAGE, html)


def usable_pairs(predictions: Mapping[str, Sequence[Prediction]], context_turns: int) -> dict[str, list[Pair]]:
    """The reply pairs of each user with at least two different replies; all systems answer the same pairs."""
    of_systems = {name: {(p.user, p.pair_id): p for p in records} for name, records in predictions.items()}
    users: dict[str, list[Pair]] = {}
    for user, records in by_user(next(iter(predictions.values()))).items():
        for record in records:
            replies = {record.reference.strip(): (REAL,)}
            for name, by_pair in of_systems.items():
                text = by_pair[user, record.pair_id].candidates[0].strip()
                replies[text] = (*replies.get(text, ()), name)
            if len(replies) > 1:
                context = tuple((role, text.strip()) for role, text in record.context)
                kept = context[max(0, len(context) - context_turns) :]
                users.setdefault(user, []).append(Pair(user, record.pair_id, kept, record.reference.strip(), replies))
    return users


def json_in_html(value: Any) -> str:
    """JSON that may stand in a script element: ASCII, and nothing that ends the element or opens a comment."""
    text = json.dumps(value)  # ASCII: line separators and lone surrogates are escaped as well
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
