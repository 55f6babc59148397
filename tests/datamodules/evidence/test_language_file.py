"""A language's YAML: what it becomes, and what is told to whoever wrote it wrongly."""

import re
from pathlib import Path

import pytest
import yaml

from datamodules.evidence.language_file import language_content, load_language

PROFILES = Path(__file__).parents[3] / "experiments" / "profiles"
ENGLISH = """segmenter: words
attributes:
  gender:
    written: gender
    values: {female: a woman, male: a man}
    patterns:
      states: {female: "i'm a woman", male: "i'm a man"}
      confirms: {male: {asked: 'are you a man', said: '^yes'}}
  home_town:
    written: lives in
    values: places.yaml
    places:
      lives: 'i live in PLACE'
      answers: {asked: 'where', said: '^PLACE'}
      there: PLACE
forms:
  laugh: '(?:ha){2,}'
"""
PLACES = """Osaka: [Osaka, higashi-osaka, 大阪, 東大阪]
Utah: [salt lake]
Sea: [salt, salt water]
"""


@pytest.fixture
def path(tmp_path):
    """A language's YAML, beside its file of places."""
    (tmp_path / "places.yaml").write_text(PLACES, encoding="utf-8")
    (tmp_path / "english.yaml").write_text(ENGLISH, encoding="utf-8")
    return tmp_path / "english.yaml"


