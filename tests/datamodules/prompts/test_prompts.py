"""Prompts, written out by hand with the word tokenizer of conftest.

Its ids: 1 end, 2 unknown, 3 <|speaker|>, 4 <|partner|>, 5 <|speaker profile|>, 6 <|partner profile|>,
7 hi, 8 tea, 9 coffee, 10 yes, 11 no, 12 more, 13 please, 14 thanks, 15 age, 16 city, 17 ':', 18 ',', 19 old,
20 young, 21 osaka.
"""

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.prompts.loading import load_prompts
from datamodules.prompts.profiles import ProfileControl, read_profiles
from datamodules.prompts.rendering import Prompts
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.ragged import Ragged
from datamodules.shards.reader import ShardReader, TokenPairs

PROFILES = {"ada": {"city": "osaka", "age": "young"}, "ben": {"age": "old"}}
ADA = [15, 17, 20, 18, 16, 17, 21]  # age: young, city: osaka
BEN = [15, 17, 19]  # age: old


def lists(ragged):
    return [ragged.values[start:end].tolist() for start, end in zip(ragged.offsets, ragged.offsets[1:], strict=False)]


def pairs():
    """ben: "hi" - ada: "tea please" - ben: "yes more" - ada: "thanks"; and one of cleo to ada."""
    return TokenPairs(
        pair_id=np.array([100, 200, 300]),
        speakers=["ada", "ben", "cleo"],
        speaker=np.array([0, 1, 2]),
        partners=["ben", "ada"],
        partner=np.array([0, 1, 1]),
        context=Ragged.from_lists([[7, 8, 13, 10, 12], [7, 8, 13], [9]]),
        context_lengths=Ragged.from_lists([[1, 2, 2], [1, 2], [1]]),
        context_speakers=Ragged.from_lists([[1, 0, 1], [0, 1], [1]]),
        response=Ragged.from_lists([[14], [10, 12], [11, 11, 11]]),
    )


def prompts(tokenizer, style, **template):
    return Prompts(PromptTemplate(style, **template), tokenizer, PROFILES)


CONTEXTS = [[4, 7, 3, 8, 13, 4, 10, 12, 1], [3, 7, 4, 8, 13, 1], [4, 9, 1]]


@pytest.mark.parametrize(
    ("style", "prefixes"),
    [
        ("none", [[], [], []]),
        ("psp", [[5, *ADA], [5, *BEN], []]),  # nothing is known of cleo: no marker either
        ("ppp", [[5, *ADA, 6, *BEN], [5, *BEN, 6, *ADA], [6, *ADA]]),
    ],
)
def test_styles_by_hand(word_tokenizer, style, prefixes):
    rendered = prompts(word_tokenizer, style).render(pairs(), 64)
    assert lists(rendered.inputs) == [prefix + context for prefix, context in zip(prefixes, CONTEXTS, strict=True)]
    assert lists(rendered.targets) == [[14, 1], [10, 12, 1], [11, 11, 11, 1]]
    assert rendered.pair_id.tolist() == [100, 200, 300]
    assert rendered.prefix_lengths.tolist() == [len(prefix) for prefix in prefixes]
    assert rendered.context_lengths.tolist() == [9, 6, 3]
    assert rendered.costs.tolist() == [9 + 2, 6 + 3, 3 + 4]  # the profile does not count


@pytest.mark.parametrize(
    ("max_tokens", "context"),
    [
        (8, [4, 7, 3, 8, 13, 4, 10, 12]),
        (7, [4, 3, 8, 13, 4, 10, 12]),  # of the oldest turn only the marker is left
        (6, [3, 8, 13, 4, 10, 12]),  # cut between two turns
        (5, [3, 13, 4, 10, 12]),  # the turn that is cut keeps its marker and its end
        (4, [3, 4, 10, 12]),
        (3, [4, 10, 12]),
        (2, [4, 12]),
        (1, [4]),
    ],
)
def test_truncation_keeps_the_end_and_the_marker_of_the_cut_turn(word_tokenizer, max_tokens, context):
    rendered = prompts(word_tokenizer, "psp").render(pairs(), max_tokens)
    assert lists(rendered.inputs)[0] == [5, *ADA, *context, 1]  # profile and end token are never cut
    assert lists(rendered.targets) == [[14, 1], [10, 12, 1], [11, 11, 11, 1]]


