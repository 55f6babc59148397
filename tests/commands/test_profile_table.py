"""`lightning profile_table` on judgements whose figures are worked out by hand.

Eight people say Ball or Chess (five and three: majority 0.625). The first system is right for users 0 to 5 (0.75) with
posteriors 0.95, 0.85, ..., 0.25; the second is right for everybody, always with 0.9.
"""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands.cli import main
from commands.profile_table import ProfileTable
from evaluation.results.profile_judgements import read_judgements

LABELS = ["Ball"] * 5 + ["Chess"] * 3
POSTERIORS = [0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25]


def write(path, rights, posteriors, labels=LABELS, decision="vote"):
    """A user has a right and a wrong chunk, whatever is decided."""
    rows = []
    for user, (label, right, posterior) in enumerate(zip(labels, rights, posteriors, strict=True)):
        wrong = "Chess" if label == "Ball" else "Ball"
        common = {"user": f"user {user}", "is_short": user >= 6, "attribute": "sport"}
        common |= {"label": label, "posterior": posterior}
        rows.append({**common, "decision": decision, "value": label if right else wrong})
        rows += [{**common, "decision": "chunk", "value": value} for value in (label, wrong)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def systems(tmp_path):
    return {
        "words": write(tmp_path / "words.parquet", [True] * 6 + [False] * 2, POSTERIORS),
        "network": write(tmp_path / "network.parquet", [True] * 8, [0.9] * 8),
    }


def lines_of_table(systems, output, *flags):
    named = [f"--systems.{name}={path}" for name, path in systems.items()]
    main(["profile_table", *named, f"--output={output}", *flags])
    return list(csv.DictReader((output / "table.csv").open()))


def test_figures_by_hand(systems, tmp_path, capsys):
    words, network = lines_of_table(systems, tmp_path / "out")
    assert (words["system"], words["num_users"], float(words["majority"])) == ("words", "8", 0.625)
    assert [float(words[name]) for name in ("chunk", "user", "change")] == [0.5, 0.75, 0.0]
    # One person in each bin: (0.05 + 0.15 + ... + 0.55 + 0.35 + 0.25) / 8.
    assert float(words["ece"]) == pytest.approx((0.05 + 0.15 + 0.25 + 0.35 + 0.45 + 0.55 + 0.35 + 0.25) / 8)
    assert [float(words[f"at_{share}"]) for share in (25, 50, 75)] == [1.0, 1.0, 1.0]
    assert [float(network[name]) for name in ("user", "user_low", "user_high", "change")] == [1.0, 1.0, 1.0, 0.25]
    assert float(network["ece"]) == pytest.approx(0.1)  # all in one bin
    low, high = float(network["change_low"]), float(network["change_high"])
    assert low == 0.0  # a tenth of all resamples (0.75 ** 8) have nobody whom only one of them gets right
    assert 0.5 <= high <= 0.75
    printed = capsys.readouterr().out
    assert "| sport (8 users) | majority |       | 0.625" in printed
    assert (tmp_path / "out" / "table.png").stat().st_size > 10_000


def test_only_users_with_a_whole_chunk(systems, tmp_path, capsys):
    words, _ = lines_of_table(systems, tmp_path / "out", "--whole_chunk_only=true")
    # Without users 6 and 7 there are five who play Ball and one who plays Chess, and the first system is right for all.
    assert (words["num_users"], float(words["majority"]), float(words["user"])) == ("6", pytest.approx(5 / 6), 1.0)
    assert "fewer posts than one chunk are left out" in capsys.readouterr().out


def test_coverage_ties_and_order(tmp_path):
    path = write(tmp_path / "one.parquet", [False, True, False, True], [0.2, 0.9, 0.9, 0.5], LABELS[3:7])
    found = read_judgements(path, "vote")["sport"]
    assert found.covered().tolist() == [1.0, 0.5, pytest.approx(2 / 3), 0.5]
    assert np.abs(found.bins(1).sum()) == pytest.approx(abs(2 - 2.5))


def test_an_interval_covers_what_the_binomial_says(tmp_path):
    rights = [number % 4 != 0 for number in range(200)]
    path = write(tmp_path / "many.parquet", rights, [0.75] * 200, ["Ball", "Chess"] * 100)
    (row,) = lines_of_table({"one": path}, tmp_path / "out", "--num_resamples=4000")
    error = 1.96 * np.sqrt(0.75 * 0.25 / 200)
    assert float(row["user_low"]) == pytest.approx(0.75 - error, abs=0.015)
    assert float(row["user_high"]) == pytest.approx(0.75 + error, abs=0.015)


def test_mistakes_are_named(systems, tmp_path):
    def table(**more):
        ProfileTable({**systems, **more}, tmp_path / "out").run()

    with pytest.raises(FileNotFoundError, match="no judgements in .*gone.parquet; `lightning test` of a profile"):
        table(gone=tmp_path / "gone.parquet")
    other = write(tmp_path / "other.parquet", [True] * 8, [0.9] * 8, ["Chess", *LABELS[1:]])
    with pytest.raises(ValueError, match="sport: words was judged on 8 users and other on 8, or their labels differ"):
        table(other=other)
    with pytest.raises(ValueError, match="has no decisions by 'vote'"):
        table(product=write(tmp_path / "product.parquet", [True] * 8, [0.9] * 8, decision="product"))
    rows = pq.read_table(other).to_pylist()
    pq.write_table(pa.Table.from_pylist([{**row, "attribute": "age"} for row in rows]), tmp_path / "age.parquet")
    with pytest.raises(ValueError, match=r"words has no judgements of \['age'\]; put a system first that has them"):
        table(age=tmp_path / "age.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="broken.parquet is damaged or truncated"):
        table(broken=tmp_path / "broken.parquet")
    pq.write_table(pa.table({"user": ["a"]}), tmp_path / "columns.parquet")
    with pytest.raises(ValueError, match="lacks the columns"):
        table(columns=tmp_path / "columns.parquet")
    with pytest.raises(ValueError, match="expected at least one"):
        ProfileTable({}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
