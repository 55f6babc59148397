"""The page for annotators and its key: what is drawn, what is merged, what is left out, what is never shown."""

import configparser
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from commands.human_eval import HumanEvalExport
from evaluation.human.page import REAL, json_in_html, usable_pairs
from evaluation.results.predictions import read_predictions

USERS = ("uid-ada", "uid-ben", "uid-cleo")
TURNS = 12
ROOT = Path(__file__).parents[3]


def write_system(path, candidate, card=None, turns=TURNS, context=lambda user, turn: [["partner", f"hello {turn}"]]):
    """Writes the predictions of one system; `candidate` maps user and turn to its reply."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for user in USERS:
            for turn in range(turns):
                record = {"user": user, "pair_id": turn, "context": context(user, turn), "nll": None, "tokens": None}
                record |= {"reference": f"really {user[4:]} {turn}", "candidates": [candidate(user, turn), "second"]}
                file.write(json.dumps(record) + "\n")
    if card:
        path.with_suffix(".card.json").write_text(json.dumps(card))
    return path


@pytest.fixture
def systems(tmp_path):
    base = write_system(tmp_path / "b" / "predictions.jsonl", lambda u, t: f"base of {u[4:]} {t}", {"commit": "abc"})
    return {"sys-base": base, "sys-lora": write_system(tmp_path / "l" / "p.jsonl", lambda u, t: f"lora {t}")}


def export(systems, output, **settings):
    """Runs the export; gives the page's data, the key and the page."""
    HumanEvalExport(systems, output, **{"num_users": 2, "num_examples": 3, **settings}).run()
    html = (output / "page.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])
    return data, json.loads((output / "key.json").read_text()), html


def test_the_key_fits_the_page(systems, tmp_path):
    data, key, _ = export(systems, tmp_path / "out")
    assert data["page"] == key["page"]
    assert [item["id"] for item in data["items"]] == list(key["items"])
    assert key["systems"] == {"sys-base": ["commit abc"], "sys-lora": []}
    tasks = [item["task"] for item in data["items"]]
    assert tasks == ["choice"] * 4 + ["rating"] * 6  # 2 people: 2 choices each, 1 pair each with 3 replies
    for item, answer in zip(data["items"], key["items"].values(), strict=True):
        user, turn = answer["user"], answer["pair_id"]
        texts = {REAL: f"really {user[4:]} {turn}", "sys-lora": f"lora {turn}"}
        texts["sys-base"] = f"base of {user[4:]} {turn}"
        assert [texts[source] for (source,) in answer["replies"]] == item["replies"]
        assert item["context"] == [[False, f"hello {turn}"]]
        assert all(text.startswith(f"really {user[4:]} ") for text in data["persons"][item["person"]])
    rated = [answer["replies"][0] for answer in key["items"].values() if answer["task"] == "rating"]
    assert sorted(rated) == [[REAL]] * 2 + [["sys-base"]] * 2 + [["sys-lora"]] * 2


def test_the_page_is_blinded_and_needs_no_network(systems, tmp_path):
    _, key, html = export(systems, tmp_path / "out")
    for secret in (*USERS, "sys-", "pair_id", "abc", *map(str, systems.values())):
        assert secret not in html, secret
    assert not re.search(r"https?:|//\w|@import|url\(|src=", html)
    assert "default-src 'none'" in html
    assert all(re.fullmatch("[0-9a-f]{16}", item_id) for item_id in key["items"])


def test_the_seed_decides_users_pairs_and_orders(systems, tmp_path):
    first, again, other = (export(systems, tmp_path / str(n), seed=seed)[:2] for n, seed in enumerate((1, 1, 2)))
    assert first == again
    assert first[0]["items"] != other[0]["items"]
    places = Counter()
    for seed in range(30):
        _, key, _ = export(systems, tmp_path / f"s{seed}", seed=seed)
        places.update(a["replies"].index([REAL]) for a in key["items"].values() if a["task"] == "choice")
    assert min(places[place] for place in range(3)) > 24  # of 120 choices 40 are expected, 5.2 is one deviation


def test_nothing_on_the_page_gives_an_answer_away(systems, tmp_path):
    """The reply to turn t stands in the context of turns t + 1 and t + 2, as in one dialogue."""

    def context(user, turn):
        return [["speaker", f"really {user[4:]} {turn - 2}"], ["speaker", f"really {user[4:]} {turn - 1}"]]

    for name, path in systems.items():
        write_system(path, lambda u, t, name=name: f"{name[4:]} {t}", context=context)
    for seed in range(10):
        data, key, _ = export(systems, tmp_path / str(seed), num_users=3, choices_per_user=1, seed=seed)
        answers = {f"really {a['user'][4:]} {a['pair_id']}" for a in key["items"].values()}
        shown = {text for texts in data["persons"] for text in texts}
        shown |= {text for item in data["items"] for _, text in item["context"]}
        assert not answers & shown
        assert len(answers) == 6  # the two tasks have different pairs


def test_same_texts_are_one_option_and_empty_replies_stay(tmp_path):
    replies = {0: "really ada 0", 1: "really ada 1", 2: "", 3: "same "}
    one = write_system(tmp_path / "1.jsonl", lambda u, t: replies.get(t, "one"), turns=5)
    two = write_system(tmp_path / "2.jsonl", lambda u, t: "same" if t else "really ada 0", turns=5)
    pairs = usable_pairs({"one": read_predictions(one), "two": read_predictions(two)}, context_turns=0)["uid-ada"]
    assert [pair.pair_id for pair in pairs] == [1, 2, 3, 4]  # turn 0: both gave the real reply
    assert pairs[0].replies == {"really ada 1": (REAL, "one"), "same": ("two",)}
    assert pairs[1].replies == {"really ada 2": (REAL,), "": ("one",), "same": ("two",)}
    assert pairs[2].replies == {"really ada 3": (REAL,), "same": ("one", "two")}
    assert pairs[0].context == ()


def test_any_text_survives_and_none_ends_the_script():
    nasty = '</script><!--<script>&amp;\u2028\u2029"\\ \ud800 猫'
    text = json_in_html([nasty])
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == [nasty]


def test_the_key_of_another_page_is_never_lost(systems, tmp_path):
    export(systems, tmp_path / "out")
    before = (tmp_path / "out" / "key.json").read_text()
    with pytest.raises(ValueError, match=r"key\.json is the key of another page"):
        export(systems, tmp_path / "out", seed=1)
    export(systems, tmp_path / "out")
    assert (tmp_path / "out" / "key.json").read_text() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_users": 4}, "only 3 of 3 users have 3 reply pairs to ask about and 3 other replies"),
        ({"choices_per_user": 20}, "only 0 of 3 users"),
        ({"num_users": 0}, "num_users must be at least 1, got 0"),
        ({"context_turns": -1}, "context_turns must be at least 0"),
        ({"choices_per_user": 0, "ratings_per_user": 0}, "nothing would be asked"),
    ],
)
def test_bad_settings(systems, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        export(systems, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_bad_systems(systems, tmp_path):
    with pytest.raises(ValueError, match="expected at least one"):
        export({}, tmp_path / "out")
    with pytest.raises(ValueError, match="give the system another name"):
        export({REAL: systems["sys-base"]}, tmp_path / "out")
    short = write_system(tmp_path / "short.jsonl", lambda u, t: "x", turns=11)
    with pytest.raises(ValueError, match="3 only in 'sys-base'"):
        export({**systems, "short": short}, tmp_path / "out")
    for name, split in (("sys-base", "s1"), ("sys-lora", "s2")):
        systems[name].with_suffix(".card.json").write_text(json.dumps({"split": split}))
    with pytest.raises(ValueError, match="different test splits"):
        export(systems, tmp_path / "out")


def test_an_installed_package_has_the_page():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["evaluation.human"] == "page.html"
    assert {path.suffix for path in (ROOT / "evaluation").rglob("*") if path.is_file()} <= {".py", ".html", ".pyc"}