def slow_input(turns, speakers, max_tokens, prefix):
    ids = [(id, 3 + who) for turn, who in zip(turns, speakers, strict=True) for id in (3 + who, *turn)]
    kept = ids[-max_tokens:]
    first = kept[0][1] if len(kept) < len(ids) else kept[0][0]
    return [*prefix, first, *(id for id, _ in kept[1:]), 1]


def test_random_contexts_against_a_slow_implementation(word_tokenizer):
    rng = random.Random(0)
    made = prompts(word_tokenizer, "none")
    for _ in range(100):
        rows = [
            [[rng.randrange(7, 22) for _ in range(rng.choice([0, 1, 2, 5]))] for _ in range(rng.randint(1, 4))]
            for _ in range(6)
        ]
        authors = [[rng.randrange(2) for _ in turns] for turns in rows]
        prefixes = [[rng.randrange(7, 22)] * rng.randrange(3) for _ in rows]
        max_tokens = rng.randint(1, 12)
        inputs = made.inputs(
            Ragged.from_lists(prefixes),
            Ragged.from_lists([[id for turn in turns for id in turn] for turns in rows]),
            Ragged.from_lists([[len(turn) for turn in turns] for turns in rows]),
            Ragged.from_lists(authors),
            max_tokens,
        )
        assert lists(inputs) == [
            slow_input(turns, who, max_tokens, prefix)
            for turns, who, prefix in zip(rows, authors, prefixes, strict=True)
        ]


def test_a_profile_is_rendered_by_the_template():
    profile = {"city": "Osaka", "age": "20-29", "job": "baker"}
    assert PromptTemplate("psp").render(profile) == "age: 20-29, city: Osaka, job: baker"
    chosen = PromptTemplate("psp", "{attribute}={value}", " | ", attributes=("job", "hobby", "age"))
    assert chosen.render(profile) == "job=baker | age=20-29"  # in this order; a missing one is left out
    assert chosen.render({"hobby": "chess"}) == "hobby=chess"
    assert chosen.render({}) == chosen.render({"city": "Osaka"}) == ""


def test_a_profile_without_the_wanted_attributes_leaves_no_marker(word_tokenizer):
    rendered = prompts(word_tokenizer, "ppp", attributes=("city",)).render(pairs(), 64)
    assert lists(rendered.inputs)[:2] == [[5, 16, 17, 21, *CONTEXTS[0]], [6, 16, 17, 21, *CONTEXTS[1]]]


def test_a_marker_in_a_profile_is_no_marker(word_tokenizer):
    made = Prompts(PromptTemplate("psp"), word_tokenizer, {"ada": {"age": "<|speaker|> old"}})
    ids = made.profile_ids("ada", "<|speaker profile|>")
    assert ids[:3] == [5, 15, 17]
    assert ids[-1] == 19
    assert 3 not in ids


def test_turns_gives_the_context_back(word_tokenizer):
    made = prompts(word_tokenizer, "ppp")
    inputs = lists(made.render(pairs(), 64).inputs)
    assert made.turns([*inputs[0], 0, 0]) == [("partner", "hi"), ("speaker", "tea please"), ("partner", "yes more")]
    assert made.turns(inputs[2]) == [("partner", "coffee")]


def test_replies_stand_between_profile_and_context(word_tokenizer):
    made = prompts(word_tokenizer, "psp")
    rendered = made.render(pairs(), 64, made.replies([[np.array([10, 12]), np.array([11])], [], []], 64))
    with_replies = [5, *ADA, 5, 10, 12, 5, 11, *CONTEXTS[0]]
    assert lists(rendered.inputs) == [with_replies, [5, *BEN, *CONTEXTS[1]], CONTEXTS[2]]
    assert rendered.prefix_lengths.tolist() == [8 + 5, 4, 0]
    assert rendered.costs.tolist() == made.render(pairs(), 64).costs.tolist()
    assert made.turns(with_replies) == [("partner", "hi"), ("speaker", "tea please"), ("partner", "yes more")]