def change(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_attributes_have_the_values_and_names_of_the_file(path):
    language = load_language(path)
    assert language.segmenter == "words"
    assert list(language.attributes) == ["gender", "home_town"]
    gender, town = language.attributes.values()
    assert (gender.written, gender.values) == ("gender", {"female": "a woman", "male": "a man"})
    assert (gender.predicate, gender.said) == ("Gender", "SaysGender")
    assert (town.predicate, town.said) == ("HomeTown", "SaysHomeTown")
    assert language.patterns == ["states", "confirms", "lives", "answers", "there"]


def test_a_pattern_is_a_text_or_an_answer(path):
    gender = load_language(path).attributes["gender"]
    states, confirms = gender.patterns["states"], gender.patterns["confirms"]
    assert states["male"].asked is None
    assert states["male"].said.search("well, I'M A MAN")  # whatever the case
    assert not states["female"].said.search("i'm a man")
    assert list(confirms) == ["male"]
    assert confirms["male"].asked.search("Are you a man?")
    assert confirms["male"].said.search("no\nyes")  # `^` is the beginning of any line
    assert not confirms["male"].said.search("oh yes")


def test_what_a_pattern_needs_decides_no_results(path):
    content = language_content(path)
    with path.open("a", encoding="utf-8") as file:
        file.write("needs: {gender.confirms.male: [a MAN], home_town.lives: [live], forms.laugh: [ha]}\n")
    gender, town = load_language(path).attributes.values()
    assert gender.patterns["confirms"]["male"].needs == ("a man",)
    assert gender.patterns["states"]["male"].needs == town.places["answers"].needs == ()
    assert town.places["lives"].needs == ("live",)
    assert "salt lake" in town.places["there"].needs  # without anything declared, one of the names
    assert load_language(path).forms["laugh"].needs == ("ha",)
    assert language_content(path) == content == [ENGLISH.encode(), PLACES.encode()]


def test_a_pattern_that_two_attributes_have_is_named_once(path):
    change(path, "      there: PLACE", "      states: PLACE")
    assert load_language(path).patterns == ["states", "confirms", "lives", "answers"]


def test_a_file_of_places_gives_values_and_names(path):
    town = load_language(path).attributes["home_town"]
    assert town.values == {"Osaka": "Osaka", "Utah": "salt lake", "Sea": "salt"}  # the first name is the written one
    assert town.value_of_place["higashi-osaka"] == town.value_of_place["osaka"] == "Osaka"  # case folded
    assert town.places["answers"].asked.search("and where?")
    assert town.places["answers"].said.search("OSAKA, and you")[1] == "OSAKA"
    assert not town.places["answers"].said.search("in osaka")


def test_each_frame_is_looked_for_with_areas_too(path):
    change(path, "    places:\n", "    areas: {Kansai: [Osaka, Sea]}\n    places:\n")
    language = load_language(path)
    assert language.patterns[-6:] == ["lives", "answers", "there", "area_lives", "area_answers", "area_there"]
    town = language.attributes["home_town"]
    assert town.places["area_lives"].said.search("I live in kansai")[1] == "kansai"
    assert not town.places["lives"].said.search("I live in kansai")
    assert town.places["area_answers"].asked.search("and where?")
    assert town.values_of("area_lives", "KANSAI") == ("Osaka", "Sea")
    assert town.values_of("lives", "OSAKA") == ("Osaka",)
    found = [bool(town.any_name.said.search(text)) for text in ("in Kansai", "in OSAKA", "at home")]
    assert found == [True, True, False]


@pytest.mark.parametrize(
    ("text", "name"),
    [("salt lake", "salt lake"), ("salt water", "salt water"), ("salt mine", "salt"), ("東大阪です", "東大阪")],
)
def test_the_longest_name_of_a_place_wins(path, text, name):
    there = load_language(path).attributes["home_town"].places["there"]
    assert there.said.findall(text) == [name]


def test_names_of_places_are_no_regular_expressions(path):
    change(path.parent / "places.yaml", "salt lake", "st. george")
    there = load_language(path).attributes["home_town"].places["there"].said
    assert there.search("st. george")
    assert not there.search("sty george")


def test_values_may_be_numbers_and_forms_may_be_left_out(path):
    change(path, "{female: a woman, male: a man}", "{female: a woman, male: a man, 20: 21}")
    path.write_text(path.read_text(encoding="utf-8").partition("forms:")[0], encoding="utf-8")
    language = load_language(path)
    assert language.attributes["gender"].values["20"] == "21"
    assert language.forms == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ENGLISH,
            "segmenter: words\nattributes: {gender: both}\n",
            "attributes.gender must be keys and values, got str",
        ),
        (ENGLISH, "segmenter: words\nattributes:\n", "attributes must be keys and values"),
        (ENGLISH[ENGLISH.index("forms:") :], "forms: [laugh]\n", "forms must be keys and values, got list"),
        ("{female: a woman, male: a man}", "[a, b]", "attributes.gender.values must be keys and values, got list"),
        ('{female: "i\'m a woman", male: "i\'m a man"}', "[a, b]", "patterns.states must be keys and values, got list"),
        *(("gender:", f"{name}:", f"an attribute cannot be called {name!r}") for name in ("word", "user", "hour")),
        (
            "    places:\n",
            "    places:\n      area_x: 'in PLACE'\n",
            "'area_x' begins with 'area_', which is for areas",
        ),
        *(
            (
                "    places:\n",
                f"    areas: {{Kansai: {members}}}\n    places:\n",
                "areas.Kansai must be a list of values",
            )
            for members in ("[]", "Osaka", "[Osaka, Umeda]")
        ),
        ("'i live in PLACE'", "'i live (in|near) PLACE'", "places.lives must have no groups of its own"),
        ("forms:", "shapes:", "english.yaml: unknown keys ['shapes']"),
        ("segmenter: words\n", "", "lacks ['segmenter']"),
        ("segmenter: words", "segmenter: mecab", "segmenter is 'mecab'; there are unidic (Japanese) and words"),
        ("    written: gender\n", "    writen: gender\n", "unknown keys ['writen'] in attributes.gender; there are"),
        ("    written: gender\n", "", "english.yaml: attributes.gender lacks ['written']"),
        ("    values: places.yaml\n", "", "attributes.home_town lacks ['values']"),
        (
            '"i\'m a man"}',
            '"i\'m (a man"}',
            "attributes.gender.patterns.states.male is no regular expression: missing )",
        ),
        ('"i\'m a man"}', "7}", "attributes.gender.patterns.states.male is no regular expression"),
        ("'are you a man'", "'are you [a man'", "attributes.gender.patterns.confirms.male.asked is no regular"),
        ("'^yes'", "'*yes'", "attributes.gender.patterns.confirms.male.said is no regular expression: nothing to"),
        ("'(?:ha){2,}'", "'(?:ha'", "english.yaml: forms.laugh is no regular expression"),
        ("forms:", "needs: {}\nforms:", "english.yaml: needs must be the last key"),
        ("'(?:ha){2,}'", "ha\nneeds: {forms.grin: [ha]}", "unknown patterns ['forms.grin']; there are ['forms.laugh',"),
        ("'(?:ha){2,}'", "ha\nneeds: {forms.laugh: ha}", "needs.forms.laugh must be a list of strings"),
        ("'(?:ha){2,}'", "ha\nneeds: {forms.laugh: [é]}", "needs.forms.laugh must be a list of strings"),
        ("'i live in PLACE'", "'i live (in PLACE'", "attributes.home_town.places.lives is no regular expression"),
        (", said: '^yes'", "", "attributes.gender.patterns.confirms.male lacks ['said']"),
        ("'^yes'", "'^yes', when: now", "unknown keys ['when'] in attributes.gender.patterns.confirms.male"),
        ("confirms: {male", "confirms: {mail", "patterns.confirms speaks for ['mail']; values are ['female', 'male']"),
        ("'i live in PLACE'", "'i live in'", "home_town.places.lives must have PLACE in it once, got 'i live in'"),
        ("'^PLACE'", "'PLACE or PLACE'", "places.answers must have PLACE in it once, got 'PLACE or PLACE'"),
        ("values: places.yaml", "values: {a: b}", "attributes.home_town.places needs a file of places as values"),
    ],
)
def test_a_wrong_yaml_is_told_where(path, old, new, message):
    change(path, old, new)
    with pytest.raises(ValueError, match=f"english.yaml: .*{re.escape(message.removeprefix('english.yaml: '))}"):
        load_language(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("umeda: [osaka]", "osaka is a name of Osaka and of umeda"),
        ("Kansai: [OSAKA]", "OSAKA is a name of Osaka and of Kansai"),
        ("Kyoto: [84101]", "Kyoto must have a list of names"),
        ("Kyoto: kyoto", "Kyoto must have a list of names"),
        ("Kyoto:", "Kyoto must have a list of names"),
    ],
)
def test_a_wrong_file_of_places_is_told(path, name, message):
    (path.parent / "places.yaml").write_text(PLACES + name)
    with pytest.raises(ValueError, match=rf"places\.yaml: {message}"):
        load_language(path)


