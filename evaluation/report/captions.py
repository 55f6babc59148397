"""What stands below a table of systems: data, users, turns, decoding, commit, and how to read the figures."""

from collections.abc import Iterable, Mapping

import numpy as np

from evaluation.report.options import Options
from evaluation.results.cards import card_facts
from evaluation.results.systems import Systems
from evaluation.results.test_sums import TestSums
from evaluation.scores.corpus_scores import TEXT_FIGURES
from evaluation.scores.figure import PREPARED, Figure
from evaluation.scores.person_scores import BEST_OF_N, PERSON_FIGURES, as_many_candidates
from evaluation.scores.run_scores import PAPER_SIMILARITY
from evaluation.scores.user_scores import PERPLEXITY, SIMILARITY, USER_FIGURES, same_tokens
from evaluation.scores.weight_scores import WEIGHT_FIGURES, samples_of
from evaluation.statistics.bootstrap import MIN_UNITS
from evaluation.statistics.significance import ALPHA

MANY_USERS = 20
"""In a simulation with 10 users of skewed figures, 95 % intervals covered 87 %; with 24 they erred on the wide side."""


def caption_of(systems: Systems, users: Mapping[str, np.ndarray], options: Options) -> list[str]:
    """The caption, a line for each thing that a reader has to know; `users` are from `items_of_users`."""
    num_turns = len(systems.predictions[systems.reference])
    facts = {"encoder": options.encoder_name, "unit": options.unit, "turns": num_turns}
    similarity = [SIMILARITY] if is_shown([SIMILARITY], options) and options.encoder else []
    texts = [f for f in TEXT_FIGURES if is_shown([f], options) and (not f.needs or options.mauve)]
    lines = [
        f"{len(users)} users, {num_turns} test turns. {' '.join(descriptions([PERPLEXITY, *similarity], facts))} "
        "micro: all turns pooled; macro: mean over users of the per-user figure.",
        f"[low, high]: 95 % BCa bootstrap, {options.bootstrap.num_resamples:,} resamples, seed "
        f"{options.bootstrap.seed}; user rows draw the user's turns, overall rows draw users, then turns within users "
        "(errs on the wide side); ratios and changes are paired. No interval for a user with fewer than "
        f"{MIN_UNITS} turns.{_few_users(len(users))}",
    ]
    if len(systems.predictions) > 1:
        lines.append(_marks(len(users)))
    lines += descriptions(texts, facts)
    if options.prepared and is_shown(PERSON_FIGURES, options):
        lines += _about_persons(systems, facts)
    if options.paper and is_shown([PAPER_SIMILARITY], options):
        lines.append(PAPER_SIMILARITY.description)
    return [*lines, *_about_systems(systems, users)]


def caption_of_weights(tests: Mapping[str, TestSums]) -> str:
    """How the figures of weights are to be read."""
    sentences = [*descriptions(WEIGHT_FIGURES, {}), samples_of(tests)]
    return f"Weights (`lightning test`), intervals over users: {' '.join(sentences)}".rstrip()


def descriptions(figures: Iterable[Figure], facts: Mapping[str, object]) -> list[str]:
    """What is said of the figures, each sentence once."""
    return list(dict.fromkeys(f.description.format_map(facts) for f in figures if f.description))


def is_shown(figures: Iterable[Figure], options: Options) -> bool:
    """Has one of the figures a column?"""
    return any(figure.name in options.shown for figure in figures)


def _few_users(num_users: int) -> str:
    if num_users < MIN_UNITS:
        return f" Only {num_users} users, fewer than {MIN_UNITS}: no overall intervals, and no tests."
    if num_users < MANY_USERS:
        return f" With fewer than {MANY_USERS} users, overall intervals may cover less than they say."
    return ""


def _marks(num_users: int) -> str:
    if num_users < MIN_UNITS:
        return "Bold is the best system; nothing is tested."
    perplexity, *others = [figure.name for figure in (*USER_FIGURES, *TEXT_FIGURES) if figure.is_tested]
    return (
        "Bold is the best system, = one that is not significantly worse (Wilcoxon's signed rank test of users' own "
        f"figures against the best, two-sided, Holm over all tests of the table, alpha {ALPHA}). Tested are "
        f"{perplexity} (over the same label tokens), {', '.join(others)} and, of the persons, all of which more is "
        "better." + (f" With {num_users} users no difference can be significant." if num_users == MIN_UNITS else "")
    )


def _about_persons(systems: Systems, facts: Mapping[str, object]) -> list[str]:
    records = systems.predictions[systems.reference]
    several = any(len(p.candidates) > 1 for p in records)
    figures = [f for f in PERSON_FIGURES if f.needs == PREPARED and (several or f is not BEST_OF_N)]
    lines = [f"The table with the persons, means over users. {' '.join(descriptions(figures, facts))}"]
    if others := [name for name, one in systems.predictions.items() if not as_many_candidates(records, one)]:
        lines.append(
            f"{', '.join(others)}: other numbers of candidates than {systems.reference}, so no best of n and no "
            "coverage."
        )
    return lines


def _about_systems(systems: Systems, users: Mapping[str, np.ndarray]) -> list[str]:
    lines = []
    for (name, records), comparable in zip(systems.predictions.items(), same_tokens(users), strict=True):
        has_likelihoods = records[0].nll is not None
        tokens = f"{sum(p.tokens or 0 for p in records):,} label tokens" if has_likelihoods else "no likelihoods"
        facts = [tokens, *card_facts(systems.cards[name])]
        if has_likelihoods and not comparable:
            facts.append(f"not the label tokens of {systems.reference}, so no perplexity ratio")
        lines.append(f"{name}: {'; '.join(facts)}.")
    return lines + [f"{name} failed: {reason}" for name, reason in systems.failed.items()]
