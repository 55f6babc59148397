"""Scores that look at the generated text alone or next to its reference, without a model.

In: lists of strings. Out: one number per corpus. The unit of text is always an explicit argument:
"word" splits at white space and keeps case and punctuation as they are; "character" takes every character that is
not white space, for Japanese and other scripts without spaces. The paper speaks of diversity; its measure and
tokenisation are not stated in the paper.
"""

from collections.abc import Sequence
from typing import Literal

Unit = Literal["word", "character"]


def split(text: str, unit: Unit) -> list[str]:
    """Splits text at white space into words, or into its characters without white space.

    Raises:
        ValueError: If `unit` is neither "word" nor "character".
    """
    if unit == "word":
        return text.split()
    if unit == "character":
        return [character for character in text if not character.isspace()]
    raise ValueError(f"unit must be 'word' or 'character', got {unit!r}")


def distinct(replies: Sequence[str], n: int, unit: Unit) -> float:
    """Distinct-n: unique n-grams / n-grams, counted over the whole corpus of replies (Li et al. 2016, NAACL).

    N-grams do not cross from one reply into the next. The figure falls as a corpus grows, so it compares only
    between corpora of about the same number of replies.

    Args:
        replies: The generated replies.
        n: Length of the n-gram, in units.
        unit: "word" or "character".

    Returns:
        A share between 0 and 1; 0 if no reply is as long as n units.
    """
    ngrams = []
    for reply in replies:
        units = split(reply, unit)
        ngrams.extend(tuple(units[i : i + n]) for i in range(len(units) - n + 1))
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def length_ratio(replies: Sequence[str], references: Sequence[str], unit: Unit) -> float:
    """Sum of generated lengths / sum of reference lengths; 1 means as long-winded as the user.

    Raises:
        ValueError: If the lists differ in length or the references contain no text at all.
    """
    _check_lengths(replies, references)
    reference_length = sum(len(split(reference, unit)) for reference in references)
    if reference_length == 0:
        raise ValueError("length ratio: the references contain no text")
    return sum(len(split(reply, unit)) for reply in replies) / reference_length


def chrf(replies: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF2 in 0..100: F-score (beta 2) of character 1- to 6-grams without white space (Popovic 2015).

    Computed by sacrebleu with its defaults; needs no tokenizer, so it is fit for Japanese.

    Raises:
        ValueError: If the lists differ in length.
    """
    from sacrebleu.metrics import CHRF

    _check_lengths(replies, references)
    return float(CHRF().corpus_score(list(replies), [list(references)]).score)


def corpus_figures(replies: Sequence[str], references: Sequence[str], unit: Unit) -> dict[str, float]:
    """All scores of this module by name, for replies with their references one for one."""
    return {
        "distinct-1": distinct(replies, 1, unit),
        "distinct-2": distinct(replies, 2, unit),
        "length_ratio": length_ratio(replies, references, unit),
        "chrF": chrf(replies, references),
    }


def _check_lengths(replies: Sequence[str], references: Sequence[str]) -> None:
    if len(replies) != len(references):
        raise ValueError(f"got {len(replies)} replies for {len(references)} references, expected one for one")
