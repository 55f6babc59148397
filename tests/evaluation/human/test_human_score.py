"""Scores of answers worked out by hand.

Five users, each with one choice (options: real, base) and two rated replies (real, base); two annotators.
Choices: ann takes the real reply of users 0 to 3, bob of users 0 to 2: real 7 of 10, base 3 of 10. Option numbers: ann
1 1 1 1 2, bob 1 1 1 2 2. Coincidences: 11 thrice, each 2 -> 6; 12 and 21 one each; 22: 2. Totals 7, 3; n = 10.
D_o = 2, D_e = 2 * 7 * 3 / 9 = 14 / 3, alpha = 1 - 3 / 7 = 0.571.
Marks: real is natural 5 and like 4 for both; base natural 1 for ann, 2 for bob, like 3 for both.
"""

import csv
import json

import pytest

from commands.human_eval import HumanEvalScore

REAL, BASE = ["real reply"], ["base"]
ASKED = {"c": ("choice", [REAL, BASE]), "r": ("rating", [REAL]), "b": ("rating", [BASE])}
KEY = {
    "page": "f00d",
    "systems": {"base": ["commit abc"]},
    "items": {
        f"{letter}{user}": {"task": task, "user": f"u{user}", "pair_id": 1, "replies": replies}
        for letter, (task, replies) in ASKED.items()
        for user in range(5)
    },
}


def answers(name="ann", taken=(1, 1, 1, 1, 2), natural=1, users=5):
    """What one annotator saved."""
    found = [{"item": f"c{u}", "taken": taken[u]} for u in range(users)]
    found += [{"item": f"r{u}", "naturalness": 5, "likeness": 4} for u in range(users)]
    found += [{"item": f"b{u}", "naturalness": natural, "likeness": 3} for u in range(users)]
    return {"page": "f00d", "annotator": name, "answers": found}


def score(folder, *annotations, key=KEY, **settings):
    """Writes the files, scores them and gives the Markdown."""
    paths = []
    for name, content in {"key": key, **{f"a{n}": content for n, content in enumerate(annotations)}}.items():
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(content))
    HumanEvalScore(paths[0], paths[1:], **{"num_resamples": 500, **settings}).run()
    return (folder / "table.md").read_text()


