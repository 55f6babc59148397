"""Evidence: counts equal those of a dictionary, n-grams are exact, and who asks a question discloses nothing."""

import random
import re
import sys
from collections import Counter

import numpy as np
import pytest

from datamodules.corpora import Post
from datamodules.evidence.counts import (
    Chunk,
    Counts,
    Words,
    choose,
    gram_counts,
    gram_key,
    gram_text,
    named,
    said,
    segmenter,
    used,
)
from datamodules.evidence.language_file import load_language
from datamodules.evidence.pattern_search import Lines, occurrences

ENGLISH = """segmenter: words
attributes:
  gender:
    written: gender
    values: {female: a woman, male: a man}
    patterns:
      states: {female: "i'm a woman", male: "i'm a man"}
      spouse: {female: 'my\\s+husband', male: 'my\\s+wife'}
      confirms: {female: {asked: 'are you a woman', said: '^yes'}, male: {asked: 'are you a man', said: '^yes'}}
  home:
    written: lives in
    values: places.yaml
    places:
      lives: 'i live in PLACE'
      answers: {asked: 'where', said: '^PLACE'}
forms: {laugh: '(?:ha){2,}', face: '[(][^()a-z]{1,4}[)]', mark: '!$'}
"""
PLACES = "Osaka: [Osaka, 大阪]\nKyoto: [kyoto]\nIstanbul: [istanbul]\nGiessen: [Gießen]\n"


@pytest.fixture
def english(tmp_path):
    """An invented language with every kind of pattern."""
    (tmp_path / "places.yaml").write_text(PLACES, encoding="utf-8")
    (tmp_path / "english.yaml").write_text(ENGLISH, encoding="utf-8")
    return load_language(tmp_path / "english.yaml")


def chunk(*texts, answered=None):
    return Chunk("ada", tuple(Post("ada", text) for text in texts), answered or ("",) * len(texts))


def entries(counts):
    return list(zip(counts.chunk.tolist(), counts.item.tolist(), counts.count.tolist(), strict=True))


def array(*numbers):
    return np.array(numbers, dtype=np.int64)


# ---- counts


def test_equal_pairs_are_counted_and_sorted():
    counts = Counts.of(array(1, 0, 1, 0, 1), array(7, 9, 7, 2, 3))
    assert entries(counts) == [(0, 2, 1), (0, 9, 1), (1, 3, 1), (1, 7, 2)]
    assert entries(Counts.of(array(), array())) == []


def test_items_within_a_list_become_their_places_in_it():
    counts = Counts(array(0, 0, 1, 1), array(2, 9, 3, 7), array(1, 4, 1, 2))
    assert entries(counts.within(array(3, 5, 9))) == [(0, 2, 4), (1, 0, 1)]
    assert entries(counts.within(array())) == []
    assert entries(counts.within(array(1, 10))) == []


# ---- n-grams


def naive_grams(chunks, sizes):
    texts = [(place, post.text.lower()) for place, one in enumerate(chunks) for post in one.posts]
    return Counter(
        (place, text[start : start + size])
        for place, text in texts
        for size in sizes
        for start in range(len(text) - size + 1)
    )


@pytest.mark.parametrize("sizes", [(1,), (2, 3), (1, 2, 3)])
def test_grams_are_those_of_a_naive_count(sizes):
    alphabet = "aAbẞİ1 あ漢ー゛?😀👍🏽𠮷𩸽\u0301\U0010ffff"
    rng = random.Random(3)
    chunks = [
        chunk(*("".join(rng.choices(alphabet, k=rng.randint(0, 9))) for _ in range(rng.randint(0, 6))))
        for _ in range(40)
    ]
    counts = gram_counts(chunks, sizes)
    found = {(place, gram_text(key)): count for place, key, count in entries(counts)}
    assert found == naive_grams(chunks, sizes)
    assert entries(counts) == sorted(entries(counts))


def test_grams_by_hand():
    counts = gram_counts([chunk("Aba", "猫"), chunk(), chunk("😀猫", "ab")], [2])
    found = [(place, gram_text(key), count) for place, key, count in entries(counts)]
    assert found == [(0, "ab", 1), (0, "ba", 1), (2, "ab", 1), (2, "😀猫", 1)]  # nothing crosses posts


@pytest.mark.parametrize("chunks", [[], [chunk()], [chunk("", "")], [chunk("a")]])
def test_there_may_be_no_grams(chunks):
    assert entries(gram_counts(chunks, [3])) == []
    assert entries(gram_counts(chunks, [])) == []


def test_four_characters_are_too_many():
    with pytest.raises(ValueError, match="1 to 3 characters, got 4"):
        gram_counts([chunk("hello")], [2, 4])


