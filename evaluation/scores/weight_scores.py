"""What a run's weights do beyond the replies: how much they memorise, what they do to other people's dialogues, and
whether a user's own adapter is the right one for that user.

In: `test_users.csv` and `swaps.csv` as `lightning test` leaves them beside the predictions, with their card. Out:
`Score` records and rows of cells.

    gap          nats per token of held-out turns - nats per token of the user's own training turns, mean over users
    general      exp(sum nll / sum tokens) over other people's held-out pairs, the same pairs under every user's weights
    ratio        general / general of the reference system
    others/own   perplexity of test turns under other users' adapters / under the user's own
    own best     users for whom no other user's adapter is better than their own (needs the whole swap matrix)
    win rate     share of users whose own adapter beats the mean of the others' in nats per token; p by Wilcoxon

Intervals are 95 % BCa bootstrap over users alone: of a user there are sums, not turns.
"""

import csv
import json
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.results.predictions import older_than_weights
from evaluation.scores.user_scores import MACRO, MICRO, Score
from evaluation.statistics.bootstrap import bca, jackknife_users, resample_users
from evaluation.statistics.significance import signed_rank, win_rate

USERS_FILE, CARD_FILE, SWAPS_FILE = "test_users.csv", "test_users.card.json", "swaps.csv"
Sums = Mapping[str, tuple[float, int]]
"""User → nats and label tokens."""
Figure = Callable[[np.ndarray], np.ndarray]
KINDS = ("own", "train", "general", "other")
_CAPTION = (
    "Weights (`lightning test`), intervals over users: gap: nats per token of held-out minus own training turns, mean "
    "over users; a system not tuned to users shows what the turns alone differ by. general: perplexity of other "
    "people's held-out pairs, under each user's weights; % of the reference's. others/own: perplexity of test turns "
    "under other users' adapters by that under the own. own best: users whose own adapter is the best of all. own "
    "better: users whose own adapter beats the mean of the others' (ties half; Wilcoxon's p, two-sided, by itself: not "
    "among the tests that Holm corrects)."
)


@dataclass(frozen=True)
class TestSums:
    """The sums of one run.

    Attributes:
        sums: kind → user → (nats, label tokens); kinds that were not tested are missing.
        swaps: user → adapter's user → (nats, label tokens); None without the matrix.
        samples: how many training turns and general pairs were looked at.
    """

    __test__ = False  # not a test of pytest's

    sums: Mapping[str, Sums]
    swaps: Mapping[str, Sums] | None
    samples: tuple[int, int]


def read_test(run: Path, predicted: Mapping[str, object]) -> TestSums | None:
    """The sums of a run; None where it was not tested.

    Args:
        run: run directory.
        predicted: the card of its predictions.

    Raises:
        ValueError: a file is damaged, or older than the weights, or of another backbone or split than the predictions.
    """
    if not (run / USERS_FILE).is_file():
        return None
    if not (run / CARD_FILE).is_file():
        raise ValueError(f"{run / USERS_FILE} has no {CARD_FILE}: that test was not finished; {_again(run)}")
    card = json.loads((run / CARD_FILE).read_text(encoding="utf-8"))
    for key in ("backbone", "split"):
        if predicted.get(key) and card.get(key) != predicted[key]:
            raise ValueError(
                f"{run / USERS_FILE} is of {key} {card.get(key)}, the predictions beside it are of {predicted[key]}; "
                f"{_again(run)}"
            )
    if older_than_weights(run / USERS_FILE):
        raise ValueError(f"{run / USERS_FILE} is older than the weights in {run}; {_again(run)}")
    sums = _read_users(run / USERS_FILE)
    swaps = _read_swaps(run / SWAPS_FILE) if (run / SWAPS_FILE).is_file() else None
    return TestSums(sums, swaps, (card.get("train_turns", 0), card.get("general_pairs", 0)))


def _again(run: Path) -> str:
    return f"delete {run / 'test.card.json'} and run `lightning test` of that experiment again"


def _read_users(path: Path) -> dict[str, dict[str, tuple[float, int]]]:
    sums: dict[str, dict[str, tuple[float, int]]] = {}
    for number, row in _lines(path):
        for kind in KINDS:
            if f"{kind}_nll" in row:
                value = _pair(path, number, row, f"{kind}_nll", f"{kind}_tokens")
                if value[1]:
                    sums.setdefault(kind, {})[row["user"]] = value
    if "own" not in sums:
        raise ValueError(f"{path}: expected the columns own_nll and own_tokens and at least one user")
    return sums


def _read_swaps(path: Path) -> dict[str, dict[str, tuple[float, int]]]:
    swaps: dict[str, dict[str, tuple[float, int]]] = {}
    for number, row in _lines(path):
        own = swaps.setdefault(row["user"], {})
        if row.get("adapter") in (None, *own):
            raise ValueError(f"{path}, line {number}: the adapter {row.get('adapter')!r} is missing or comes twice")
        own[row["adapter"]] = _pair(path, number, row, "nll", "tokens")
    for user, row in swaps.items():
        if row.keys() < swaps.keys() or user not in row:
            raise ValueError(f"{path}: user {user!r} lacks the adapters of {sorted(swaps.keys() - row.keys())}")
    return swaps


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(enumerate(csv.DictReader(file), start=2))
    for number, row in rows:
        if not row.get("user"):
            raise ValueError(f"{path}, line {number}: there is no user")
    return rows


