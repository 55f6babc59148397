"""`lightning human-eval export`: from prediction files to one page for annotators, and the key that stays behind.

In: a `predictions.jsonl` per system, all over the same reply pairs. Out: `page.html`, one file that needs no network,
and `key.json`, which says what every option is.

Two tasks, on different reply pairs so that neither gives the other away:

- choice: "which reply did this person write?", the real reply among those of the systems, in random order;
- rating: every reply, the real one too, from 1 to 5 for naturalness and for likeness to the person.

Replies of the same text are one option, which counts for all who gave it in equal parts. A pair where every system
gave the real reply asks nothing and is left out. Of several candidates the first is shown. Nothing that is shown on
the page, context or example, holds the real reply of another pair on it.

The page holds what people really wrote: give it only to those who may read it. It never holds a user id or the name
of a system.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from evaluation.report.files import replace_file
from evaluation.results.predictions import (
    Prediction,
    by_user,
    card_facts,
    check_same_pairs,
    check_same_split,
    read_card,
    read_predictions,
)

REAL = "real reply"
PAGE, KEY = "page.html", "key.json"


@dataclass(frozen=True)
class Pair:
    """One reply pair as it may be shown.

    Attributes:
        user: Who wrote the reference.
        pair_id: Its number, unique within the user.
        context: The last turns before the reply, (role, text), oldest first.
        reference: The real reply.
        replies: Text of a reply and who gave it: the real one first, then the systems.
    """

    user: str
    pair_id: int
    context: tuple[tuple[str, str], ...]
    reference: str
    replies: dict[str, tuple[str, ...]]


class HumanEvalExport:
    """Makes a page that asks people which reply somebody wrote, and how good replies are; writes its key beside it."""

    def __init__(
        self,
        systems: dict[str, Path],
        output: Path,
        num_users: int,
        choices_per_user: int = 2,
        ratings_per_user: int = 1,
        num_examples: int = 6,
        context_turns: int = 6,
        language: Literal["en", "ja"] = "en",
        seed: int = 0,
    ) -> None:
        """Takes the settings; nothing is read before `run`.

        Args:
            systems: Name of a system and its predictions.jsonl.
            output: Directory for page.html and key.json; made if missing.
            num_users: How many people are asked about, drawn by seed; 5 or more for intervals.
            choices_per_user: Reply pairs of each of them for "which reply did this person write?".
            ratings_per_user: Further pairs of each, every reply of which is rated.
            num_examples: Real replies of a person to other pairs, shown with each question.
            context_turns: How many turns before the reply are shown at most.
            language: Language of the page; the replies stay as they are.
            seed: Decides users, pairs, examples and every order.
        """
        if not systems:
            raise ValueError("systems: expected at least one `name: path/to/predictions.jsonl`, got none")
        if REAL in systems:
            raise ValueError(f"systems: {REAL!r} is what the person wrote; give the system another name")
        for name, value, least in (
            ("num_users", num_users, 1),
            ("choices_per_user", choices_per_user, 0),
            ("ratings_per_user", ratings_per_user, 0),
            ("num_examples", num_examples, 1),
            ("context_turns", context_turns, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not choices_per_user + ratings_per_user:
            raise ValueError("choices_per_user and ratings_per_user are both 0: nothing would be asked")
        self.systems = {name: Path(path) for name, path in systems.items()}
        self.output = Path(output)
        self.num_users = num_users
        self.choices_per_user = choices_per_user
        self.ratings_per_user = ratings_per_user
        self.num_examples = num_examples
        self.context_turns = context_turns
        self.language = language
        self.seed = seed

    def run(self) -> None:
        """Reads, draws, and writes the page and its key."""
        predictions = {name: read_predictions(path) for name, path in self.systems.items()}
        cards = {name: read_card(path) for name, path in self.systems.items()}
        first = next(iter(self.systems))
        for name in self.systems:
            check_same_split(first, cards[first], name, cards[name])
            check_same_pairs(first, predictions[first], name, predictions[name])
        pairs = usable_pairs(predictions, self.context_turns)
        page, key = self._items(pairs, random.Random(self.seed))
        key["systems"] = {name: card_facts(card) for name, card in cards.items()}
        self._write(page, key)

    def _items(self, pairs: dict[str, list[Pair]], draw: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the page asks, and the key to it; both in the order in which they are asked."""
        persons = self._draw(pairs, draw)
        items: list[dict[str, Any]] = []
        key: dict[str, dict[str, Any]] = {}
        asked = {"choice": slice(0, self.choices_per_user), "rating": slice(self.choices_per_user, None)}
        for task, which in asked.items():
            for person, (chosen, _) in enumerate(persons):
                for pair in chosen[which]:
                    texts = draw.sample(list(pair.replies), len(pair.replies))
                    context = [[role == "speaker", text] for role, text in pair.context]
                    for replies in [texts] if task == "choice" else [[text] for text in texts]:
                        item = {"id": f"{draw.getrandbits(64):016x}", "task": task, "person": person}
                        items.append({**item, "context": context, "replies": replies})
                        sources = [pair.replies[text] for text in replies]
                        key[item["id"]] = {"task": task, "user": pair.user, "pair_id": pair.pair_id, "replies": sources}
        page = {"language": self.language, "persons": [examples for _, examples in persons], "items": items}
        return page, {"seed": self.seed, "items": key}

    def _draw(self, pairs: dict[str, list[Pair]], draw: random.Random) -> list[tuple[list[Pair], list[str]]]:
        """Of each person drawn the pairs that are asked about, and the examples."""
        needed = self.choices_per_user + self.ratings_per_user
        persons: list[tuple[list[Pair], list[str]]] = []
        shown: set[str] = set()
        answers: set[str] = set()
        for user in draw.sample(list(pairs), len(pairs)):
            if len(persons) == self.num_users:
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
            examples = list(dict.fromkeys(others))[: self.num_examples]
            if len(chosen) == needed and len(examples) == self.num_examples:
                persons.append((chosen, examples))
                shown, answers = seen | set(examples), taken
        if len(persons) < self.num_users:
            raise ValueError(
                f"only {len(persons)} of {len(pairs)} users have {needed} reply pairs to ask about and "
                f"{self.num_examples} other replies as examples, num_users is {self.num_users}; lower num_users, "
                "choices_per_user, ratings_per_user or num_examples"
            )
        return persons

    def _write(self, page: dict[str, Any], key: dict[str, Any]) -> None:
        fingerprint = hashlib.sha256(json.dumps(page).encode()).hexdigest()[:16]
        path = self.output / KEY
        if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["page"] != fingerprint:
            raise ValueError(
                f"{path} is the key of another page, whose answers could not be scored without it; give another "
                "output, or delete that file"
            )
        template = files("evaluation.human").joinpath(PAGE).read_text(encoding="utf-8")
        html = template.replace("{{language}}", self.language).replace(
            "{{data}}", json_in_html({"page": fingerprint, **page})
        )
        self.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"page": fingerprint, **key}, ensure_ascii=False, indent=1) + "\n"
        replace_file(path, lambda file: file.write_text(text, encoding="utf-8"))
        replace_file(self.output / PAGE, lambda file: file.write_text(html, encoding="utf-8"))
        print(
            f"{len(page['items'])} questions about {self.num_users} people. Give annotators {PAGE} alone, keep {KEY}."
        )


def usable_pairs(predictions: dict[str, list[Prediction]], context_turns: int) -> dict[str, list[Pair]]:
    """The reply pairs of each user with at least two different replies.

    Args:
        predictions: Of each system, all over the same pairs.
        context_turns: How many turns before the reply are kept.
    """
    of_systems = {name: {(p.user, p.pair_id): p for p in records} for name, records in predictions.items()}
    users: dict[str, list[Pair]] = {}
    for user, records in by_user(next(iter(predictions.values()))).items():
        for record in records:
            replies = {record.reference.strip(): (REAL,)}
            for name, found in of_systems.items():
                text = found[user, record.pair_id].candidates[0].strip()
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
