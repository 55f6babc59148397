"""`lightning human-eval export` and `score`: a page for annotators, and the table of what they answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.human.annotations import read_annotations, read_key
from evaluation.human.human_scores import HumanScore, caption_of, human_scores, rows_of
from evaluation.human.page import KEY, PAGE, REAL, items_of, usable_pairs, write_page
from evaluation.report.cells import align
from evaluation.report.files import write_markdown
from evaluation.results.cards import card_facts, check_same_split, read_card
from evaluation.results.predictions import check_same_pairs, read_predictions
from evaluation.statistics.bootstrap import Bootstrap


@dataclass
class HumanEvalExport:
    """Makes a page that asks people which reply somebody wrote, and how good replies are; writes its key beside it.

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

    systems: dict[str, Path]
    output: Path
    num_users: int
    choices_per_user: int = 2
    ratings_per_user: int = 1
    num_examples: int = 6
    context_turns: int = 6
    language: Literal["en", "ja"] = "en"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.systems:
            raise ValueError("systems: expected at least one `name: path/to/predictions.jsonl`, got none")
        if REAL in self.systems:
            raise ValueError(f"systems: {REAL!r} is what the person wrote; give the system another name")
        least = {"num_users": 1, "choices_per_user": 0, "ratings_per_user": 0, "num_examples": 1, "context_turns": 0}
        for name, number in least.items():
            if vars(self)[name] < number:
                raise ValueError(f"{name} must be at least {number}, got {vars(self)[name]}")
        if not self.choices_per_user + self.ratings_per_user:
            raise ValueError("choices_per_user and ratings_per_user are both 0: nothing would be asked")

    def run(self) -> None:
        """Reads, draws, and writes the page and its key."""
        predictions = {name: read_predictions(path) for name, path in self.systems.items()}
        cards = {name: read_card(path) for name, path in self.systems.items()}
        first = next(iter(self.systems))
        for name in self.systems:
            check_same_split(first, cards[first], name, cards[name])
            check_same_pairs(first, predictions[first], name, predictions[name])
        page, key = items_of(
            usable_pairs(predictions, self.context_turns),
            num_users=self.num_users,
            choices_per_user=self.choices_per_user,
            ratings_per_user=self.ratings_per_user,
            num_examples=self.num_examples,
            language=self.language,
            seed=self.seed,
        )
        key["systems"] = {name: card_facts(card) for name, card in cards.items()}
        write_page(self.output, page, key)
        num_questions = len(page["items"])
        print(f"{num_questions} questions about {self.num_users} people. Give annotators {PAGE} alone, keep {KEY}.")


@dataclass
class HumanEvalScore:
    """Puts the answers of annotators together: who was taken for the person, mean marks, agreement.

    Args:
        key: The key.json that `lightning human-eval export` wrote beside the page.
        annotations: The files that annotators saved, one of each: [ann.json, bob.json].
        output: Directory for table.md and table.csv; by default that of the key.
        num_resamples: Bootstrap resamples for the 95 % intervals.
        seed: Seed of the bootstrap.
        title: Headline of the table.
    """

    key: Path
    annotations: list[Path]
    output: Path | None = None
    num_resamples: int = 10_000
    seed: int = 0
    title: str = "Human evaluation"

    def __post_init__(self) -> None:
        if not self.annotations:
            raise ValueError("annotations: expected at least one file, got none")
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1, got {self.num_resamples}")

    def run(self) -> None:
        """Reads and checks all files, prints the table and writes it."""
        key = read_key(self.key)
        answers = read_annotations(self.annotations, key)
        bootstrap = Bootstrap(self.num_resamples, self.seed)
        scores = human_scores(key, answers, bootstrap)
        tables = [align(rows_of(scores)), caption_of(key, answers, bootstrap)]
        write_markdown(self.output or self.key.parent, self.title, tables, scores, HumanScore)
