"""How far a system speaks like the person, on invented people whose every figure is worked out by hand; and the table
around it: rows that fail, the paper's column, a curve.

Five people, four turns each, all of one type of context. Each has a word of their own; references, training turns and
the good system's replies consist of that word, the bad system says the next person's.
"""

import csv
import json
import math
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from artefacts.predictions import Prediction
from artefacts.run_card import weights_in
from commands.experiments.experiment import Experiment
from commands.table import Table
from evaluation.metrics.similarity import TextEncoder
from evaluation.report.cells import Cells
from evaluation.report.score_tables import person_rows
from evaluation.results.predictions import read_predictions
from evaluation.scores.person_scores import OTHERS, OWN, REAL, PersonTable
from evaluation.scores.registry import FIGURES
from evaluation.scores.standings import standings_of
from evaluation.statistics.bootstrap import Bootstrap
from tests.evaluation.encoders import Directions

WORDS = ["amber", "birch", "cedar", "delta", "ember"]
PEOPLE = [f"person {word}" for word in WORDS]


def said(word):
    """Six times the word: two 5-grams."""
    return " ".join([word] * 6)


# Every word has a direction of its own; texts of one word repeated have that of the word.
ENCODER = Directions(
    {text: direction for word, direction in zip(WORDS, np.eye(5), strict=True) for text in (word, said(word))},
    "one-direction-each",
)


def write(folder, shift, nll=1.0, candidates=2):
    """Predictions of a system that says the word of the person `shift` places on, in each of its candidates."""
    folder.mkdir()
    path = folder / "predictions.jsonl"
    with path.open("w") as file:
        for place, user in enumerate(PEOPLE):
            replies = (said(WORDS[(place + shift) % 5]),) * candidates
            for turn in range(4):
                reference, context = said(WORDS[place]), (("partner", "well"),)
                file.write(Prediction(user, 10 * place + turn, context, reference, replies, nll, 1).line())
    return path


TRAINING = {user: [said(word)] * 3 for user, word in zip(PEOPLE, WORDS, strict=True)}
TABLE = PersonTable(TRAINING, TextEncoder(ENCODER), "word", Bootstrap(200, 0))


@pytest.fixture
def systems(tmp_path):
    return {"good": write(tmp_path / "good", 0), "bad": write(tmp_path / "bad", 1, nll=2.0)}


@pytest.fixture
def people(tmp_path, monkeypatch):
    """A prepared corpus with the training turns of the people."""
    monkeypatch.setattr("evaluation.report.system_report.training_turns", lambda _: TRAINING)
    monkeypatch.setattr("evaluation.results.systems.check_corpus", lambda *_: None)
    return tmp_path


def test_every_figure_by_hand(systems):
    scores = TABLE.scores({name: read_predictions(path) for name, path in systems.items()})
    heading, *rows = person_rows(Cells(scores, {}, FIGURES), list(systems))
    found = {row[0]: [cell.split(" ")[0].strip("*") for cell in row[1:]] for row in rows}
    assert len(heading) == 9
    # All 20 turns of "good" are right, recognised, and stand word for word in training: two of two 5-grams each.
    assert found["good"] == ["1.000"] * 6 + ["100.0%"] * 2
    # "bad" is never near, never ranked first; but its 5-grams are not its user's.
    assert found["bad"][:4] == ["0.000"] * 4
    assert found["bad"][6:] == ["0.0%"] * 2
    assert found[OTHERS] == ["0.000"] * 2 + [""] * 6
    assert found[OWN] == ["1.000"] * 2 + [""] * 6
    assert found[REAL] == [""] * 3 + ["1.000"] * 3 + ["100.0%"] * 2
    assert all("[" in cell for cell in rows[0][1:])


def test_marks_and_what_there_is_nothing_of(systems):
    """Every user's figure of "good" is the higher one: p is 1/32 and, times the six figures, no longer significant."""
    predictions = {name: read_predictions(path) for name, path in systems.items()}
    short = [replace(p, candidates=[p.candidates[0].split()[0]] * 2, reference="amber") for p in predictions["good"]]
    scores = TABLE.scores(predictions)
    standings = standings_of(scores, ["good", "bad"])
    _, good, bad, *_ = person_rows(Cells(scores, standings, FIGURES), ["good", "bad"])
    assert good[1].startswith("**1.000**") and bad[1].endswith(" =")
    assert not good[7].startswith("**")  # copying is neither better nor worse
    _, row, *_ = person_rows(Cells(TABLE.scores({"short": short}), {}, FIGURES), ["short"])
    assert row[7] == "-"  # not one 5-gram
    assert row[8].startswith("0.0%")


