"""What a post must be to be kept, and what is taken out of its text.

The cleaned text is in Unicode NFKC, with single blanks and without the tokenizer's markers, so that a preparation's
own normalisation changes nothing. Placeholders are put in this order:

    [url]      http(s) addresses; `www.` and bare domains of a few endings
    [user]     mentions: @name, @name@host
    [mail]     e-mail addresses
    [ip]       IPv4 and whole IPv6 addresses
    [number]   12 to 19 digits in one or in groups of four, as on cards and papers
    [phone]    Japanese numbers (10 or 11 digits from 0), North American ones (3-3-4), and all that begin with +

Patterns find what has such a form: they miss some, and take a version number of four parts for an address.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from artefacts.ranges import AT_LEAST_1, require
from datamodules.corpora.records import Reasons

from .raw_posts import POSTS

ANY_PLACEHOLDER = r"\[(?:url|user|mail|ip|number|phone)\]"

# Other white space than the blank that is left after NFKC; RE2's \s knows ASCII only.
OTHER_SPACE = r"\t-\r\x{1c}-\x{1f}\x{85}\x{1680}\x{2028}\x{2029}"
# What the tokenizer would take for one of its pieces: datamodules/preparation/tokenizer.py, `harmless`.
LOOKS_SPECIAL = r"<(pad>|/s>|unk>|\|(?:speaker|partner)(?: profile)?\|>|0x[0-9A-F]{2}>)"

IN_URL = r"[0-9A-Za-z\-._~:/?#\[\]@!$&'()*+,;=%]"
URL_END = r"[0-9A-Za-z/=&%_~#+$\-]"  # a full stop or a bracket behind it is the sentence's
DOMAIN = r"\b(?:[0-9A-Za-z-]+\.)+"
WITH_PATH = rf"(?:com|net|org|info|jp|co|io|ly|be|me|tv|gg|gl|dev|app|uk|de|fr|us)/(?:{IN_URL}*{URL_END})?"
UNSEEN = r"[\p{Cc}\p{Cf}\p{Z}\p{M}\x{115f}\x{1160}\x{2800}\x{3164}\x{ffa0}]"  # as `is_visible` of records
URL = rf"(?i)\b(?:https?://|www\.)(?:{IN_URL}*{URL_END})"
BARE_URL = rf"(?i){DOMAIN}(?:{WITH_PATH}|(?:com|net|org|info|jp)\b)"
HOST = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)+"
USER = r"\B@_*[0-9A-Za-z][0-9A-Za-z_]*"
DASH = r"[-\x{2010}\x{2212}\x{30fc} ]"  # what people type between digits
WORDS = (  # looked for where there is one of @ . /
    (URL, "[url]"),
    (rf"{USER}@{HOST}", "[user]"),
    (rf"[0-9A-Za-z._%+\-]+@{HOST}", "[mail]"),
    (BARE_URL, "[url]"),
    (rf"{USER}(?:\.[0-9A-Za-z-]+)*", "[user]"),
)
NUMBERS = (  # looked for where there are digits
    (r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b|\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b", "[ip]"),
    (
        r"\b(?:[0-9]{12,19}|[0-9]{4}(?:[ -][0-9]{4}){2,3}(?:[ -]?[0-9]{1,3})?|[0-9]{4}[ -][0-9]{6}[ -][0-9]{5})\b",
        "[number]",
    ),
    (
        r"\+[0-9](?:[ .()-]{0,2}[0-9]){7,14}\b"
        r"|\b0[0-9]{9,10}\b"
        rf"|\b0(?:[0-9]{DASH}[0-9]{{4}}|[0-9]{{2}}{DASH}[0-9]{{3,4}}|[0-9]{{3}}{DASH}[0-9]{{2}}|[0-9]{{4}}{DASH}[0-9])"
        rf"{DASH}[0-9]{{4}}\b|\b0[0-9]{{3}}{DASH}[0-9]{{3}}{DASH}[0-9]{{3}}\b"
        r"|\(?\b0[0-9]{1,3}\) ?[0-9]{2,4}-[0-9]{4}\b|\b0[0-9]{1,3}\([0-9]{2,4}\)[0-9]{4}\b"
        r"|(?:\b1[ .-])?(?:\([0-9]{3}\) ?|\b[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}\b",
        "[phone]",
    ),
)
MENTIONS_IN_FRONT = r"^(?:\[user\][ :,、]*)+"
REPOST = r"^RT:? ?@"
QUOTED_REPOST = r"(?:^| )(?:RT|QT):? ?@.*$"
STOP_WORDS = (
    "a|an|and|are|as|at|be|but|by|can|do|for|from|get|go|good|had|has|have|he|her|here|him|his|how|i|if|in|is|it|just|"
    "like|me|my|no|not|now|of|on|one|or|our|out|so|that|the|their|them|then|there|they|this|time|to|too|up|us|was|we|"
    "what|when|who|why|will|with|you|your|yes"
)


@dataclass(frozen=True)
class Cleaning:
    """What is kept of the posts of a corpus. Nothing about it is stated in the paper but that posts were tweets.

    Args:
        max_characters: longest text, after cleaning; a longer post is left out.
        languages: languages to keep, such as `[ja, en]`; null keeps all. Where a field gives the language of a post,
            what counts is its first part (`en` of `en-GB`); where it is missing, or `und`, and where there is no such
            field, a rule about scripts decides, which knows `ja` and `en` only (see `of_language`).
        drop_reposts: leaves out what repeats somebody else's post; otherwise only the repeated part is cut off.
        replace_names: puts placeholders for addresses, mentions and numbers.
        unescape: reads `&amp;`, `&lt;` and `&gt;`, as Twitter writes them.
    """

    max_characters: int = 1000
    languages: tuple[str, ...] | None = None
    drop_reposts: bool = True
    replace_names: bool = True
    unescape: bool = False

    def __post_init__(self) -> None:
        require(vars(self), max_characters=AT_LEAST_1)

    def clean(self, raw: pa.Table, reasons: Reasons) -> pa.Table:
        """The posts of `POSTS` that are kept, in their order; the others are counted in `reasons`, each once."""
        for field in ("id", "author"):
            raw = _keep(raw, pc.fill_null(pc.not_equal(raw[field], ""), False), f"no {field}", reasons)
        raw = _keep(raw, raw["text"].is_valid(), "no text", reasons)
        raw = _keep(raw, pc.invert(raw["bad_time"]), "bad time", reasons)
        text = self._normalised(raw["text"].combine_chunks())
        raw = raw.set_column(raw.schema.get_field_index("text"), "text", text)
        if self.drop_reposts:
            is_repost = pc.or_(raw["repost"], pc.match_substring_regex(raw["text"], REPOST))
            raw = _keep(raw, pc.invert(is_repost), "repost", reasons)
        text = self._without_names(raw["text"].combine_chunks(), raw["in_reply_to"].combine_chunks().is_valid())
        raw = raw.set_column(raw.schema.get_field_index("text"), "text", text)
        is_empty = pc.match_substring_regex(text, rf"^(?:{ANY_PLACEHOLDER}|{UNSEEN})*$")
        raw = _keep(raw, pc.invert(is_empty), "empty after cleaning", reasons)
        raw = _keep(raw, pc.less_equal(pc.utf8_length(raw["text"]), self.max_characters), "too long", reasons)
        if self.languages is not None:
            raw = _keep(raw, self._has_language(raw), "other language", reasons)
        return raw.select(POSTS.names).cast(POSTS)

    def _normalised(self, text: pa.Array) -> pa.Array:
        if self.unescape:
            for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
                text = pc.replace_substring(text, entity, character)
        # Arrow's utf8_normalize is not used: in version 25.0 it takes characters apart and does not compose them again.
        other = pc.invert(pc.string_is_ascii(text))
        composed = [unicodedata.normalize("NFKC", one) for one in text.filter(other).to_pylist()]
        return fold_space(pc.replace_with_mask(text, other, pa.array(composed, pa.string())))

    def _without_names(self, text: pa.Array, is_reply: pa.Array) -> pa.Array:
        text = _replaced(text, pc.match_substring_regex(text, "[RQ]T:? ?@"), ((QUOTED_REPOST, ""),))
        if self.replace_names:
            text = _replaced(text, pc.match_substring_regex(text, r"[@/]|\.[0-9A-Za-z]"), WORDS)
            text = _replaced(text, pc.match_substring_regex(text, r"[0-9]{3}|[0-9]\.[0-9]|[0-9A-Fa-f]:"), NUMBERS)
            in_front = pc.and_(is_reply, pc.starts_with(text, "[user]"))
            text = _replaced(text, in_front, ((MENTIONS_IN_FRONT, ""),))
        text = _replaced(text, pc.match_substring(text, "<"), ((LOOKS_SPECIAL, r"< \1"),))
        return fold_space(text)

    def _has_language(self, raw: pa.Table) -> pa.Array:
        given = pc.utf8_lower(pc.replace_substring_regex(raw["lang"].combine_chunks(), "[-_].*$", ""))
        given = pc.if_else(pc.is_in(given, value_set=pa.array(["", "und"])), None, given)
        wanted = [language.lower() for language in self.languages]
        by_field = pc.is_in(given, value_set=pa.array(wanted, pa.string()))
        return pc.if_else(given.is_valid(), by_field, of_language(raw["text"].combine_chunks(), wanted))


def fold_space(text: pa.Array) -> pa.Array:
    """NFKC text with single blanks for all white space and none at the ends, as `" ".join(text.split())`."""
    folded = _replaced(text, pc.match_substring_regex(text, f"[{OTHER_SPACE}]|  "), ((f"[{OTHER_SPACE} ]+", " "),))
    return pc.utf8_trim(folded, characters=" ")


def of_language(text: pa.Array, languages: Sequence[str]) -> pa.Array:
    """Which texts may be in one of these languages; those without a letter always may. Knows `ja` and `en`.

    ja: at least half of the letters are kana or kanji, and one is kana; or ten kanji at most, and nothing else.
    en: nine of ten letters are those from a to z; and, from five words on, one is among the commonest of English.
    """
    text = pc.replace_substring_regex(text, ANY_PLACEHOLDER, " ")
    letters = pc.replace_substring_regex(text, r"[^\p{L}\x{30fc}]+", "")
    others = pc.replace_substring_regex(letters, "[A-Za-z]+", "")
    neither = pc.replace_substring_regex(others, r"[\p{Hiragana}\p{Katakana}\x{30fc}\p{Han}]+", "")
    num_letters, num_others, num_neither = (pc.utf8_length(one) for one in (letters, others, neither))
    found = pc.equal(num_letters, 0)
    if "ja" in languages:
        japanese = pc.subtract(num_others, num_neither)
        has_kana = pc.match_substring_regex(others, r"[\p{Hiragana}\p{Katakana}]")
        with_kana = pc.and_(has_kana, pc.greater_equal(pc.multiply(japanese, 2), num_letters))
        only_kanji = pc.and_(pc.invert(has_kana), pc.equal(japanese, num_letters))
        found = pc.or_(found, pc.or_(with_kana, pc.and_(only_kanji, pc.less_equal(num_letters, 10))))
    if "en" in languages:
        is_latin = pc.less_equal(pc.multiply(num_others, 10), num_letters)
        has_word = pc.match_substring_regex(text, rf"(?i)\b(?:{STOP_WORDS})\b")
        few_words = pc.less(pc.count_substring_regex(text, "[A-Za-z']+"), 5)
        found = pc.or_(found, pc.and_(is_latin, pc.or_(has_word, few_words)))
    return found


def _replaced(text: pa.Array, where: pa.Array, replacements: Sequence[tuple[str, str]]) -> pa.Array:
    """Replaces in the texts where it can matter only, which are few."""
    if not pc.any(where).as_py():
        return text
    some = text.filter(where)
    for pattern, replacement in replacements:
        some = pc.replace_substring_regex(some, pattern, replacement)
    return pc.replace_with_mask(text, where, some)


def _keep(posts: pa.Table, mask: pa.Array, reason: str, reasons: Reasons) -> pa.Table:
    num_kept = pc.sum(mask).as_py() or 0
    if num_kept == posts.num_rows:
        return posts
    is_malformed = reason.startswith("no ") or reason == "bad time"
    ids = posts["id"].filter(pc.invert(mask)).slice(0, 3 if is_malformed else 0).to_pylist()
    examples = [f"post {id}" for id in ids if id]
    reasons.add(reason, posts.num_rows - num_kept, examples)
    return posts.filter(mask)