def _pair(path: Path, number: int, row: Mapping[str, str], nll: str, tokens: str) -> tuple[float, int]:
    try:
        found = float(row[nll]), int(row[tokens])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}, line {number}: expected numbers in {nll} and {tokens}") from None
    if not (math.isfinite(found[0]) and found[0] >= 0 and found[1] >= 0):
        raise ValueError(f"{path}, line {number}: {nll} and {tokens} must be finite and not negative, got {found}")
    return found


def caption_of_weights(tests: Mapping[str, TestSums]) -> str:
    """How the figures are to be read, and how many training turns and general pairs they are of."""
    found = {
        what: sorted({test.samples[place] for test in tests.values()} - {0})
        for place, what in enumerate(("training turns of a user at most", "general pairs, taken as they are"))
    }
    samples = [f"{' or '.join(map(str, numbers))} {what}" for what, numbers in found.items() if numbers]
    return _CAPTION + (f" Of {', '.join(samples)}." if samples else "")


def weight_scores(tests: Mapping[str, TestSums], reference: str, num_resamples: int, seed: int) -> list[Score]:
    """All figures that the tests allow, a `Score` each; of the reference system no ratio to itself."""
    scores = []
    for name, test in tests.items():
        sums, theirs = test.sums, tests.get(reference)
        wanted: list[tuple[str, str, list[Sums], Figure]] = []
        if "train" in sums:
            wanted.append(("loss_gap", MACRO, [sums["own"], sums["train"]], _gap))
        if "general" in sums:
            wanted.append(("general_perplexity", MICRO, [sums["general"]], _perplexity))
            if name != reference and theirs and "general" in theirs.sums and theirs.samples[1] == test.samples[1]:
                wanted.append(("general_ratio", MICRO, [sums["general"], theirs.sums["general"]], _ratio))
        if "other" in sums:
            wanted.append(("others_to_own", MICRO, [sums["other"], sums["own"]], _ratio))
        for metric, row, kinds, figure in wanted:
            users = [user for user in kinds[0] if all(user in kind for kind in kinds)]
            items = [np.array([[x for kind in kinds for x in kind[user]]], dtype=np.float64) for user in users]
            if items:
                scores.append(_score(name, row, metric, items, figure, num_resamples, seed))
        if "other" in sums:
            scores += _wins(name, sums["own"], sums["other"])
        if test.swaps:
            best = sum(min(row.values()) == row[user] for user, row in test.swaps.items())
            scores.append(Score(name, MACRO, "own_adapter_best", float(best), None, None, len(test.swaps)))
    return scores


def _wins(name: str, own: Sums, other: Sums) -> list[Score]:
    ours, theirs = ([kind[user][0] / kind[user][1] for user in own] for kind in (own, other))
    scores = [Score(name, MACRO, "own_adapter_wins", win_rate(ours, theirs, True), None, None, len(own))]
    p = signed_rank(ours, theirs)
    return scores if p is None else [*scores, Score(name, MACRO, "own_adapter_p", p, None, None, len(own))]


def _gap(sums: np.ndarray) -> np.ndarray:  # (..., users, 4)
    return (sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]).mean(axis=-1)[..., None]


def _perplexity(sums: np.ndarray) -> np.ndarray:  # (..., users, 2)
    total = sums.sum(axis=-2)
    return np.exp(total[..., 0] / total[..., 1])[..., None]


def _ratio(sums: np.ndarray) -> np.ndarray:  # (..., users, 4)
    return _perplexity(sums[..., :2]) / _perplexity(sums[..., 2:])


def _score(
    system: str, row: str, metric: str, items: list[np.ndarray], figure: Figure, num_resamples: int, seed: int
) -> Score:
    """A figure and its interval; none where all users have the same sums, which is one model and no sample of them."""
    value = figure(np.concatenate(items))
    low = high = None
    drawn = None
    if any((one != items[0]).any() for one in items):
        drawn = resample_users(items, figure, num_resamples, seed, draw_items=False)
    if drawn is not None:
        low, high = (float(end[0]) for end in bca(drawn, value, jackknife_users(items, figure)))
    return Score(system, row, metric, float(value[0]), low, high, len(items))


WEIGHT_FIGURES = {  # metric → heading, form, factor
    "loss_gap": ("gap", "+.3f", 1.0),
    "general_perplexity": ("general ppl", ".2f", 1.0),
    "general_ratio": ("% of {0}", ".1f", 100.0),
    "others_to_own": ("others/own %", ".1f", 100.0),
    "own_adapter_best": ("own best", ".0f", 1.0),
    "own_adapter_wins": ("own better", ".0%", 1.0),
    "own_adapter_p": ("p", ".2g", 1.0),
}


def weight_rows(scores: Sequence[Score], systems: Sequence[str], shown: Container[str]) -> list[list[str]]:
    """A system a row; empty cells where it was not tested, or the figure has no meaning.

    Args:
        scores: From `weight_scores`.
        systems: The first is the reference.
        shown: Figures that get a column where some system has them.
    """
    found = {(score.system, score.metric): score for score in scores}
    there = {metric for _, metric in found}
    columns = {metric: column for metric, column in WEIGHT_FIGURES.items() if metric in there and metric in shown}
    rows = [["system", *(heading.format(systems[0]) for heading, *_ in columns.values())]]
    for name in systems:
        cells = []
        for metric, (_, form, factor) in columns.items():
            score = found.get((name, metric))
            numbers = [] if score is None else [x for x in (score.value, score.low, score.high) if x is not None]
            value, *ends = [format(number * factor, form) for number in numbers] or [""]
            cell = f"{value} [{', '.join(ends)}]" if ends else value
            cells.append(f"{cell} of {score.n}" if score and metric == "own_adapter_best" else cell)
        rows.append([name, *cells])
    return rows
