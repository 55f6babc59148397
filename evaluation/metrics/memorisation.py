"""Does a model repeat its user's training turns? Shares of text that occur there word for word.

People repeat themselves too, above all in short replies: a share says something only next to that of the user's real
held-out replies, which the same functions give. The paper has no such score.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.metrics.text_metrics import Unit, ngrams, split


def copied(
    replies: Mapping[str, Sequence[str]], training: Mapping[str, Sequence[str]], unit: Unit, n: int = 5
) -> dict[str, np.ndarray]:
    """Counts what every reply shares with its own user's training turns, in columns that add up.

    N-grams do not cross from one turn into the next. A whole reply is copied if a training turn has the same units:
    white space does not matter, case and punctuation do. An empty reply is a copy of nothing.

    Returns:
        user → `(replies, 4)`: n-grams that occur in training, n-grams, 1 if the whole reply does, 1.

    Raises:
        ValueError: If there are no training turns of a user.
    """
    if unknown := sorted(user for user in replies if not training.get(user)):
        raise ValueError(f"there are no training turns of users {unknown}; give the corpus they were trained on")
    counts = {}
    for user, texts in replies.items():
        seen = {ngram for turn in training[user] for ngram in ngrams(turn, n, unit)}
        turns = {tuple(split(turn, unit)) for turn in training[user]} - {()}
        rows = [
            (sum(ngram in seen for ngram in own), len(own), tuple(split(text, unit)) in turns, 1)
            for text, own in ((text, ngrams(text, n, unit)) for text in texts)
        ]
        counts[user] = np.array(rows, dtype=np.float64).reshape(len(texts), 4)
    return counts