def test_the_best_of_more_candidates_is_not_compared(systems, people):
    lines = [json.loads(line) for line in systems["bad"].read_text().splitlines()]
    twice = [line | {"candidates": [*line["candidates"], line["reference"]]} for line in lines]
    systems["bad"].write_text("".join(json.dumps(line) + "\n" for line in twice))
    run(systems, people / "out", prepared=people)
    metrics = {metric for system, _, metric in values_of(people / "out" / "table.csv") if system == "bad"}
    assert "recognised" in metrics and not metrics & {"best_of_n", "coverage"}
    markdown = (people / "out" / "table.md").read_text()
    assert "- bad: other numbers of candidates than good, so no best of n and no coverage." in markdown


def test_the_best_of_one_candidate_is_no_figure_of_its_own(people):
    """It is the similarity, which would be tested twice."""
    systems = {name: write(people / name, shift, candidates=1) for name, shift in [("good", 0), ("bad", 1)]}
    run(systems, people, prepared=people)
    *_, heading = tables_of(people / "table.md")
    assert heading[:4] == ("system", "sim", "coverage", "recognised")
    assert "best of n" not in (people / "table.md").read_text()
    assert "best_of_n" not in (people / "table.csv").read_text()


def test_predictions_of_earlier_weights_are_refused(systems, tmp_path):
    adapter = systems["bad"].parent / "adapters" / "ann"
    adapter.mkdir(parents=True)
    (adapter / "card.json").write_text("{}")
    weights = weights_in(systems["bad"].parent / "adapters")
    (systems["bad"].parent / "predictions.card.json").write_text(json.dumps({"weights": weights}))
    run(systems, tmp_path / "out")
    (adapter / "card.json").write_text('{"trained": "again"}')
    with pytest.raises(ValueError, match="bad/predictions.jsonl was made with other weights than those beside it"):
        run(systems, tmp_path / "out")


def test_persons_that_cannot_be_compared_are_left_out_with_the_reason(systems, people, tmp_path, monkeypatch):
    training = {user: turns for user, turns in TRAINING.items() if user != PEOPLE[0]}
    monkeypatch.setattr("evaluation.report.system_report.training_turns", lambda _: training)
    run(systems, tmp_path / "out", prepared=tmp_path)
    markdown = (tmp_path / "out" / "table.md").read_text()
    reason = "1 of 5 users have no training turns, such as 'person amber'."
    assert f"- The table with the persons is left out: {reason}" in markdown
    one = {}
    for name, path in systems.items():
        one[name] = path.with_name(f"{name}_one.jsonl")
        one[name].write_text("".join(path.read_text().splitlines(keepends=True)[4:8]))
    run(one, tmp_path / "one", prepared=tmp_path)
    assert "is left out: a user is told from other users" in (tmp_path / "one" / "table.md").read_text()


def test_a_prepared_corpus_that_is_damaged_stops_the_table(systems, people, tmp_path, monkeypatch):
    damaged = Mock(side_effect=ValueError("tokenizer.json is damaged"))
    monkeypatch.setattr("evaluation.report.system_report.training_turns", damaged)
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        run(systems, tmp_path / "out", prepared=tmp_path)
    assert not (tmp_path / "out" / "table.md").exists()