@pytest.mark.parametrize(
    ("max_tokens", "kept"),
    [(5, [5, 10, 12, 5, 11]), (4, [5, 12, 5, 11]), (3, [5, 5, 11]), (2, [5, 11])],  # the last is the most similar
)
def test_the_least_similar_reply_is_cut_first(word_tokenizer, max_tokens, kept):
    made = prompts(word_tokenizer, "none")
    assert lists(made.replies([[np.array([10, 12]), np.array([11])]], max_tokens)) == [kept]


# ---- files


def test_prompts_of_a_prepared_corpus(prepared):
    made = load_prompts(PromptTemplate("psp"), prepared, None)
    assert made.profiles["ada"] == {"city": "Osaka", "age": "20-29"}
    pairs = ShardReader(prepared, "users/test").read([0])
    decode = made.tokenizer.decode
    for row, ids in enumerate(lists(made.render(pairs, 64).inputs)):
        text = decode(ids, skip_special_tokens=False)
        expected = {"ada": "<|speaker profile|> age: 20-29, city: Osaka<|", "ben": "<|speaker profile|> city: Kyoto<|"}
        assert text.startswith(expected.get(pairs.speakers[pairs.speaker[row]], ("<|partner|>", "<|speaker|>")))


def test_profiles_of_a_file_win_over_those_of_the_corpus(prepared, tmp_path):
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"user": ["ada"], "attribute": ["job"], "value": ["baker"]}), path)
    assert load_prompts(PromptTemplate("psp"), prepared, path).profiles == {"ada": {"job": "baker"}}
    assert load_prompts(PromptTemplate("none"), prepared, path).profiles == {}


def test_a_number_stands_for_a_target_user(prepared):
    made = load_prompts(PromptTemplate("user", attribute_format="{value}"), prepared, None)
    assert made.profiles == {name: {"user": str(place)} for place, name in enumerate(("ada", "ben", "cleo", "dan"))}
    pairs = ShardReader(prepared, "users/test").read([0])
    for row, ids in enumerate(lists(made.render(pairs, 64).inputs)):
        number = ("ada", "ben", "cleo", "dan").index(pairs.speakers[pairs.speaker[row]])
        text = made.tokenizer.decode(ids, skip_special_tokens=False)
        assert text.startswith((f"<|speaker profile|> {number}<|partner|>", f"<|speaker profile|> {number}<|speaker|>"))
    others = ShardReader(prepared, "pretrain/train").read([0])
    assert not set(made.render(others, 64).prefix_lengths) - {0}


def test_numbers_of_users_can_be_exchanged(prepared):
    shuffled = load_prompts(PromptTemplate("user"), prepared, None, ProfileControl(shuffled=True)).profiles
    assert sorted(profile["user"] for profile in shuffled.values()) == ["0", "1", "2", "3"]
    assert all(shuffled[name]["user"] != str(place) for place, name in enumerate(sorted(shuffled)))