@pytest.mark.parametrize("name", ["english.yaml", "places.yaml"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- one\n- two\n", "expected keys and values, got list"),
        ("", "expected keys and values, got NoneType"),
        ("a: [1", "while parsing a flow sequence"),
    ],
)
def test_a_file_that_is_no_mapping_is_told(path, name, content, message):
    (path.parent / name).write_text(content)
    with pytest.raises(ValueError, match=f"{re.escape(name)}: {message}"):
        load_language(path)


@pytest.mark.parametrize("name", ["english.yaml", "places.yaml"])
def test_a_file_that_is_not_there_is_told(path, name):
    (path.parent / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no .*/{re.escape(name)}$"):
        load_language(path)


# ---- the files that come with the project


def keys_twice(node):
    """Keys that a mapping has twice; YAML itself keeps the last of them without a word."""
    if isinstance(node, yaml.SequenceNode):
        return [key for one in node.value for key in keys_twice(one)]
    if not isinstance(node, yaml.MappingNode):
        return []
    keys = [key.value for key, _ in node.value]
    return [key for key in keys if keys.count(key) > 1] + [key for _, one in node.value for key in keys_twice(one)]


def test_a_key_that_is_there_twice_is_found():
    assert keys_twice(yaml.compose("{a: 1, b: [{c: 1, c: 2}]}")) == ["c", "c"]


@pytest.mark.parametrize("file", sorted(PROFILES.glob("*.yaml")), ids=lambda file: file.name)
def test_no_name_is_there_twice(file):
    assert keys_twice(yaml.compose(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("file", "num_values"),
    [
        ("ja.yaml", {"gender": 3, "age": 6, "employment_status": 6, "education": 5, "region_of_residence": 47}),
        ("en.yaml", {"gender": 2, "age": 4, "occupation": 3, "marital_status": 2, "residence": 29}),
    ],
)
def test_our_files_load(file, num_values):
    attributes = load_language(PROFILES / file).attributes
    assert {name: len(attribute.values) for name, attribute in attributes.items()} == num_values
    for attribute in attributes.values():
        assert attribute.patterns or attribute.places