def test_figures_of_persons_and_runs_are_in_the_file_for_machines(systems, people):
    adapter = systems["good"].parent / "adapters" / "ann"
    adapter.mkdir(parents=True)
    save_file({"A": torch.zeros(3, 4)}, adapter / "adapter_model.safetensors")
    (systems["good"].parent / "fit.card.json").write_text('{"metrics": {"val/best_macro_perplexity": 84.5}}')
    run(systems, people / "out", prepared=people, paper={"good": 0.57})
    found = values_of(people / "out" / "table.csv")
    assert len({user for _, user, _ in found}) == 4  # nobody by name
    assert {metric.partition(":")[0] for _, _, metric in found} <= set(FIGURES)  # each can be asked for
    assert found["good", "(run)", "paper_similarity"] == 0.57
    assert found["good", "(run)", "adapter_parameters"] == 12
    assert found["good", "(run)", "validation_perplexity"] == 84.5
    for metric in ("best_of_n", "coverage", "recognised", "in_first_5", "MRR", "copied_5-grams", "copied_replies"):
        assert found["good", "(macro)", metric] == 1.0
    assert found["bad", "(macro)", "MRR"] < 0.6
    assert found[OWN, "(macro)", "similarity:one-direction-each"] == 1.0
    assert found[OTHERS, "(macro)", "similarity:one-direction-each"] == 0.0
    markdown = (people / "out" / "table.md").read_text()
    first, *_ = tables_of(people / "out" / "table.md").values()
    of_runs = ["sim in the paper", "macro ppl in validation", "parameters of an adapter", "kB on disk"]
    assert list(first["good"])[-4:] == of_runs
    assert list(first["good"].values())[-4:-1] == ["0.57", "84.50", "12"]
    assert list(first["bad"].values())[-4:] == [""] * 4
    assert "sim in the paper (Otsuka et al. 2024): of 222M parameters, Japanese, other people" in markdown
    assert "it does not compare. It is the best that is reported, of which prompt" in markdown


def run(systems, output, **settings):
    Table(systems, output, encoder=ENCODER, num_resamples=200, per_user=False, **settings).run()