@pytest.mark.parametrize("text", ["a", "ab", "猫が好", "😀👍🏽", "\U0010ffff" * 3, "  ", ""])
def test_a_gram_comes_back_from_its_number(text):
    assert gram_text(gram_key(text)) == text
    assert 0 <= gram_key(text) < 2**63


# ---- the choice of items


def test_each_learner_chooses_from_its_own_users():
    # Chunks 0 and 1 are of user 0, chunk 2 of user 1, chunk 3 of user 2, chunks 4 and 5 of user 3.
    user = array(0, 0, 1, 2, 3, 3)
    have = {10: [0, 1, 2, 3], 20: [3, 4], 30: [0, 2], 40: [4, 5]}
    counts = Counts.of(
        array(*(chunk for chunks in have.values() for chunk in chunks)),
        array(*(item for item, chunks in have.items() for _ in chunks)),
    )
    learners = np.array([[True, True, False, False], [False, False, True, True]])
    # Users of the first learner who have 10, 20, 30 and 40: 2, 0, 2, 0; of the second one: 1, 2, 0, 1.
    chosen = choose(counts, user, learners, min_users=2, max_items=9)
    assert chosen.items.tolist() == [10, 20, 30]
    assert chosen.allowed.tolist() == [[True, False, True], [False, True, False]]

    chosen = choose(counts, user, learners, min_users=1, max_items=1)  # where it is a draw, the smaller number
    assert chosen.items.tolist() == [10, 20]
    assert chosen.allowed.tolist() == [[True, False], [False, True]]

    for few, least in ((counts, 3), (Counts.of(array(), array()), 1)):
        nothing = choose(few, user, learners, min_users=least, max_items=9)
        assert nothing.items.tolist() == []
        assert nothing.allowed.shape == (2, 0)


# ---- words


def test_words_are_lower_case_letters_and_apostrophes():
    segment = segmenter("words")
    found = segment("Don't STOP, don’t! at 5 o'clock 'quoted' x_y été")
    assert found == ["don't", "stop", "don’t", "at", "o'clock", "quoted", "x", "y", "été"]
    assert segment("42 ... 😀") == []


def test_words_get_numbers_only_while_they_grow():
    words = Words("words")
    counts = words.counts([chunk("tea tea", "Milk"), chunk(), chunk("coffee TEA")], grow=True)
    assert words.number == {"tea": 0, "milk": 1, "coffee": 2}
    assert entries(counts) == [(0, 0, 2), (0, 1, 1), (2, 0, 1), (2, 2, 1)]
    assert entries(words.counts([chunk("coffee with milk", "milk")], grow=False)) == [(0, 1, 2), (0, 2, 1)]
    assert "with" not in words.number
    assert entries(words.counts([], grow=True)) == []


def test_japanese_words():
    pytest.importorskip("fugashi")
    pytest.importorskip("unidic_lite")
    words = Words("unidic")
    assert words.segment("猫が好きです。") == ["猫", "が", "好き", "です", "。"]
    assert words.segment("") == []
    assert entries(words.counts([chunk("猫と猫")], grow=True)) == [(0, 0, 2), (0, 1, 1)]


def test_without_fugashi_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "fugashi", None)
    with pytest.raises(
        ValueError, match=r"fugashi and unidic-lite; install them with: pip install -e '\.\[profiles\]'"
    ):
        Words("unidic")


# ---- patterns, places, forms


def test_patterns_are_counted_by_value(english):
    one = chunk("I'm a man", "my wife says i'm a man. my wife!", "I'm a woman", "tea")
    assert said(english.attributes["gender"], one) == {
        ("states", "male"): 2,
        ("states", "female"): 1,
        ("spouse", "male"): 2,
    }
    assert said(english.attributes["gender"], chunk("tea")) == said(english.attributes["gender"], chunk()) == {}


@pytest.mark.parametrize("end", ["?", "？", "? ", "でしょうか", "ですか。", "ますか"])
def test_questions_disclose_nothing(english, end):
    assert said(english.attributes["gender"], chunk(f"i'm a man{end}", f"i'm a man {end}")) == {}
    assert named(english.attributes["home"], chunk(f"i live in osaka{end}")) == {}
    assert said(english.attributes["gender"], chunk(f"really{end} i'm a man")) == {("states", "male"): 1}


def test_an_answer_needs_its_question(english):
    assert said(english.attributes["gender"], chunk("yes", answered=("Are you a man?",))) == {("confirms", "male"): 1}
    assert said(english.attributes["gender"], chunk("yes", answered=("are you well?",))) == {}
    assert said(english.attributes["gender"], chunk("yes")) == {}
    # The question is that before the same post.
    assert said(english.attributes["gender"], chunk("no", "yes", answered=("are you a man?", "tea?"))) == {}
    # A question instead of an answer does not shift the others.
    mixed = chunk("why?", "yes", "yes", answered=("are you a man?", "are you a woman?", "are you a woman?"))
    assert said(english.attributes["gender"], mixed) == {("confirms", "female"): 2}


