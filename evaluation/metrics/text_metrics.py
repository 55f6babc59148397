"""Scores that look at the generated text alone or next to its reference, without a model.

The unit of text is always an explicit argument: "word" splits at white space and keeps case and punctuation as they
are; "character" takes every character that is not white space, for Japanese and other scripts without spaces. The
paper speaks of diversity; its measure and tokenisation are not stated in the paper.

Scores of replies and references raise ValueError where the two lists differ in length.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU, CHRF

Unit = Literal["word", "character"]


class Sums(NamedTuple):
    """A corpus score that is made from sums over its texts, so that texts can be drawn again."""

    columns: np.ndarray  # (texts, numbers)
    score: Callable[[np.ndarray], np.ndarray]  # of many sums at a time: (..., numbers) to (...)

    @property
    def value(self) -> float:
        """The score of the texts as they are."""
        return float(self.score(self.columns.sum(axis=0)))


def split(text: str, unit: Unit) -> list[str]:
    """Splits text at white space into words, or into its characters without white space."""
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
    between corpora of about the same number of replies. It is 0 if no reply is as long as n units.
    """
    found = [ngram for reply in replies for ngram in ngrams(reply, n, unit)]
    return len(set(found)) / len(found) if found else 0.0


def length_ratio(replies: Sequence[str], references: Sequence[str], unit: Unit) -> Sums:
    """Sum of generated lengths / sum of reference lengths; 1 means as long-winded as the user."""
    _check_lengths(replies, references)
    lengths = [(len(split(a, unit)), len(split(b, unit))) for a, b in zip(replies, references, strict=True)]
    if sum(reference for _, reference in lengths) == 0:
        raise ValueError("length ratio: the references contain no text")
    return Sums(np.array(lengths, dtype=np.float64), _quotient)


def chrf(replies: Sequence[str], references: Sequence[str]) -> Sums:
    """Corpus chrF2 in 0..100: F-score (beta 2) of character 1- to 6-grams without white space (Popovic 2015).

    Computed by sacrebleu with its defaults; needs no tokenizer, so it is fit for Japanese.
    """
    _check_lengths(replies, references)
    return Sums(_statistics(replies, references, None), chrf_of_sums)


def sacrebleu(replies: Sequence[str], references: Sequence[str], unit: Unit) -> Sums:
    """Corpus BLEU-4 in 0..100 by sacrebleu: geometric mean of clipped 1- to 4-gram precisions x brevity penalty.

    Precisions without a match are smoothed ("exp"), and a corpus with no reply of four units scores 0. Words are
    tokenised by sacrebleu's 13a, which cuts off punctuation; characters by its char, for Japanese.
    """
    _check_lengths(replies, references)
    return Sums(_statistics(replies, references, unit), bleu_of_sums)


def _statistics(replies: Sequence[str], references: Sequence[str], unit: Unit | None) -> np.ndarray:
    """What sacrebleu's own bootstrap adds up, a row a reply; it draws texts, and ours draws users first."""
    metric = _knowing(tuple(references), unit)
    return np.array(metric._extract_corpus_statistics(list(replies), None), dtype=np.float64)


@lru_cache(maxsize=4)  # all systems of a table have the same references
def _knowing(references: tuple[str, ...], unit: Unit | None) -> "BLEU | CHRF":
    """BLEU, or chrF without a unit, with the n-grams of the references counted."""
    from sacrebleu.metrics import CHRF

    metric = CHRF() if unit is None else _bleu(unit)
    metric._ref_cache = metric._cache_references([list(references)])
    return metric


def chrf_of_sums(sums: np.ndarray) -> np.ndarray:
    """sacrebleu's chrF2 of many corpora at a time: (..., 6 x (of replies, of references, common)) to (...)."""
    of_reply, of_reference, common = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)  # (..., orders)
    known = (of_reply > 0) & (of_reference > 0)
    orders = np.maximum(known.sum(-1), 1)
    precision = _ratio(common, np.where(known, of_reply, 0)).sum(-1) / orders
    recall = _ratio(common, np.where(known, of_reference, 0)).sum(-1) / orders
    return 100 * _ratio(5 * precision * recall, 4 * precision + recall)  # beta 2


