"""Ids of people: one way to write each, and which of them a reader takes for the same."""

import unicodedata

import pytest

from artefacts.people import clean_id, look_of


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("  ann ", "ann"),
        (unicodedata.normalize("NFD", "José"), "José"),
        ("a\u200eb\u200b", "ab"),
        ("Ann\nLee\t ", "Ann Lee"),
        ("a\u2028b", "a b"),
        ("\u00a0x\u3000", "x"),
        ("\u200b", ""),
        ("👩\u200d👧", "👩\u200d👧"),
    ],
)
def test_clean_id(written, cleaned):
    assert clean_id(written) == cleaned == clean_id(cleaned)


@pytest.mark.parametrize("alike", ["ANN LEE", "annlee", "ａｎｎ lee", "Ann\u200bLee "])
def test_ids_that_look_alike(alike):
    assert look_of(alike) == look_of("Ann Lee") != look_of("Ann Leo")
