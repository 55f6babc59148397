"""Scores that look at the generated text alone or next to its reference, without a model.

In: lists of strings. Out: one number per corpus. Not its job: similarity of meaning, intervals.
The unit of text is always an explicit argument: "word" splits at white space and keeps case and punctuation as they
are; "character" takes every character that is not white space, for Japanese and other scripts without spaces. The
paper speaks of diversity; its measure and tokenisation are not stated in the paper.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU

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


def ngrams(text: str, n: int, unit: Unit) -> list[tuple[str, ...]]:
    """All runs of n units in the text, in order; none if it is shorter."""
    if n < 1:
        raise ValueError(f"n must be at least 1 unit, got {n}")
    units = split(text, unit)
    return [tuple(units[start : start + n]) for start in range(len(units) - n + 1)]


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
    found = [ngram for reply in replies for ngram in ngrams(reply, n, unit)]
    return len(set(found)) / len(found) if found else 0.0


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


def sacrebleu(replies: Sequence[str], references: Sequence[str], unit: Unit) -> float:
    """Corpus BLEU-4 in 0..100 by sacrebleu: geometric mean of clipped 1- to 4-gram precisions x brevity penalty.

    Precisions without a match are smoothed ("exp"), and a corpus with no reply of four units scores 0.

    Args:
        replies: The generated replies.
        references: Their references, one for one.
        unit: "word" tokenises by sacrebleu's 13a, which cuts off punctuation; "character" by its char, for Japanese.

    Raises:
        ValueError: If the lists differ in length.
    """
    _check_lengths(replies, references)
    return float(_bleu(unit).corpus_score(list(replies), [list(references)]).score)


def rouge_l(replies: Sequence[str], references: Sequence[str], unit: Unit) -> float:
    """ROUGE-L in 0..1: mean over pairs of F1 = 2 LCS / (units of the reply + units of the reference) (Lin 2004).

    LCS is the length of the longest common subsequence of units. Nothing is lowercased, stemmed or deleted; the usual
    tokenizer keeps Latin letters and digits only, and scores all Japanese 0.

    Raises:
        ValueError: If the lists differ in length.
    """
    _check_lengths(replies, references)
    pairs = [(split(a, unit), split(b, unit)) for a, b in zip(replies, references, strict=True)]
    return fmean(2 * _common(a, b) / max(1, len(a) + len(b)) for a, b in pairs)


def _common(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence; `row[j]` is that of the units of `left` so far and `right[:j]`."""
    row = [0] * (len(right) + 1)
    for unit in left:
        above, row = row, [0]
        for j, other in enumerate(right):
            row.append(above[j] + 1 if unit == other else max(above[j + 1], row[j]))
    return row[-1]


def self_bleu(candidates: Sequence[Sequence[str]], unit: Unit) -> float | None:
    """Self-BLEU in 0..100 (Zhu et al. 2018): how alike the candidates of one context are; lower is more diverse.

    BLEU of every candidate with the others as its references, mean over candidates, then over contexts. Short
    candidates are judged by the orders they have. An empty candidate scores 0, so look at the length ratio too.

    Args:
        candidates: The candidates of every context; contexts with a single one are left out.
        unit: "word" or "character", tokenised as for `sacrebleu`.

    Returns:
        None where no context has two candidates.
    """
    bleu = _bleu(unit, effective_order=True)
    scores = [
        fmean(bleu.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts))
        for texts in map(list, candidates)
        if len(texts) > 1
    ]
    return fmean(scores) if scores else None


def _bleu(unit: Unit, effective_order: bool = False) -> "BLEU":
    from sacrebleu.metrics import BLEU

    split("", unit)  # refuses other units
    return BLEU(tokenize="char" if unit == "character" else "13a", effective_order=effective_order)


def corpus_figures(replies: Sequence[str], references: Sequence[str], unit: Unit) -> dict[str, float]:
    """The scores of replies with their references, one for one, by name."""
    return {
        "distinct-1": distinct(replies, 1, unit),
        "distinct-2": distinct(replies, 2, unit),
        "length_ratio": length_ratio(replies, references, unit),
        "chrF": chrf(replies, references),
        "sacreBLEU": sacrebleu(replies, references, unit),
        "ROUGE-L": rouge_l(replies, references, unit),
    }


def _check_lengths(replies: Sequence[str], references: Sequence[str]) -> None:
    if len(replies) != len(references):
        raise ValueError(f"got {len(replies)} replies for {len(references)} references, expected one for one")