def test_a_style_with_profiles_needs_profiles(prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    (copy / "profiles.parquet").unlink()
    with pytest.raises(
        FileNotFoundError,
        match="prompt style 'ppp' needs profiles, and there is no .*profiles.parquet; give data.profiles=.* style none",
    ):
        load_prompts(PromptTemplate("ppp"), copy, None)
    with pytest.raises(FileNotFoundError, match="there is no .*nowhere.parquet"):
        load_prompts(PromptTemplate("psp"), prepared, tmp_path / "nowhere.parquet")
    with pytest.raises(FileNotFoundError, match="no profiles in .*nowhere.parquet"):
        read_profiles(tmp_path / "nowhere.parquet")
    assert load_prompts(PromptTemplate("none"), copy, None).profiles == {}


def test_damaged_profiles(prepared, tmp_path):
    path = tmp_path / "profiles.parquet"
    pq.write_table(pa.table({"user": ["ada"], "age": ["20"]}), path)
    with pytest.raises(ValueError, match=r"lacks the columns \['attribute', 'value'\]; it has \['user', 'age'\]"):
        read_profiles(path)
    path.write_bytes((prepared / "profiles.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match="profiles.parquet is damaged or truncated"):
        read_profiles(path)


@pytest.mark.parametrize(
    ("style", "attributes", "printed"),
    [
        ("psp", None, "2 of 4 users have no profile: theirs is empty\n"),
        ("psp", ("city",), "3 of 4 users have no profile: theirs is empty\n"),
        ("none", None, ""),
    ],
)
def test_people_without_profile_are_counted(word_tokenizer, style, attributes, printed, capsys):
    prompts(word_tokenizer, style, attributes=attributes).report_missing(["ada", "ben", "cleo", "dan"], "users")
    assert capsys.readouterr().out == printed


LANGUAGE = """
segmenter: words
attributes:
  age: {written: Alter, values: {young: jung, old: alt}}
  city: {written: Ort, values: {osaka: Osaka (Japan)}}
"""


def test_a_language_says_how_attributes_and_values_are_written(tmp_path):
    (tmp_path / "de.yaml").write_text(LANGUAGE)
    template = PromptTemplate("psp", wording=tmp_path / "de.yaml").resolved()
    assert template.render(PROFILES["ada"]) == "Alter: jung, Ort: Osaka (Japan)"
    assert template.wording["age"] == {"written": "Alter", "values": {"young": "jung", "old": "alt"}}
    assert template.resolved() is template  # a backbone's own does not need the file
    assert PromptTemplate("none", wording=tmp_path / "de.yaml").resolved() == PromptTemplate()
    only_age = PromptTemplate("psp", wording=tmp_path / "de.yaml", attributes=("age",)).resolved()
    assert list(only_age.wording) == ["age"]  # only the wording of what is written counts
    with pytest.raises(ValueError, match=r"no age='middling', only \['old', 'young'\]: add it to the language's YAML"):
        template.render({"age": "middling"})
    with pytest.raises(ValueError, match=r"no job='baker', only \['age', 'city'\]"):
        template.render({"job": "baker"})


def test_profiles_that_are_not_there_name_the_command(prepared, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    path = Path("runs/profile_mln_ja+held_out_speakers/profiles.parquet")
    with pytest.raises(FileNotFoundError, match=r"lightning fit --config experiments/profile_mln_ja\.yaml"):
        load_prompts(PromptTemplate("psp"), prepared, path)


@pytest.mark.parametrize("text", ["{valu}", "{attribute}", "", "{value} {other}"])
def test_a_format_without_the_value_is_refused(text):
    with pytest.raises(ValueError, match=r"must have \{value\}, and may have \{attribute\}"):
        PromptTemplate("psp", attribute_format=text)


def test_an_attribute_that_nobody_has_is_refused(prepared, tmp_path):
    path = tmp_path / "profiles.parquet"
    rows = [{"user": user, "attribute": "age", "value": value} for user, value in (("ada", "young"), ("ben", "odd"))]
    pq.write_table(pa.Table.from_pylist([*rows, {"user": "ada", "attribute": "job", "value": "baker"}]), path)
    with pytest.raises(ValueError, match=r"nobody has \['jbo'\] in .*, which has \['age', 'job'\]"):
        load_prompts(PromptTemplate("psp", attributes=("age", "jbo")), prepared, path)
    (tmp_path / "de.yaml").write_text(LANGUAGE)
    with pytest.raises(ValueError, match="no age='odd'"):  # now, not in the middle of training
        load_prompts(PromptTemplate("psp", wording=tmp_path / "de.yaml", attributes=("age",)), prepared, path)
    assert load_prompts(PromptTemplate("psp", attributes=("job",)), prepared, path).profiles == {
        "ada": {"job": "baker"},
        "ben": {},
    }


def test_a_control_without_profiles_is_refused(prepared):
    with pytest.raises(ValueError, match="a prompt of style none has no profiles; use psp or ppp"):
        load_prompts(PromptTemplate(), prepared, None, ProfileControl(shuffled=True))
