"""What a run's weights do beyond the replies: how much they memorise, what they do to other people's dialogues, and
whether a user's own adapter is the right one for that user; from the sums that `lightning test` leaves.

    gap          nats per token of held-out turns - nats per token of the user's own training turns, mean over users
    general      exp(sum nll / sum tokens) over other people's held-out pairs, the same pairs under every user's weights
    ratio        general / general of the reference system
    others/own   perplexity of test turns under other users' adapters / under the user's own
    own best     users for whom no other user's adapter is better than their own (needs the whole swap matrix)
    win rate     share of users whose own adapter beats the mean of the others' in nats per token; p by Wilcoxon

Intervals are 95 % BCa bootstrap over users alone: of a user there are sums, not turns.
"""

from collections.abc import Mapping

import numpy as np

from artefacts.user_sums import Losses
from evaluation.results.test_sums import TestSums
from evaluation.scores.figure import MACRO, MICRO, Figure, Score
from evaluation.statistics.bootstrap import Bootstrap, Statistic
from evaluation.statistics.significance import signed_rank, win_rate

LOSS_GAP = Figure(
    "loss_gap",
    "gap",
    (MACRO,),
    "+.3f",
    description="gap: nats per token of held-out minus own training turns, mean over users; a system not tuned to "
    "users shows what the turns alone differ by.",
)
GENERAL = Figure(
    "general_perplexity",
    "general ppl",
    (MICRO,),
    ".2f",
    description="general: perplexity of other people's held-out pairs, under each user's weights; % of the "
    "reference's.",
)
GENERAL_RATIO = Figure("general_ratio", "% of {reference}", (MICRO,), ".1f", scale=100.0)
OTHERS_TO_OWN = Figure(
    "others_to_own",
    "others/own %",
    (MICRO,),
    ".1f",
    scale=100.0,
    description="others/own: perplexity of test turns under other users' adapters by that under the own.",
)
OWN_BEST = Figure(
    "own_adapter_best",
    "own best",
    (MACRO,),
    ".0f",
    counts=True,
    description="own best: users whose own adapter is the best of all.",
)
OWN_WINS = Figure(
    "own_adapter_wins",
    "own better",
    (MACRO,),
    ".0%",
    description="own better: users whose own adapter beats the mean of the others' (ties half; Wilcoxon's p, "
    "two-sided, by itself: not among the tests that Holm corrects).",
)
OWN_P = Figure("own_adapter_p", "p", (MACRO,), ".2g")
WEIGHT_FIGURES = (LOSS_GAP, GENERAL, GENERAL_RATIO, OTHERS_TO_OWN, OWN_BEST, OWN_WINS, OWN_P)


def samples_of(tests: Mapping[str, TestSums]) -> str:
    """How many training turns and general pairs the figures are of, as a sentence; empty where that is not known."""
    sizes = {
        "training turns of a user at most": {test.num_train_turns for test in tests.values()} - {0},
        "general pairs, taken as they are": {test.num_general_pairs for test in tests.values()} - {0},
    }
    samples = [f"{' or '.join(map(str, sorted(numbers)))} {what}" for what, numbers in sizes.items() if numbers]
    return f"Of {', '.join(samples)}." if samples else ""


def weight_scores(tests: Mapping[str, TestSums], reference: str, bootstrap: Bootstrap) -> list[Score]:
    """All figures that the tests allow, a `Score` each; of the reference system no ratio to itself."""
    scores = []
    for name, test in tests.items():
        for figure, kinds, statistic in _wanted(test, None if name == reference else tests.get(reference)):
            users = [user for user in kinds[0] if all(user in kind for kind in kinds)]
            items = [np.array([[x for kind in kinds for x in kind[user]]], dtype=np.float64) for user in users]
            if items:
                scores.append(_score(name, figure, items, statistic, bootstrap))
        if "other" in test.sums:
            scores += _wins(name, test.sums["own"], test.sums["other"])
        if test.swaps:
            best = sum(min(row.values()) == row[user] for user, row in test.swaps.items())
            scores.append(Score(name, MACRO, OWN_BEST.name, float(best), None, None, len(test.swaps)))
    return scores


def _wanted(test: TestSums, reference: TestSums | None) -> list[tuple[Figure, list[Losses], Statistic]]:
    """The figures that are made from sums, with the kinds of sums that each needs side by side."""
    sums = test.sums
    wanted = []
    if "train" in sums:
        wanted.append((LOSS_GAP, [sums["own"], sums["train"]], _gap))
    if "general" in sums:
        wanted.append((GENERAL, [sums["general"]], _perplexity))
        if reference and "general" in reference.sums and reference.num_general_pairs == test.num_general_pairs:
            wanted.append((GENERAL_RATIO, [sums["general"], reference.sums["general"]], _ratio))
    if "other" in sums:
        wanted.append((OTHERS_TO_OWN, [sums["other"], sums["own"]], _ratio))
    return wanted


def _wins(name: str, own: Losses, other: Losses) -> list[Score]:
    ours, theirs = ([kind[user][0] / kind[user][1] for user in own] for kind in (own, other))
    scores = [Score(name, MACRO, OWN_WINS.name, win_rate(ours, theirs, True), None, None, len(own))]
    p = signed_rank(ours, theirs)
    return scores if p is None else [*scores, Score(name, MACRO, OWN_P.name, p, None, None, len(own))]


def _gap(sums: np.ndarray) -> np.ndarray:  # (..., users, 4)
    return (sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]).mean(axis=-1)[..., None]


def _perplexity(sums: np.ndarray) -> np.ndarray:  # (..., users, 2)
    total = sums.sum(axis=-2)
    return np.exp(total[..., 0] / total[..., 1])[..., None]


def _ratio(sums: np.ndarray) -> np.ndarray:  # (..., users, 4)
    return _perplexity(sums[..., :2]) / _perplexity(sums[..., 2:])


def _score(system: str, figure: Figure, items: list[np.ndarray], statistic: Statistic, bootstrap: Bootstrap) -> Score:
    """A figure and its interval; none where all users have the same sums, which is one model and no sample of them."""
    value = statistic(np.concatenate(items))
    low = high = None
    if any((one != items[0]).any() for one in items):
        low, high = bootstrap.of_users(items, statistic, value, draw_items=False)[:, 0].tolist()
    return Score(system, figure.rows[0], figure.name, float(value[0]), low, high, len(items))