def values_of(path):
    """The figures in a CSV file: (system, user, metric) -> value."""
    with path.open(newline="") as file:
        return {(row["system"], row["user"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}


def tables_of(path):
    """The Markdown tables of a file: heading -> cells of every row, by name and heading."""
    found, heading = {}, None
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells or not cells[0].strip("-"):
            heading = heading if cells else None
        elif heading is None:
            heading = cells
            found[tuple(heading)] = {}
        else:
            found[tuple(heading)][cells[0]] = dict(zip(heading[1:], cells[1:], strict=True))
    return found


def test_a_table_shows_the_scores_that_it_names(systems, people):
    """Cells and marks, and the file for machines, are those of the whole table."""
    run(systems, people / "all", prepared=people)
    names = ["perplexity", "perplexity_ratio", "coverage", "chrF", "loss_gap"]
    run(systems, people / "some", prepared=people, scores=names)
    everything, some = (tables_of(people / name / "table.md") for name in ("all", "some"))
    assert list(some) == [
        ("system", "ppl", "% of good", "macro ppl", "macro %", "better for"),
        ("system", "chrF", "replies"),
        ("system", "coverage"),
    ]
    for shown, whole in zip(some.values(), everything.values(), strict=True):
        assert shown == {name: {key: whole[name][key] for key in row} for name, row in shown.items()}
    assert some["system", "coverage"].keys() == {"good", "bad"}  # no floor and no ceiling of it
    assert some["system", "coverage"]["good"]["coverage"].startswith("**1.000**")
    assert (people / "all" / "table.csv").read_bytes() == (people / "some" / "table.csv").read_bytes()
    markdown = (people / "some" / "table.md").read_text()
    assert "- Not in this table, though asked for: loss_gap." in markdown
    assert "distinct-n" not in markdown and "encoder one-direction-each" not in markdown


def test_what_a_score_needs_is_said_before_anything_is_made(systems, tmp_path):
    for name, message in (
        ("ppl", "there is no 'ppl'; there are"),
        ("coverage", "'coverage' needs `prepared: <directory"),
        ("MAUVE", "'MAUVE' needs `mauve: true`"),
    ):
        with pytest.raises(ValueError, match=f"scores: {message}"):
            Table(systems, tmp_path / "out", scores=[name])
    with pytest.raises(ValueError, match="scores: 'similarity' needs an encoder"):
        Table(systems, tmp_path / "out", encoder=None, per_user=False, scores=["similarity"])
    with pytest.raises(ValueError, match=r"this table has none of \['loss_gap'\]; it has \['perplexity', "):
        run(systems, tmp_path / "out", scores=["loss_gap"])
    assert not (tmp_path / "out" / "table.md").exists()


def test_the_reference_is_the_first_system_even_if_it_has_nothing_of_what_is_shown(systems, people):
    systems["single"] = write(people / "single", 0, candidates=1)
    run(systems, people / "out", scores=["perplexity_ratio", "self-BLEU"])
    first, texts = tables_of(people / "out" / "table.md").values()
    assert list(first["bad"]) == ["% of good", "macro %", "better for"]
    assert texts["single"] == {"self-BLEU": "-", "replies": "20"}


def test_rows_that_fail_are_in_the_table_and_the_command_fails(systems, tmp_path, monkeypatch):
    results = {"broken": None, "other split": tmp_path / "other", "curved": tmp_path / "bad"}
    short = write(tmp_path / "other", 0)
    short.write_text(short.read_text().splitlines()[0] + "\n")

    def collect(wanted, logs, jobs):
        assert jobs == 1
        paths = {n: results[n] / "predictions.jsonl" if n in results else path for n, path in wanted.items()}
        return paths, {}

    monkeypatch.setattr("commands.table.collect", collect)
    wanted = {"good": systems["good"], "other split": Experiment("x.yaml"), "curved": Experiment("y.yaml", {"rank": 4})}
    with pytest.raises(ValueError, match="1 of 3 systems failed, the others are in the table"):
        run(wanted, tmp_path / "out", curve="rank", paper={"good": 0.57, "other split": 0.57})
    markdown = (tmp_path / "out" / "table.md").read_text()
    first, *_ = tables_of(tmp_path / "out" / "table.md").values()
    assert first["good"]["ppl"].startswith(f"**{math.e:.2f}**")
    assert first["good"]["sim in the paper"] == "0.57"
    assert first["other split"]["ppl"] == "failed"
    assert first["curved"]["ppl"].startswith(f"{math.e**2:.2f}")
    assert "- other split failed: systems 'good' and 'other split' cannot be compared" in markdown
    assert (tmp_path / "out" / "table.png").stat().st_size > 5_000
    assert r"\toprule" in (tmp_path / "out" / "table.tex").read_text()
    with pytest.raises(ValueError, match="1 of 3 systems failed"):
        run(wanted, tmp_path / "texts", scores=["chrF"])
    (rows,) = tables_of(tmp_path / "texts" / "table.md").values()
    assert rows["other split"] == {"chrF": "failed", "replies": ""} and rows["curved"]["replies"] == "40"


def test_self_bleu_stands_where_there_are_several_candidates(systems, tmp_path):
    systems["single"] = write(tmp_path / "single", 0, candidates=1)
    run(systems, tmp_path / "out")
    _, texts = tables_of(tmp_path / "out" / "table.md").values()
    found = {name: (row["self-BLEU"], row["replies"]) for name, row in texts.items()}
    same = ("100.0 [100.0, 100.0]", "40")  # two candidates that are the same
    assert found == {"good": same, "bad": same, "single": ("-", "20")}


def test_scores_are_logged_as_a_table_of_wandb(systems, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(systems, tmp_path / "out", wandb_project="trial")
    (logged,) = (tmp_path / "out" / "wandb").glob("offline-run-*/files/media/table/*.table.json")
    found = json.loads(logged.read_text())
    assert found["columns"][:4] == ["system", "user", "metric", "value"]
    assert ["good", "(micro)", "perplexity", pytest.approx(math.e)] in [row[:4] for row in found["data"]]


def test_settings_that_do_not_go_together(systems, tmp_path):
    with pytest.raises(ValueError, match="there is no system 'none'"):
        run(systems, tmp_path / "out", paper={"none": 0.57})
    with pytest.raises(ValueError, match="no system that was scored overrides 'rank'"):
        run(systems, tmp_path / "out", curve="rank")
    with pytest.raises(ValueError, match="set per_user=false"):
        Table(systems, tmp_path, curve="rank")


def test_a_command_before_that_fails_stops_the_table(systems, tmp_path, monkeypatch, capsys):
    from commands.experiments.child_process import Run

    async def fail(arguments, log):
        return Run(None, f"no {arguments[1]}", 1.0)

    monkeypatch.setattr("commands.experiments.child_process.run_lightning", fail)
    with pytest.raises(ValueError, match="before: lightning prepare corpus: no corpus"):
        run(systems, tmp_path / "out", before=["prepare corpus"])
    assert not (tmp_path / "out" / "table.md").exists()
    assert "[before, 1 of 1] prepare corpus: failed: no corpus" in capsys.readouterr().out