def cells(markdown, first):
    (row,) = [line for line in markdown.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_table_holds_the_figures_worked_out_by_hand(tmp_path, capsys):
    markdown = score(tmp_path, answers(), answers("bob", (1, 1, 1, 2, 2), 2))
    assert markdown in capsys.readouterr().out
    real, base = cells(markdown, "real reply"), cells(markdown, "base")
    assert real[1].startswith("70.0 [") and base[1].startswith("30.0 [")
    assert real[2:] == ["50.0", "5.00 [5.00, 5.00]", "4.00 [4.00, 4.00]"]
    assert base[2:] == ["50.0", "1.50 [1.50, 1.50]", "3.00 [3.00, 3.00]"]
    alpha = cells(markdown, "**Krippendorff's alpha**")
    assert alpha[1:3] == ["0.57", "-"] and alpha[4] == "1.00"
    assert "2 annotators, 5 users, 5 choices and 10 rated replies each; page f00d" in markdown
    assert "- base: commit abc." in markdown
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    (taken,) = [row for row in rows if (row["reply_of"], row["figure"]) == ("real reply", "taken")]
    assert (taken["value"], taken["num_items"]) == ("0.7", "5")
    assert 0.0 <= float(taken["low"]) < 0.7 < float(taken["high"]) <= 1.0


def test_a_reply_of_several_counts_for_each_in_equal_parts(tmp_path):
    """Item 0: both gave option 1. Real: (1/2 + 1 + 1 + 1 + 0) / 5; chance (1/4 + 4 / 2) / 5 = 45 %."""
    items = {**KEY["items"], "c0": {**KEY["items"]["c0"], "replies": [["real reply", "base"], ["other"]]}}
    items["r0"] = {**items["r0"], "replies": [["real reply", "base"]]}
    key = {**KEY, "items": items, "systems": {"base": [], "other": []}}
    markdown = score(tmp_path, answers(), key=key)
    assert cells(markdown, "real reply")[1].startswith("70.0 [") and cells(markdown, "real reply")[2] == "45.0"
    assert cells(markdown, "base")[1].startswith("30.0 [")
    assert cells(markdown, "other")[1:] == ["0.0 [0.0, 0.0]", "10.0", "-", "-"]
    assert cells(markdown, "base")[3].startswith("1.67 [")  # (5 + 5 * 1) / 6: the shared reply is rated once


def test_agreement_is_of_several_annotators_and_undefined_on_one_and_the_same_answer(tmp_path):
    markdown = score(tmp_path, answers())
    assert "**Krippendorff's alpha**" not in markdown
    assert "One annotator: no Krippendorff's alpha, which is of two or more." in markdown
    markdown = score(tmp_path, answers(taken=[1] * 5), answers("bob", [1] * 5))
    assert cells(markdown, "**Krippendorff's alpha**")[1:3] == ["-", "-"]
    assert "- where all answers are the same" in markdown


def test_few_users_have_no_intervals(tmp_path):
    key = {**KEY, "items": {name: item for name, item in KEY["items"].items() if item["user"] != "u4"}}
    markdown = score(tmp_path, answers(users=4), key=key)
    assert cells(markdown, "real reply")[1:] == ["100.0", "50.0", "5.00", "4.00"]
    assert "Only 4 users, fewer than 5: no intervals." in markdown
    assert "bootstrap" not in markdown


def changed(**fields):
    """Answers with another field somewhere."""
    return {**answers(), **fields}


def with_answers(change):
    return changed(answers=change(answers()["answers"]))


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (changed(page="beef"), "answers of page beef, the key is that of page f00d"),
        (with_answers(lambda a: a[1:]), "item c0: missing, it is not answered"),
        (with_answers(lambda a: [*a, a[3]]), "item c3: answered 2 times"),
        (with_answers(lambda a: [*a, {"item": "zz", "taken": 1}]), "item zz: unknown, it is not in the key"),
        (with_answers(lambda a: [*a, 7]), r"item \?: unknown"),
        (with_answers(lambda a: [{"item": "c0", "taken": 3}, *a[1:]]), "item c0: taken must be .* 1 to 2, got 3"),
        (with_answers(lambda a: [{"item": "c0"}, *a[1:]]), "item c0: taken must be .*, got None"),
        (with_answers(lambda a: [*a[:-1], {**a[-1], "likeness": 6}]), "item b4: likeness must be .* 1 to 5, got 6"),
        (with_answers(lambda a: [*a[:-1], {**a[-1], "likeness": True}]), "item b4: likeness must be .* got True"),
        (with_answers(lambda a: [*a[:-1], {**a[-1], "item": [1]}]), r"item \[1\]: unknown"),
        (changed(annotator=None), "expected the keys 'annotator'"),
        ([1], "expected a JSON object, got list"),
    ],
)  # fmt: skip
def test_bad_answers_are_refused_by_name(tmp_path, annotation, problem):
    with pytest.raises(ValueError, match=rf"a1\.json: {problem}") as error:
        score(tmp_path, answers("bob"), annotation)
    assert "a0.json" not in str(error.value)
    assert not (tmp_path / "table.md").exists()


def test_all_problems_are_said_at_once(tmp_path):
    broken = with_answers(lambda a: a[2:])
    with pytest.raises(ValueError) as error:
        score(tmp_path, broken, {**broken, "annotator": "bob"}, answers(), answers("cy", natural=0))
    said = str(error.value).splitlines()[1:]
    assert len(said) == 2 + 2 + 1 + 5
    assert any("a2.json: a second file of annotator 'ann', the first is" in line for line in said)


def test_bad_files_and_settings(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"key\.json: no such file"):
        HumanEvalScore(tmp_path / "key.json", [tmp_path / "a.json"]).run()
    (tmp_path / "key.json").write_text("{")
    with pytest.raises(ValueError, match=r"key\.json: not valid JSON"):
        HumanEvalScore(tmp_path / "key.json", [tmp_path / "a.json"]).run()
    with pytest.raises(ValueError, match=r"key\.json: not the key of a page, it has no systems, items"):
        score(tmp_path, answers(), key=answers())
    with pytest.raises(ValueError, match="at least one file"):
        HumanEvalScore(tmp_path / "key.json", [])
    with pytest.raises(ValueError, match="num_resamples"):
        HumanEvalScore(tmp_path / "key.json", [tmp_path / "a.json"], num_resamples=0)