def test_places_are_known_in_any_case_and_by_any_name(english):
    one = chunk("I live in OSAKA", "i live in 大阪", "i live in Kyoto", "osaka")
    assert named(english.attributes["home"], one) == {("lives", "Osaka"): 2, ("lives", "Kyoto"): 1}
    answers = chunk("kyoto", "i guess kyoto", "kyoto", answered=("where?", "where?", ""))
    assert named(english.attributes["home"], answers) == {("answers", "Kyoto"): 1}


def test_forms_are_counted_in_questions_too(english):
    counts = used(english, chunk("haha hahaha", "haha?", "wow!", "no! (^^)"))
    assert counts == {"laugh": 3, "mark": 1, "face": 1}
    assert used(english, chunk()) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [("i live in İstanbul", "Istanbul"), ("i live in ıstanbul", "Istanbul"), ("i live in Gießen", "Giessen")],
)
def test_places_with_letters_of_several_forms(english, text, value):
    assert named(english.attributes["home"], chunk(text)) == {("lives", value): 1}


def test_patterns_do_not_cross_posts(english):
    one = chunk("not my", "husband", "w(", "1)")
    assert (said(english.attributes["gender"], one), used(english, one)) == ({}, {})
    more = chunk("not my", "husband! my", "husband", "my husband")  # what is within posts counts nevertheless
    assert said(english.attributes["gender"], more) == {("spouse", "female"): 1}


@pytest.mark.parametrize("pattern", [r"tea(?!\s*milk)", r"(?<!\s)tea", r"\Atea"])
def test_patterns_do_not_look_into_other_posts(pattern):
    assert len(occurrences(re.compile(pattern), Lines(["coffee", "tea", "milk"]))) == 1


LOOKING = [
    r"a", r"a(?!b)", r"(?<!b)a", r"(?<![bc])a(?=b|c)", r"(?<!a\s)b", r"(?<!^)a", r"a(?=[^b])", r"(?:^|[^b])a",
    r"a?$", r"^", r"", r"(?<!b)(?<!ca)[ab]+", r"(?:a(?!b)|ab)c", r"(?>a(?!b)|ab)c", r"(?:a(?!b))++b?", r"[^a]b",
    r"\Ab|c\Z", r"b\b", '(?!\n)a', r"(?=a|)b", r"(\(?!a)", r"[b(?!a)c]a", r"(?<!b)?a", r"(?<=\n)a", r"a(?!.b)",
    r"a(?!b*c)", r"(?i:A)(?!B)",
]  # fmt: skip


@pytest.mark.parametrize("pattern", LOOKING)
def test_together_as_much_is_found_as_in_each_alone(pattern):
    rng = random.Random(5)
    compiled = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for _ in range(300):
        texts = ["".join(rng.choices("abcB \n(!)"[: rng.choice((4, 5, 9))], k=rng.randint(0, 5))) for _ in range(6)]
        alone = [match[0] for text in texts for match in compiled.finditer(text)]
        assert [match[0] for match in occurrences(compiled, Lines(texts))] == alone


def test_a_chunk_has_what_its_posts_have(english):
    """All kinds of patterns, against the simple way: one post after the other, one pattern after the other."""
    rng = random.Random(7)
    parts = ["I'm a woman", "i'm a man", "my husband", "my", "wife", "yes", "where", "i live in ", "OSAKA", "大阪"]
    parts += ["kyoto", "are you a man", "haha", "(^^)", "!", "?", "ですか。", " ", " ", "istanbul", "tea"]
    for _ in range(200):
        texts = ["".join(rng.choices(parts, k=rng.randint(0, 4))) for _ in range(8)]
        asked = tuple("".join(rng.choices(parts, k=2)) for _ in texts)
        together = chunk(*texts, answered=asked)
        alone = [chunk(text, answered=(turn,)) for text, turn in zip(texts, asked, strict=True)]
        states = [re.search(r"[?？]\s*$|(?:です|ます|でしょう)か[。.]?\s*$", text) is None for text in texts]
        assert [post.text for post, _ in together.statements] == [
            t for t, is_one in zip(texts, states, strict=True) if is_one
        ]
        naive = Counter()
        for text, turn, is_one in zip(texts, asked, states, strict=True):
            for frame, pattern in english.attributes["home"].places.items():
                if is_one and (pattern.asked is None or pattern.asked.search(turn)):
                    found = (match[1].lower() for match in pattern.said.finditer(text))
                    naive.update((frame, english.attributes["home"].value_of_place[name]) for name in found)
        assert named(english.attributes["home"], together) == naive
        assert said(english.attributes["gender"], together) == sum(
            (said(english.attributes["gender"], one) for one in alone), Counter()
        )
        assert used(english, together) == sum((used(english, one) for one in alone), Counter())
