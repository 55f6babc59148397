"""What a similarity is worth: the same cosine for replies that nobody generated, and how much of a user is reached.

Every item's reference is compared with several replies; mean-of-n and best-of-n of their cosines are given, users
sorted by name and a row for each of their items by pair id, so that the caller can draw users and items:

    achieved   with the candidates that were generated for it
    floor      with real replies of *other* users to the same type of context: right in kind, of the wrong person
    ceiling    with *other* real replies of the same user to the same type of context: the right person, another moment

A similarity at the floor says nothing of the person. The ceiling is no bound: who also guesses what the reply is about
passes it. Best-of-n grows with n, so a best-of-n compares with a floor and a ceiling of as many draws.

The type of a context is (does the partner's last turn hold a question mark, is that turn longer than the median over
all items): four types. Japanese questions without a mark count as none. Floor and ceiling depend on the references
alone, so they are the same for all systems. The paper gives neither of them.
"""

from collections.abc import Sequence

import numpy as np

from artefacts.predictions import Prediction
from evaluation.metrics.similarity import TextEncoder
from evaluation.results.predictions import by_user


def achieved(predictions: Sequence[Prediction], encoder: TextEncoder) -> dict[str, np.ndarray]:
    """Similarity of every reference to its candidates: user → `(items, 2)`, mean-of-n and best-of-n."""
    return _compared(predictions, [p.candidates for p in _in_order(predictions)], encoder)


def floor(predictions: Sequence[Prediction], encoder: TextEncoder, num_draws: int, seed: int) -> dict[str, np.ndarray]:
    """Similarity of every reference to random real replies of other users to the same type of context.

    `num_draws` replies are drawn for each item, without replacement; all where there are fewer. Where no other user has
    a context of the type, other users' replies to any context are drawn from.

    Returns:
        user → `(items, 2)`, mean and best of the draws.

    Raises:
        ValueError: If there is one user only, or `num_draws` is below 1.
    """
    users = {p.user for p in predictions}
    if len(users) < 2:
        raise ValueError(f"the floor needs replies of other users, and the predictions are of {sorted(users)} alone")
    return _compared(predictions, _drawn(predictions, own=False, num_draws=num_draws, seed=seed), encoder)


def ceiling(
    predictions: Sequence[Prediction], encoder: TextEncoder, num_draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Similarity to *other* real replies of the same user, as for `floor`; not a number for a user's only item."""
    return _compared(predictions, _drawn(predictions, own=True, num_draws=num_draws, seed=seed), encoder)


def covered(predictions: Sequence[Prediction], encoder: TextEncoder, threshold: float) -> dict[str, np.ndarray]:
    """Coverage: which of a user's real replies some candidate, for any context of that user, comes near to.

    It grows with the number of candidates, so it compares between systems with equally many.

    Args:
        predictions: Of one system.
        encoder: The sentence encoder.
        threshold: Cosine from which a reply counts as reached, above -1 and at most 1.

    Returns:
        user → `(items,)`, 1 or 0; the mean is the share.
    """
    if not -1 < threshold <= 1:
        raise ValueError(f"threshold is a cosine above -1 and at most 1, got {threshold}")
    reached = {}
    for user, items in by_user(predictions).items():
        texts = [p.reference for p in items] + [text for p in items for text in p.candidates]
        vectors = encoder.vectors(texts)
        best = (vectors[: len(items)] @ vectors[len(items) :].T).max(axis=1)
        reached[user] = (best.round(9) >= threshold).astype(np.float64)  # rounded: equal texts have a cosine of 1
    return reached


def _in_order(predictions: Sequence[Prediction]) -> list[Prediction]:
    return [p for items in by_user(predictions).values() for p in items]


def _compared(
    predictions: Sequence[Prediction], replies: Sequence[Sequence[str]], encoder: TextEncoder
) -> dict[str, np.ndarray]:
    """Mean and best cosine of every reference with its replies, one list for each item in order."""
    items = _in_order(predictions)
    references = [p.reference for p, texts in zip(items, replies, strict=True) for _ in texts]
    cosines = encoder.cosines([text for texts in replies for text in texts], references)
    rows: dict[str, list[tuple[float, float]]] = {}
    start = 0
    for p, texts in zip(items, replies, strict=True):
        own = cosines[start : (start := start + len(texts))]
        rows.setdefault(p.user, []).append((own.mean(), own.max()) if len(own) else (np.nan, np.nan))
    return {user: np.array(values) for user, values in rows.items()}


def _drawn(predictions: Sequence[Prediction], own: bool, num_draws: int, seed: int) -> list[list[str]]:
    """For every item references of other items, of the same user or of others, of its type where there are such."""
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    items = _in_order(predictions)
    users = np.array([p.user for p in items])
    turns = [next((text for role, text in reversed(p.context) if role == "partner"), "") for p in items]
    asks = np.array(["?" in turn or "\uff1f" in turn for turn in turns])  # the second is the full-width mark
    lengths = np.array([len(turn) for turn in turns])
    types = 2 * asks + (lengths > np.median(lengths))  # (items,)
    random = np.random.default_rng(seed)
    drawn = []
    for number in range(len(items)):
        fitting = (users == users[number]) == own
        fitting[number] = False
        alike = fitting & (types == types[number])
        pool = np.flatnonzero(alike if alike.any() else fitting)
        drawn.append([items[other].reference for other in random.permutation(pool)[:num_draws]])
    return drawn