def bleu_of_sums(sums: np.ndarray) -> np.ndarray:
    """sacrebleu's BLEU-4 with "exp" smoothing of many corpora at a time: (..., 10) to (...).

    The sums are the lengths of the replies and of the references, then matches and n-grams of the four orders.
    """
    length, of_reference = sums[..., 0], sums[..., 1]
    common, total = sums[..., 2:6], sums[..., 6:]
    halvings = 2.0 ** np.cumsum(common == 0, axis=-1)  # of a precision without a match, one more for each such order
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(common > 0, common, 1 / halvings) * 100 / total).mean(-1)
        brevity = np.where(length < of_reference, np.exp(1 - of_reference / length), 1)
        found = brevity * np.exp(logs)
    return np.where((total > 0).all(-1) & (common > 0).any(-1), found, 0.0)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients; 0 where nothing is below."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)


def rouge_l(replies: Sequence[str], references: Sequence[str], unit: Unit) -> Sums:
    """ROUGE-L in 0..1: mean over pairs of F1 = 2 LCS / (units of the reply + units of the reference) (Lin 2004).

    LCS is the length of the longest common subsequence of units. Nothing is lowercased, stemmed or deleted; the usual
    tokenizer keeps Latin letters and digits only, and scores all Japanese 0.
    """
    _check_lengths(replies, references)
    pairs = [(split(a, unit), split(b, unit)) for a, b in zip(replies, references, strict=True)]
    scores = [(2 * _common(a, b) / max(1, len(a) + len(b)), 1) for a, b in pairs]
    return Sums(np.array(scores, dtype=np.float64), _quotient)


def _quotient(sums: np.ndarray) -> np.ndarray:
    above, below = sums[..., 0], sums[..., 1]
    return np.divide(above, below, out=np.full(np.shape(above), math.nan), where=below != 0)


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the usual table at a time as the bits of a number.

    A bit is 0 where the row grows by one (Hyyro 2004, "Bit-parallel LCS-length computation revisited").
    """
    places: dict[str, int] = {}
    for place, unit in enumerate(left):
        places[unit] = places.get(unit, 0) | 1 << place
    row = everywhere = (1 << len(left)) - 1
    for unit in right:
        matches = row & places.get(unit, 0)
        row = (row + matches) | (row - matches)
    return len(left) - (row & everywhere).bit_count()


def self_bleu(candidates: Sequence[Sequence[str]], unit: Unit) -> Sums | None:
    """Self-BLEU in 0..100 (Zhu et al. 2018): how alike the candidates of one context are; lower is more diverse.

    BLEU of every candidate with the others as its references, mean over candidates, then over contexts, which are the
    texts here; one with a single candidate has no weight. Short candidates are judged by the orders they have. An
    empty candidate scores 0, so look at the length ratio too. None where no context has two candidates.
    """
    bleu = _bleu(unit, effective_order=True)
    scores = [
        (fmean(bleu.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts)), 1)
        if len(texts) > 1
        else (0, 0)
        for texts in map(list, candidates)
    ]
    return Sums(np.array(scores, dtype=np.float64), _quotient) if any(weight for _, weight in scores) else None


def _bleu(unit: Unit, effective_order: bool = False) -> "BLEU":
    from sacrebleu.metrics import BLEU

    split("", unit)  # refuses other units
    return BLEU(tokenize="char" if unit == "character" else "13a", effective_order=effective_order)


def _check_lengths(replies: Sequence[str], references: Sequence[str]) -> None:
    if len(replies) != len(references):
        raise ValueError(f"got {len(replies)} replies for {len(references)} references, expected one for one")
