"""Similar contexts against TF-IDF written out in a few lines."""

import math
from collections import Counter

import numpy as np
import pytest

from datamodules.users.similar_contexts import AT_ONCE, SimilarContexts

CONTEXTS = ["do you like tea?", "I saw a comet", "what a comet!", "猫が好きです", "犬が好きですか", "Tea or coffee?"]


def ngrams(text):
    text = text.lower()
    return Counter(text[start : start + n] for n in (1, 2, 3, 4) for start in range(len(text) - n + 1))


def cosines(query):
    """tf = 1 + ln count, idf = 1 + ln((1 + documents) / (1 + documents with it)), n-grams nobody used left out."""
    documents = [ngrams(text) for text in CONTEXTS]
    frequency = Counter(gram for document in documents for gram in document)
    idf = {gram: 1 + math.log((1 + len(documents)) / (1 + count)) for gram, count in frequency.items()}

    def vector(counts):
        weights = {gram: (1 + math.log(count)) * idf[gram] for gram, count in counts.items() if gram in idf}
        length = math.sqrt(sum(weight**2 for weight in weights.values()))
        return {gram: weight / length for gram, weight in weights.items()}

    asked = vector(ngrams(query))
    return [sum(asked.get(gram, 0) * weight for gram, weight in vector(document).items()) for document in documents]


@pytest.mark.parametrize("query", ["tea?", "the comet was bright", "猫は好き?", "a COFFEE"])
def test_the_order_is_that_of_the_cosines(query):
    expected = cosines(query)
    order = sorted(range(len(CONTEXTS)), key=lambda index: -expected[index])
    assert SimilarContexts(CONTEXTS).most_similar([query], 6) == [order]
    assert SimilarContexts(CONTEXTS).most_similar([query], 2) == [order[:2]]


def test_equal_ones_keep_their_order_and_there_are_no_more_than_there_are():
    assert SimilarContexts(["ab", "cd", "ab"]).most_similar(["ab"], 9) == [[0, 2, 1]]
    assert SimilarContexts(["ab", "cd"]).most_similar(["xyz"], 1) == [[0]]


def test_nothing_of_the_same_group_is_found():
    index = SimilarContexts(["ab", "ab", "abc", "xy"])
    groups = np.array(["one", "two", "one", "one"], dtype=object)
    asked = np.array(["one", "two", "three"], dtype=object)
    assert index.most_similar(["ab"] * 3, 2, asked, groups) == [[1], [0, 2], [0, 1]]
    assert SimilarContexts(["ab", "cd"]).most_similar(["ab"], 2, asked[:1], asked[[0, 0]]) == [[]]


def test_many_are_looked_for_as_one_by_one():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcd "), 6)) for _ in range(AT_ONCE + 300)]
    groups = np.array([str(number % 7) for number in range(len(texts))], dtype=object)
    index = SimilarContexts(texts)
    together = index.most_similar(texts, 3, groups, groups)
    assert len(together) == len(texts)
    assert index.most_similar(None, 3, groups, groups) == together
    for place in (0, 1, AT_ONCE - 1, AT_ONCE, len(texts) - 1):
        assert index.most_similar([texts[place]], 3, groups[[place]], groups) == [together[place]]
