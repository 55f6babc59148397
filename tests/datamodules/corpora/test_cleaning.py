"""Cleaning rules, by hand, in Japanese and English; and that the light path would change nothing any more."""

import random
import unicodedata

import pyarrow as pa
import pytest

from datamodules.corpora import Cleaning
from datamodules.corpora.posts.cleaning import fold_space, of_language
from datamodules.corpora.posts.raw_posts import RAW
from datamodules.corpora.posts.times import milliseconds
from datamodules.corpora.records import Reasons
from datamodules.preparation.tokenizer import EOS, LOOKS_SPECIAL, MARKERS, PAD, UNK, harmless


def cleaned(texts, cleaning=Cleaning(), **columns):  # noqa: B008
    rows = [
        {"id": str(n), "author": "p", "text": text, "repost": False, "bad_time": False} for n, text in enumerate(texts)
    ]
    for name, values in columns.items():
        rows = [{**row, name: value} for row, value in zip(rows, values, strict=True)]
    reasons = Reasons()
    posts = cleaning.clean(pa.Table.from_pylist(rows, RAW), reasons)
    assert posts.num_rows + sum(reasons.values()) == len(texts)
    return posts["text"].to_pylist(), dict(reasons)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see https://example.com/a_(b)?c=d#e, ok", "see [url], ok"),
        ("見てhttps://example.com/猫が", "見て[url]猫が"),
        ("(HTTP://EXAMPLE.COM/a).", "([url])."),
        ("ｈｔｔｐｓ：／／example.com/x だよ", "[url] だよ"),
        ("www.example.co.jp と example.com/a/b と t.co/Xy1 pic.twitter.com/AbC", "[url] と [url] と [url] [url]"),
        ("go to example.org. Node.js is 3.14 a.m.", "go to [url]. Node.js is 3.14 a.m."),
        ("hi @ken_9! and @a.bsky.social, @u@host.example", "hi [user]! and [user], [user]"),
        ("＠ken さん、@kenさん", "[user] さん、[user]さん"),
        ("@_@ a@b and @ alone", "@_@ a@b and @ alone"),
        ("mail me: a.b+c@mail.example.com.", "mail me: [mail]."),
        ("連絡はken@example.jpまで", "連絡は[mail]まで"),
        ("電話 03-1234-5678 / 090-1234-5678 / ０９０１２３４５６７８", "電話 [phone] / [phone] / [phone]"),
        ("0120-123-456 045-123-4567 (03)1234-5678 03(1234)5678 +81 90-1234-5678 ok", "[phone] " * 5 + "ok"),
        ("call (555) 123-4567 or 555-123-4567, +1 555 123 4567.", "call [phone] or [phone], [phone]."),
        (
            "4111 1111 1111 1111, 4111-1111-1111-1111 4111111111111111 1234 5678 9012",
            "[number], [number] [number] [number]",
        ),
        ("card 3782 822463 10005", "card [number]"),
        ("from 192.168.0.1 and 2001:0db8:0:0:0:0:0:1", "from [ip] and [ip]"),
        ("on 2024-05-01 at 12:34:56 I ran 10 000 m, won 3-2; 100-200 yen", None),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13", None),
        ("2020年1月1日 12:30", None),
        (
            "a < b </s> <pad><0x1F><|speaker|> <|partner profile|>",
            "a < b < /s> < pad>< 0x1F>< |speaker|> < |partner profile|>",
        ),
        (" ｶﾀｶﾅ　\t①\n\u2028x\u200a\x85y \x1cz ", "カタカナ 1 x y z"),
        ("so true RT @ken: his words https://t.co/x", "so true"),
    ],
)
def test_texts_by_hand(text, clean):
    assert cleaned([text])[0] == [text if clean is None else clean]


def test_mentions_in_front_of_a_reply_go():
    texts = ["@a @b_c: hi @d", "@a、おはよう", "@a おはよう", ".@a hi", "@a @b", "hi @a"]
    replies = cleaned(texts, in_reply_to=["1"] * 6)
    assert replies == (["hi [user]", "おはよう", "おはよう", ".[user] hi", "hi [user]"], {"empty after cleaning": 1})
    assert cleaned(texts[:1])[0] == ["[user] [user]: hi [user]"]


def test_what_is_left_out():
    texts = ["RT @a: x", "hello", "  ", "https://a.example/b @x", "😂", "x" * 11, "RT this", "fine"]
    repost = [False] * 7 + [True]
    assert cleaned(texts, Cleaning(max_characters=10), repost=repost) == (
        ["hello", "😂", "RT this"],
        {"repost": 2, "empty after cleaning": 2, "too long": 1},
    )
    assert cleaned(["RT @a: x", "yes"], Cleaning(drop_reposts=False), repost=[False, True]) == (
        ["yes"],
        {"empty after cleaning": 1},
    )
    kept = cleaned(["https://a.example/b @x 03-1234-5678 &amp;"], Cleaning(replace_names=False, unescape=True))
    assert kept == (["https://a.example/b @x 03-1234-5678 &"], {})
    assert cleaned(["&amp;lt; &lt;/s&gt;"], Cleaning(unescape=True))[0] == ["&lt; < /s>"]
    with pytest.raises(ValueError, match="max_characters"):
        Cleaning(max_characters=0)


