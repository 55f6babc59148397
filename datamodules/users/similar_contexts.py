"""Which contexts are like this one: cosine of TF-IDF over character n-grams, so that any language will do. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NGRAMS = (1, 4)
"""Shortest and longest, in characters."""
AT_ONCE = 1024
"""Contexts that are compared with all others in one product, so that memory is bounded for somebody who wrote a lot."""


class SimilarContexts:
    """An index of some contexts, for example of one user's training turns."""

    def __init__(self, contexts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True, dtype=np.float32)
        self.vectors = self.vectorizer.fit_transform(contexts)  # (contexts, n-grams), rows of length 1

    def most_similar(
        self,
        contexts: Sequence[str] | None,
        k: int,
        groups: np.ndarray | None = None,
        searched_groups: np.ndarray | None = None,
    ) -> list[list[int]]:
        """For each of these contexts the indices of the `k` most similar ones, or of as many as there are.

        The most similar is first; of equal ones the earlier.

        Args:
            contexts: what is looked for; None looks for each context that is searched.
            k: how many are wanted.
            groups: what each context belongs to, for example its dialogue; None excludes nothing.
            searched_groups: the same of the contexts that are searched; those of the same group are excluded.
        """
        vectors = self.vectors if contexts is None else self.vectorizer.transform(contexts)
        matches = []
        for start in range(0, vectors.shape[0], AT_ONCE):
            part = slice(start, start + AT_ONCE)
            similarity = (vectors[part] @ self.vectors.T).toarray()  # (part, searched)
            if groups is not None:
                similarity[groups[part, None] == searched_groups] = -1  # below every cosine of such vectors
            order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
            matches += [indices[row[indices] >= 0].tolist() for row, indices in zip(similarity, order, strict=True)]
        return matches


def as_text(context: Sequence[tuple[str, str]]) -> str:
    """A context as it is compared with others: its turns, whoever wrote them."""
    return "\n".join(text for _, text in context)
