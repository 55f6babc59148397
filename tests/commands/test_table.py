"""`lightning table` end to end on invented predictions whose every figure is worked out by hand.

Five users, five turns each, two label tokens per turn, all turns of a user alike (so intervals of users are points).
Perplexities: base 2, 4, 8, 16, 32 -> micro 8 (geometric mean), macro 62 / 5 = 12.4.
              LoRA 1, 2, 4, 8, 64  -> micro 2 ** (12 / 5) = 5.28, macro 79 / 5 = 15.8; better for 4 of 5 users.
Ratios: micro 2 ** -0.6 = 66.0 %, macro 15.8 / 12.4 = 127.4 %.
Similarity: base mean(0, 1) = 0.5; LoRA 0.6 but for the last user, who gets empty replies: mean 0.48, change -0.020.
Best: LoRA over all turns and base over users in perplexity, base in similarity; with 5 users nothing can be worse.
"""

import csv
import json
import math
import re
import sys

import pytest
from jsonargparse import ArgumentParser

from artefacts.predictions import Prediction
from commands.table import Table
from evaluation.results.predictions import by_user, read_predictions
from tests.evaluation.encoders import INSTRUMENTS, Directions

BASE, LORA = (2, 4, 8, 16, 32), (1, 2, 4, 8, 64)


def write_system(folder, perplexities, candidates, tokens=2, turns=5, card=None, user="{0}{0}{0}{0}-long-name"):
    """Writes the predictions of one system; `candidates` maps the index of a user to replies."""
    folder.mkdir()
    context = (("partner", "secret"),)
    lines = [
        Prediction(user.format(u), turn, context, "guitar", candidates(u), tokens * math.log(perplexity), tokens).line()
        for u, perplexity in enumerate(perplexities)
        for turn in range(turns)
    ]
    (folder / "predictions.jsonl").write_text("".join(lines))
    if card:
        (folder / "predictions.card.json").write_text(json.dumps(card))
    return folder / "predictions.jsonl"