JA = ["おはよう", "今日はiPhoneを買った", "了解", "コーヒー"]
EN = ["good morning", "lol", "I went to the café with Zoë and Amélie", "the cat [user] [url]"]
NEITHER = [
    "안녕하세요 여러분",
    "今天天气很好我们一起去公园散步吧",
    "hoy vamos todos juntos al cine con nuestra familia",
    "привет друзья",
]
ANY = ["😂", "[url] 123", "!!"]


def test_the_rule_about_languages():
    for languages, right in ((["ja"], JA + ANY), (["en"], EN + ANY), (["ja", "en"], JA + EN + ANY), (["de"], ANY)):
        texts = JA + EN + NEITHER + ANY
        found = of_language(pa.array(texts), languages).to_pylist()
        assert [text for text, is_right in zip(texts, found, strict=True) if is_right] == right


def test_a_field_says_the_language_and_the_rule_fills_in():
    texts, langs = ["hola", "おはよう", "おはよう", "안녕하세요", "see you"], ["en-GB", None, "und", "JA", "fr"]
    assert cleaned(texts, Cleaning(languages=("en", "ja")), lang=langs) == (texts[:4], {"other language": 1})


ASSIGNED = [chr(n) for n in range(1, 0x110000) if not 0xD800 <= n < 0xE000 and unicodedata.category(chr(n)) != "Cn"]


def test_the_light_path_changes_nothing_any_more():
    """Every character that this Python knows, beside each other and around white space; and random mixtures."""
    rng = random.Random(1)
    spread = [f"a {x} {x}b{x}" for x in ASSIGNED]
    mixed = ["".join(rng.choices(ASSIGNED, k=12)) for _ in range(1000)]
    parts = "@ken ＠ http://a.jp/ < /s> </s> RT 03-1234-5678 。 <|speaker|> \u0301 ] x"
    typed = ["".join(rng.choices([*parts.split(), " ", "\u3000"], k=8)) for _ in range(3000)]

    def light(text):
        return harmless(" ".join(unicodedata.normalize("NFKC", text).split()))

    for texts in (spread, mixed, typed):
        found, _ = cleaned(texts, Cleaning(max_characters=10_000))
        assert len(found) >= 1000
        assert found == [light(text) for text in found]
    as_it_is = Cleaning(max_characters=10_000, replace_names=False)
    found, _ = cleaned(spread + mixed, as_it_is)
    assert found == [text for text in map(light, spread + mixed) if text]
    folded = fold_space(pa.array([unicodedata.normalize("NFKC", text) for text in mixed])).to_pylist()
    assert folded == [" ".join(unicodedata.normalize("NFKC", text).split()) for text in mixed]


def test_all_markers_are_known():
    markers = [PAD, EOS, UNK, *MARKERS, "<0x0A>"]
    assert all(LOOKS_SPECIAL.match(marker) for marker in markers)
    assert cleaned([f"x{marker}" for marker in markers])[0] == [f"x< {marker[1:]}" for marker in markers]


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2018-10-10T20:19:24Z", 1539202764000),
        ("2018-10-10T20:19:24.5+09:00", 1539170364500),
        ("2018-10-10 20:19:24", 1539202764000),
        ("2018-10-10", 1539129600000),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("Wed Oct 10 20:19:24 +0000 2018", 1539202764000),
        ("Wed Oct 10 20:19:24 +0900 2018", 1539170364000),
        ("1539202764", 1539202764000),
        ("1539202764123", 1539202764123),
        ("1539202764.25", 1539202764250),
        ("Wed Feb 31 20:19:24 +0000 2018", None),
        ("2018-02-31T20:19:24Z", None),
        ("2018-10-10T25:00:00Z", None),
        ("99999999999999999999", None),
        ("", None),
        ("later", None),
    ],
)
def test_times_by_hand_alone_and_among_others(value, time):
    """A column of one form goes another way than a mixed one."""
    for column in ([value], [value, None, value], [value, "2018-10-10T00:00:00Z", "soon"]):
        found, bad = milliseconds(pa.array(column))
        assert found[0].as_py() == time and bad[0].as_py() == (time is None)
        assert len(column) == 1 or found[1].as_py() == (None if column[1] is None else 1539129600000)
        assert not any(bad.to_pylist()[1:2])


def test_times_as_numbers():
    found, bad = milliseconds(pa.array([1539202764, 1539202764123.0, None, float("nan"), 1e18, 1.5, -0.5]))
    assert found.to_pylist() == [1539202764000, 1539202764123, None, None, None, 1500, -500]
    assert bad.to_pylist() == [False, False, False, True, True, False, False]
