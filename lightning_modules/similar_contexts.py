"""Which contexts are like this one: cosine of TF-IDF over character n-grams, so that any language will do.

In: contexts as texts. Out: indices of the most similar ones. Not its job: what was replied to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NGRAMS = (1, 4)
"""Shortest and longest, in characters."""


class SimilarContexts:
    """An index of some contexts, for example of one user's training turns.

    Args:
        contexts: what is searched; the index of a text counts in them.
    """

    def __init__(self, contexts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True, dtype=np.float32)
        self.vectors = self.vectorizer.fit_transform(contexts)  # (contexts, n-grams), rows of length 1

    def most_similar(self, context: str, k: int) -> list[int]:
        """Indices of the `k` most similar contexts, the most similar first; of equal ones the earlier first."""
        similarity = (self.vectors @ self.vectorizer.transform([context]).T).toarray().ravel()
        return np.argsort(-similarity, kind="stable")[:k].tolist()


def as_text(context: Sequence[tuple[str, str]]) -> str:
    """A context as it is compared with others: its turns, whoever wrote them."""
    return "\n".join(text for _, text in context)