def without_likelihoods(path):
    lines = [json.loads(line) | {"nll": None, "tokens": None} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def systems(tmp_path):
    """The two systems of the docstring."""
    base = write_system(tmp_path / "b", BASE, lambda u: ["violin", "guitar"], card={"commit": "abc", "split": "s1"})
    lora = write_system(tmp_path / "l", LORA, lambda u: ["drums"] if u < 4 else [""], card={"decoding": {"top_p": 0.9}})
    return {"base": base, "LoRA": lora}


def cells(markdown, first):
    """The cells of the Markdown row that starts with `first`."""
    (row,) = [line for line in markdown.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def without_interval(cell):
    """The value of a cell with its mark."""
    return re.sub(r" \[.*\]", "", cell)


def run(systems, output, **settings):
    """Runs the table with the fake encoder."""
    settings = {"num_resamples": 2000, **settings}
    Table(systems, output, encoder=Directions(INSTRUMENTS, "fake-encoder"), **settings).run()
    return (output / "table.md").read_text(encoding="utf-8")


def test_markdown_holds_the_figures_worked_out_by_hand(systems, tmp_path, capsys):
    """Every kind of cell; the table is printed as it is written, with the places of the files."""
    output = tmp_path / "out"
    markdown = run(systems, output)
    assert cells(markdown, "0000-lon") == [
        "0000-lon", "5", "2.00 [2.00, 2.00]", "0.500 [0.500, 0.500]",
        "1.00 [1.00, 1.00]", "0.600 [0.600, 0.600]", "50.0 [50.0, 50.0]", "+0.100 [+0.100, +0.100]",
    ]  # fmt: skip
    assert cells(markdown, "4444-lon")[4:] == [
        "64.00 [64.00, 64.00]", "0.000 [0.000, 0.000]", "200.0 [200.0, 200.0]", "-0.500 [-0.500, -0.500]",
    ]  # fmt: skip
    values = [without_interval(cell) for cell in cells(markdown, "**micro**")]
    assert values == ["**micro**", "25", "8.00 =", "**0.500**", "**5.28**", "0.480 =", "66.0", "-0.020"]
    values = [without_interval(cell) for cell in cells(markdown, "**macro**")]
    assert values == ["**macro**", "", "**12.40**", "**0.500**", "15.80 =", "0.480 =", "127.4", "-0.020"]
    assert cells(markdown, "**better**")[6:] == ["4 of 5 users", "4 of 5 users"]
    # 25 x (violin, guitar): 2 of 50 words; 20 x drums and 5 empty: 1 of 20 words, 20 / 25 as long, nothing shared
    base, lora = ([without_interval(cell) for cell in cells(markdown, name)] for name in ("base", "LoRA"))
    assert base[:4] == ["base", "0.040", "0.000", "1.000"]
    assert lora[:4] + lora[-1:] == ["LoRA", "0.050", "0.000", "0.800", "25"]
    printed = capsys.readouterr().out
    assert markdown in printed
    assert "With fewer than 20 users, overall intervals may cover less than they say." in markdown
    assert all(f"wrote {output / name}" in printed for name in ("table.md", "table.tex", "table.csv", "table.png"))


def test_without_single_users_a_system_is_a_row(systems, tmp_path):
    """The same overall figures; no user in any file, and the picture is of systems."""
    run(systems, tmp_path / "out")
    of_users = (tmp_path / "out" / "table.png").read_bytes()
    markdown = run(systems, tmp_path / "out", per_user=False)
    assert (tmp_path / "out" / "table.png").read_bytes() != of_users
    table = markdown.split("\n\n")[1]
    values = {name: [without_interval(cell) for cell in cells(table, name)] for name in systems}
    assert values["base"] == ["base", "8.00 =", "-", "**12.40**", "-", "", "**0.500**", "-"]
    assert values["LoRA"] == ["LoRA", "**5.28**", "66.0", "15.80 =", "127.4", "4 of 5 users", "0.480 =", "-0.020"]
    with (tmp_path / "out" / "table.csv").open(encoding="utf-8", newline="") as lines:
        assert {row["user"] for row in csv.DictReader(lines)} == {"(micro)", "(macro)", "(corpus)"}


def test_what_is_not_installed_shows_before_anything_is_run(systems, tmp_path, monkeypatch):
    monkeypatch.setattr("commands.table.run_before", lambda *_: pytest.fail("something was run"))
    with pytest.raises(FileNotFoundError, match="sentence encoder 'nowhere'"):
        Table(systems, tmp_path / "out", encoder="nowhere", before=["fit"]).run()
    monkeypatch.setattr("evaluation.metrics.mauve.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[mauve\]'; or set mauve=false"):
        run(systems, tmp_path / "out", mauve=True)


def test_caption_and_latex_name_what_the_figures_depend_on(systems, tmp_path):
    """Encoder, users, turns, tokens, cards, resamples."""
    markdown = run(systems, tmp_path / "out")
    words = ("encoder fake-encoder", "95 % BCa bootstrap, 2,000 resamples, seed 0", "count words")
    assert not [word for word in words if word not in markdown]
    assert '- LoRA: 50 label tokens; decoding {"top_p": 0.9}.' in markdown
    latex = (tmp_path / "out" / "table.tex").read_text(encoding="utf-8")
    assert latex.count(r"\begin{table}") == 2
    for line in ("5 users, 25 test turns.", "base: 50 label tokens; commit abc; split s1."):
        assert f"- {line}" in markdown and rf"\item {{}}{line}" in latex
    assert r"\item {}[low, high]: 95 \% BCa" in latex  # brackets behind \item would be its label
    assert latex.endswith("\\end{itemize}}\n")


def test_without_an_encoder_there_is_no_similarity(systems, tmp_path):
    """Nothing is encoded, nothing is said of it."""
    Table(systems, tmp_path / "out", encoder=None, per_user=False, num_resamples=200).run()
    markdown = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    heading = [cell.strip() for cell in markdown.splitlines()[2].split("|")[1:-1]]
    assert heading == ["system", "ppl", "% of base", "macro ppl", "macro %", "better for"]
    assert "sim:" not in markdown
    assert "similarity" not in (tmp_path / "out" / "table.csv").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="without an encoder there is no similarity to show"):
        Table(systems, tmp_path / "out", encoder=None)


@pytest.mark.parametrize(("commit", "ending"), [("abc-dirty", "\n- Table made by commit abc-dirty.\n"), (None, "}.\n")])
def test_a_table_says_what_code_made_it(systems, tmp_path, monkeypatch, commit, ending):
    monkeypatch.setattr("evaluation.report.files.git_commit", lambda: commit)
    assert run(systems, tmp_path / "out").endswith(ending)


def test_without_anything_to_compare_there_is_a_table_and_no_picture(systems, tmp_path):
    """No likelihoods, no encoder: texts are left. Then one system with likelihoods behind one without."""
    silent = without_likelihoods(systems["LoRA"])
    settings = {"encoder": None, "per_user": False, "num_resamples": 200}
    for name, found in (("neither", {"silent": silent}), ("second", {"silent": silent, "base": systems["base"]})):
        Table(found, tmp_path / name, **settings).run()
        assert "chrF" in (tmp_path / name / "table.md").read_text(encoding="utf-8")
        assert (tmp_path / name / "table.png").exists() == (name == "second")


def test_csv_is_tidy_and_its_perplexities_are_those_of_the_sums(systems, tmp_path):
    """Full user names, full precision, encoder in the name of every similarity; overall intervals hold the value."""
    run(systems, tmp_path / "out")
    with (tmp_path / "out" / "table.csv").open(encoding="utf-8", newline="") as lines:
        rows = {(row["system"], row["user"], row["metric"]): row for row in csv.DictReader(lines)}
    of_texts = 2 * (6 + 5 * 3) + 1  # of two systems, with what their five users have; one has two candidates: self-BLEU
    assert len(rows) == 7 * (2 + 4) + of_texts
    assert float(rows["LoRA", "0000-long-name", "similarity:fake-encoder"]["value"]) == pytest.approx(0.6)
    assert {key[2] for key in rows if "similarity" in key[2]} == {
        "similarity:fake-encoder", "similarity_change:fake-encoder",
    }  # fmt: skip
    for name, path in systems.items():
        records = read_predictions(path)
        micro, macro = rows[name, "(micro)", "perplexity"], rows[name, "(macro)", "perplexity"]
        sums = {user: (sum(p.nll for p in own), sum(p.tokens for p in own)) for user, own in by_user(records).items()}
        nll, tokens = map(sum, zip(*sums.values(), strict=True))
        assert float(micro["value"]) == pytest.approx(math.exp(nll / tokens))
        assert float(macro["value"]) == pytest.approx(sum(math.exp(n / t) for n, t in sums.values()) / len(sums))
        assert float(micro["low"]) < float(micro["value"]) < float(micro["high"])
        assert (micro["n"], macro["n"]) == ("25", "5")
    assert rows["base", "(corpus)", "distinct-1"]["low"] == ""


def test_no_text_of_people_and_no_leftovers(systems, tmp_path):
    """Neither replies nor contexts reach the outputs; the picture is a PNG; temporary names are gone."""
    run(systems, tmp_path / "out")
    names = [f"table.{suffix}" for suffix in ("csv", "md", "png", "tex")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    written = (tmp_path / "out" / "table.md").read_text() + (tmp_path / "out" / "table.csv").read_text()
    assert not any(word in written for word in ("guitar", "violin", "drums", "secret", str(tmp_path)))
    assert (tmp_path / "out" / "table.png").read_bytes().startswith(b"\x89PNG")


def test_failure_while_writing_keeps_the_old_file(systems, tmp_path, monkeypatch):
    """Half a picture never replaces a whole one: files are renamed into place, not written over."""
    run(systems, tmp_path / "out")
    first = (tmp_path / "out" / "table.md").stat().st_ino
    run(systems, tmp_path / "out")
    assert (tmp_path / "out" / "table.md").stat().st_ino != first
    before = (tmp_path / "out" / "table.png").read_bytes()

    def half(figure, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("evaluation.report.files.save_png", half)
    with pytest.raises(OSError, match="disk full"):
        run(systems, tmp_path / "out")
    assert (tmp_path / "out" / "table.png").read_bytes() == before
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_few_users_and_few_turns_have_no_intervals(tmp_path):
    """Four users of four turns: no brackets anywhere, and the caption says why; long alike names become numbers."""
    path = write_system(tmp_path / "b", BASE[:4], lambda u: ["guitar"], turns=4, user="speaker_{0}")
    markdown = run({"base": path}, tmp_path / "out")
    assert cells(markdown, "user001") == ["user001", "4", "2.00", "1.000"]
    assert cells(markdown, "**macro**") == ["**macro**", "", "7.50", "1.000"]
    assert "Only 4 users, fewer than 5: no overall intervals, and no tests." in markdown
    assert "Bold" not in markdown  # one system, nothing to compare
    worse = write_system(tmp_path / "w", [9 * n for n in BASE[:4]], lambda u: ["guitar"], turns=4, user="speaker_{0}")
    markdown = run({"base": path, "worse": worse}, tmp_path / "out")
    assert "Bold is the best system; nothing is tested." in markdown
    assert " = |" not in markdown and "**7.50**" in markdown


def test_other_tokenizer_gives_no_perplexity_ratio(systems, tmp_path):
    """Perplexities over other label tokens do not compare; similarity still does."""
    other = write_system(tmp_path / "o", LORA, lambda u: ["drums"], tokens=3)
    markdown = run({"base": systems["base"], "other": other}, tmp_path / "out")
    assert cells(markdown, "user")[2:] == ["base ppl", "base sim", "other ppl", "other sim", "other-base sim"]
    assert "**5.28**" not in markdown  # nor a best one: only one system is left
    assert cells(markdown, "**micro**")[6].startswith("+0.100")
    assert "- other: 75 label tokens; not the label tokens of base, so no perplexity ratio." in markdown


def test_systems_that_do_not_compare_are_refused(systems, tmp_path):
    """Other pairs, another backbone, another split, no system at all; nothing is written."""
    fewer = write_system(tmp_path / "f", BASE[:4], lambda u: ["drums"])
    with pytest.raises(ValueError, match=r"5 only in 'base' \(first: 4444-long-name/0"):
        run({"base": systems["base"], "fewer": fewer}, tmp_path / "out")
    cards = {"old": ("UserLora", "0123456789abcdef"), "new": ("ProfileSeq2Seq", "fedcba9876543210")}
    tuned, plain = (
        write_system(tmp_path / name, BASE, lambda u: ["drums"], card={"system": system, "backbone": backbone})
        for name, (system, backbone) in cards.items()
    )
    with pytest.raises(
        ValueError, match=r"'LoRA' was tuned from another backbone \(0123456789ab\) than those beside it"
    ):
        run({"LoRA": tuned, "base": plain}, tmp_path / "out")
    split = write_system(tmp_path / "s", BASE, lambda u: ["drums"], card={"split": "s2"})
    with pytest.raises(ValueError, match="different test splits: s1 and s2"):
        run({"base": systems["base"], "split": split}, tmp_path / "out")
    with pytest.raises(ValueError, match="systems: expected at least one"):
        Table({}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_signature_is_the_schema(systems, tmp_path):
    """A YAML file is parsed into the arguments, and the docstring is the help."""
    parser = ArgumentParser()
    parser.add_class_arguments(Table, None)
    config = tmp_path / "table.yaml"
    config.write_text(f"systems:\n  base: {systems['base']}\noutput: {tmp_path / 'out'}\nseed: 3\n")
    settings = parser.parse_path(config)
    assert Table(**vars(settings)).systems == {"base": systems["base"]}
    if sys.flags.optimize < 2:  # -OO strips docstrings
        assert "the first is the reference" in " ".join(parser.format_help().split())


def test_what_is_significantly_worse_has_no_mark(tmp_path):
    """Ten users, all served best by one system: p = 2 / 2 ** 10, times 10 (two others, five figures) = 0.0195."""
    replies = {"best": "guitar", "next": "drums", "last": "violin"}  # cosines 1, 0.6, 0
    three = {
        name: write_system(tmp_path / name, [(2 + user) * (1 + place) for user in range(10)], lambda u, r=reply: [r])
        for place, (name, reply) in enumerate(replies.items())
    }
    micro = cells(run(three, tmp_path / "out"), "**micro**")
    assert [cell.startswith("**") for cell in micro] == [True, False, True, True] + [False] * 8
    assert not any("=" in cell for cell in micro)


def test_a_system_without_likelihoods_is_scored_by_its_texts(systems, tmp_path):
    without_likelihoods(systems["LoRA"])
    markdown = run(systems, tmp_path / "out")
    # base perplexity 8 and similarity 0.5; no perplexity, so no ratio, but similarity 0.48 and change -0.02.
    micro = cells(markdown, "**micro**")
    assert [cell.split()[0] for cell in micro[2:]] == ["8.00", "**0.500**", "-", "0.480", "-0.020"]
    assert "LoRA: no likelihoods" in markdown
    overall = run(systems, tmp_path / "overall", per_user=False)
    assert re.search(r"\| LoRA +\| - +\| - +\| 0.480", overall)


def test_what_a_test_has_left_has_a_table_of_its_own(systems, tmp_path):
    """The second system has been tested, the first not; a test that is no longer of the weights is left out."""
    run_directory = systems["LoRA"].parent
    (run_directory / "test_users.csv").write_text("user,own_nll,own_tokens,train_nll,train_tokens\nann,3,1,2,1\n")
    card = {"backbone": None, "split": None}
    (run_directory / "test_users.card.json").write_text(json.dumps(card))
    markdown = run(systems, tmp_path / "out")
    assert [line for line in markdown.splitlines() if re.fullmatch(r"\| LoRA +\| \+1.000 +\|", line)]
    assert "gap: nats per token of held-out" in markdown
    assert "LoRA,(macro),loss_gap,1.0,,,1" in (tmp_path / "out" / "table.csv").read_text()
    (run_directory / "test_users.card.json").unlink()
    systems["base"].with_name("test_users.csv").write_text(
        "user,own_nll,own_tokens,train_nll,train_tokens\na,3,1,2,1\n"
    )
    systems["base"].with_name("test_users.card.json").write_text(json.dumps({"split": "s1"}))
    markdown = run(systems, tmp_path / "out")
    assert "LoRA: its test is left out" in markdown
