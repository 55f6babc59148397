"""What stands below a table of systems: data, users, turns, encoder, decoding, commit, and how to read the figures.

In: predictions, their cards, and what the table was asked for. Out: Markdown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.metrics.mauve import MAUVE, MIN_TEXTS
from evaluation.results.predictions import Prediction, card_facts
from evaluation.scores.person_scores import COVERED_FROM, PERSON_FIGURES, as_many_candidates
from evaluation.scores.user_scores import same_tokens
from evaluation.statistics.bootstrap import MIN_UNITS
from evaluation.statistics.significance import ALPHA

if TYPE_CHECKING:
    from commands.table import Table
    from evaluation.metrics.similarity import TextEncoder

MANY_USERS = 20
"""In a simulation with 10 users of skewed figures, 95 % intervals covered 87 %; with 24 they erred on the wide side."""


def caption_of(
    table: Table,
    predictions: dict[str, list[Prediction]],
    cards: dict[str, dict[str, Any]],
    users: dict[str, np.ndarray],
    encoder: TextEncoder | None,
    failed: dict[str, str],
) -> list[str]:
    """The caption, a line for each thing that a reader has to know.

    Args:
        table: What it was asked for.
        predictions: Of every system that was scored; the first is the reference.
        cards: Beside them.
        users: From `items_of_users`.
        encoder: Of the similarities, if there are any.
        failed: System and reason.
    """
    reference = next(iter(predictions))
    similarity = ""
    if "similarity" in table.shown and encoder is not None:
        similarity = (
            f"sim: mean cosine of generated and reference reply, encoder {encoder.name}, mean over a turn's "
            "candidates, an empty reply counts 0. "
        )
    few_users = ""
    if len(users) < MIN_UNITS:
        few_users = f" Only {len(users)} users, fewer than {MIN_UNITS}: no overall intervals, and no tests."
    elif len(users) < MANY_USERS:
        few_users = f" With fewer than {MANY_USERS} users, overall intervals may cover less than they say."
    lines = [
        f"{len(users)} users, {len(predictions[reference])} test turns. ppl: perplexity per label token. {similarity}"
        "micro: all turns pooled; macro: mean over users of the per-user figure.",
        f"[low, high]: 95 % BCa bootstrap, {table.num_resamples:,} resamples, seed {table.seed}; user rows "
        "draw the user's turns, overall rows draw users, then turns within users (errs on the wide side); ratios "
        f"and changes are paired. No interval for a user with fewer than {MIN_UNITS} turns." + few_users,
    ]
    if not {"distinct-1", "distinct-2", "length_ratio"}.isdisjoint(table.shown):
        lines.append(
            f"distinct-n and length ratio count {table.unit}s over all candidates. distinct-n falls with more replies, "
            "is no sum over turns, and has no interval; nor have counts of users, nor what is said of a run."
        )
    if table.mauve and MAUVE in table.shown:
        lines.append(
            f"MAUVE: first candidates against real replies, {len(predictions[reference])} a side, features of "
            f"{encoder.name}; from {MIN_TEXTS} on, comparable only between tables of as many replies, no interval."
        )
    if len(predictions) > 1 and len(users) < MIN_UNITS:
        lines.insert(2, "Bold is the best system; nothing is tested.")
    elif len(predictions) > 1:
        lines.insert(
            2,
            "Bold is the best system, = one that is not significantly worse (Wilcoxon's signed rank test of users' own "
            f"figures against the best, two-sided, Holm over all tests of the table, alpha {ALPHA}). Tested are "
            "perplexity (over the same label tokens), similarity, chrF, sacreBLEU, ROUGE-L and, of the persons, all of "
            "which more is better."
            + (f" With {len(users)} users no difference can be significant." if len(users) == MIN_UNITS else ""),
        )
    if table.prepared and not set(PERSON_FIGURES).isdisjoint(table.shown):
        several = any(len(p.candidates) > 1 for p in predictions[reference])
        best = "best of n: of a turn's candidates. " if several else ""
        lines.append(
            f"The table with the persons, means over users. {best}coverage: share of the user's real replies that some "
            f"candidate comes near to (cosine from {COVERED_FROM}). "
            "recognised, in first 5, MRR: by a classifier of the users' training turns, of about ten turns "
            "together; real replies are its ceiling. copied: share of 5-grams, and of whole replies, that stand in "
            "the user's training turns."
        )
        others = [name for name, one in predictions.items() if not as_many_candidates(predictions[reference], one)]
        if others:
            lines.append(
                f"{', '.join(others)}: other numbers of candidates than {reference}, so no best of n and no coverage."
            )
    if table.paper and "paper_similarity" in table.shown:
        lines.append(
            "sim in the paper (Otsuka et al. 2024): of 222M parameters, Japanese, other people and an encoder that "
            "is not stated; it does not compare. It is the best that is reported, of which prompt and corpus is not "
            "stated either: the row in which it stands is our choice."
        )
    for (name, records), comparable in zip(predictions.items(), same_tokens(users), strict=True):
        has_likelihoods = records[0].nll is not None
        tokens = f"{sum(p.tokens or 0 for p in records):,} label tokens" if has_likelihoods else "no likelihoods"
        facts = [tokens, *card_facts(cards[name])]
        if has_likelihoods and not comparable:
            facts.append(f"not the label tokens of {reference}, so no perplexity ratio")
        lines.append(f"{name}: {'; '.join(facts)}.")
    lines += [f"{name} failed: {reason}" for name, reason in failed.items()]
    return lines
