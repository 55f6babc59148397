"""Figures of weights on five invented users, by hand.

Nats per token: held out 3, training 2.5, others' adapters 4 with 10 tokens each; but of the last user others' adapters
have 2, so that the own one wins for 4 of 5: others/own = exp((4 * 4 + 2) / 5 - 3) = exp(0.6). Signed ranks of the
differences 1, 1, 1, 1, -1: two-sided exact p = 12 / 32 = 0.375.
General: 4 nats per token under each user's weights, 3 under the reference's: exp(4), ratio e.
"""

import math
import shutil

import pytest

from artefacts.described import rewrite
from artefacts.run_card import weights_in
from artefacts.user_sums import write_user_sums
from evaluation.report.captions import caption_of_weights
from evaluation.report.cells import Cells
from evaluation.report.score_tables import system_rows
from evaluation.results.test_sums import read_test
from evaluation.scores.registry import FIGURES
from evaluation.scores.weight_scores import WEIGHT_FIGURES, weight_scores
from evaluation.statistics.bootstrap import Bootstrap

USERS = ["ann", "bob", "cy", "dot", "eve"]


def write(run, general=40.0, own=30.0, **card):
    kinds = {"own": (own, 10), "train": (25.0, 10), "general": (general, 10), "other": (80.0, 20)}
    sums = {kind: dict.fromkeys(USERS, pair) for kind, pair in kinds.items()}
    sums["other"]["eve"] = (40.0, 20)
    swaps = {
        adapter: {user: (own if user == adapter else 20.0 if user == "eve" else 40.0, 10) for user in USERS}
        for adapter in USERS
    }
    card = {"backbone": "b1", "split": "s1", "train_turns": 5, "general_pairs": 7, **card}
    write_user_sums(run, sums, swaps, card)
    return run


def test_figures_by_hand(tmp_path):
    tests = {
        "base": read_test(write(tmp_path / "base", general=30.0), {}),
        "LoRA": read_test(write(tmp_path / "lora"), {"backbone": "b1", "split": "s1"}),
    }
    scores = {(s.system, s.metric): s for s in weight_scores(tests, "base", Bootstrap(500, 0))}
    expected = {"loss_gap": 0.5, "general_perplexity": math.exp(4), "general_ratio": math.e}
    expected |= {"others_to_own": math.exp(0.6), "own_adapter_best": 4, "own_adapter_wins": 0.8, "own_adapter_p": 0.375}
    assert {metric: s.value for (name, metric), s in scores.items() if name == "LoRA"} == pytest.approx(expected)
    assert ("base", "general_ratio") not in scores
    assert scores["LoRA", "general_perplexity"].low is None  # the same sums for all: no sample of anything
    swapped = scores["LoRA", "others_to_own"]
    assert math.exp(-1) <= swapped.low < swapped.value < swapped.high <= math.e
    rows = system_rows(Cells(scores.values(), {}, FIGURES), WEIGHT_FIGURES, ["base", "LoRA", "retrieval"], "base")
    assert rows[2][:4] == ["LoRA", "+0.500", "54.60", "271.8"]
    assert rows[2][5:] == ["4 of 5", "80%", "0.38"]
    assert rows[3] == ["retrieval", *[""] * 7]


def test_samples_of_another_size_have_no_ratio(tmp_path):
    tests = {name: read_test(write(tmp_path / name, general_pairs=size), {}) for name, size in (("a", 7), ("b", 8))}
    sizes = " Of 5 training turns of a user at most, 7 or 8 general pairs, taken as they are."
    assert caption_of_weights(tests).endswith(sizes)
    assert "general_ratio" not in {score.metric for score in weight_scores(tests, "a", Bootstrap(50, 0))}


def test_what_is_not_of_these_weights_is_refused(tmp_path):
    assert read_test(tmp_path, {}) is None
    (tmp_path / "run/adapters/ann").mkdir(parents=True)
    (tmp_path / "run/adapters/ann/card.json").write_text("{}")
    run = write(tmp_path / "run", weights=weights_in(tmp_path / "run/adapters"))
    assert read_test(shutil.copytree(run, tmp_path / "copy"), {}) == read_test(run, {})  # whatever the times of files
    with pytest.raises(ValueError, match="is of backbone b1, the predictions beside it are of b2; delete"):
        read_test(run, {"backbone": "b2"})
    (run / "adapters" / "ann" / "card.json").write_text('{"trained": "again"}')
    with pytest.raises(ValueError, match="is of other weights than"):
        read_test(run, {})
    (run / "test_users.card.json").unlink()
    with pytest.raises(ValueError, match="that test was not finished"):
        read_test(run, {})


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("test_users.csv", "zoe,x,1,1,1,1,1,1,1", "line 7: expected numbers in own_nll and own_tokens"),
        ("test_users.csv", "zoe,-1,1,1,1,1,1,1,1", "line 7: own_nll and own_tokens must be finite and not negative"),
        ("test_users.csv", ",1,1,1,1,1,1,1,1", "line 7: there is no user"),
        ("swaps.csv", "eve,eve,1,1", "line 27: the adapter 'eve' is missing or comes twice"),
        ("swaps.csv", "zoe,zoe,1,1", "lacks the adapters of"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, line, message):
    run = write(tmp_path / "run")
    with (run / file).open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(ValueError, match=f"{file} is not the file that .*test_users.card.json describes.*; delete"):
        read_test(run, {})
    rewrite(run / file, (run / file).read_text())
    with pytest.raises(ValueError, match=message):
        read_test(run, {})
