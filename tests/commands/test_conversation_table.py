"""`lightning conversation_table` on conversations whose figures are worked out by hand.

Six users, each with words of their own. In blocks of two turns everybody says one turn a block. The models of ada and
ben, cleo and dan, eve and fay talk: in the first block as themselves, in the second each says what the partner would.
"""

import csv
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import conversation_table
from commands.cli import main
from commands.conversation_table import ConversationTable
from commands.experiments import child_process
from commands.experiments.child_process import Run
from evaluation.metrics.identification import UserClassifier
from evaluation.report.conversation_report import draw
from evaluation.results.conversations import read_parts
from evaluation.scores.conversation_scores import FIGURES, ConversationScore, figures_of_parts

SAYS = {
    "ada": "stars comet orbit",
    "ben": "bread flour oven",
    "cleo": "xylophone zither",
    "dan": "MMMM KKKK",
    "eve": "1234 5678",
    "fay": "???? !!!!",
}
PAIRS = [("ada", "ben"), ("cleo", "dan"), ("eve", "fay")]


def said(system, number, turn, speaker, text):
    return {"system": system, "conversation": number, "turn": turn, "speaker": speaker, "text": text}


def lines():
    found = []
    for number, (one, two) in enumerate(PAIRS):
        found += [said("own", number, 0, None, "hello"), said("base", number, 0, None, "hello")]
        for turn, (speaker, author) in enumerate(((one, one), (two, two), (one, two), (two, one)), start=1):
            found.append(said("own", number, turn, speaker, SAYS[author]))
            found.append(said("base", number, turn, speaker, "hello" if turn > 2 else f"hmm {number}{turn}"))
    for number, user in enumerate(SAYS):
        found += [said("real", number, 1, None, "so"), said("real", number, 2, user, SAYS[user])]
    return found


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Conversations, and what a network says of them; the table of both."""
    path = tmp_path / "conversations.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines()))
    monkeypatch.setattr(
        conversation_table, "training_turns", lambda _: {user: [text] * 6 for user, text in SAYS.items()}
    )
    monkeypatch.setattr(conversation_table, "check_corpus", lambda *_: None)
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    # Everybody is told to be young without any text, and so are all but ada and ben in their second block.
    rows = [(f"{fingerprint}/prior/0/0-0/{user}", "age", "young") for user in SAYS]
    for number, pair in enumerate(PAIRS):
        for user in pair:
            for span in ("1-2", "3-4", "1-4"):
                told = "old" if span == "3-4" and user in ("ada", "ben") else "young"
                rows.append((f"{fingerprint}/own/{number}/{span}/{user}", "age", told))
    # Profiles: ada is old and in Osaka, ben young, the others old; fay has none.
    known = [("ada", "age", "old"), ("ada", "city", "Osaka"), ("ben", "age", "young")]
    known += [(user, "age", "old") for user in ("cleo", "dan", "eve")]
    for name, table in (("judged", rows), ("profiles", known)):
        columns = dict(zip(("user", "attribute", "value"), zip(*table, strict=True), strict=True))
        pq.write_table(pa.table({key: list(values) for key, values in columns.items()}), tmp_path / f"{name}.parquet")
    return tmp_path


def flags(root, *more):
    files = [f"--{name}={root / name}.parquet" for name in ("judged", "profiles")]
    given = [f"--conversations={root / 'conversations.jsonl'}", "--prepared=none", f"--output={root / 'out'}", *files]
    return ["conversation_table", *given, "--block_turns=2", "--num_resamples=200", *more]


def test_figures_by_hand(written):
    main(flags(written))
    rows = list(csv.DictReader((written / "out" / "table.csv").open()))
    found = {(row["system"], row["first_turn"], row["figure"]): float(row["value"]) for row in rows}
    own, floor = "own adapters", "own adapters, held to be the partner (floor)"
    assert [found[own, first, "recognised"] for first in "13"] == [1, 0]
    assert [found[floor, first, "recognised"] for first in "13"] == [0, 1]
    assert [found[own, first, "MRR"] > 0.99 for first in "13"] == [True, False]
    assert found["real turns (ceiling)", "1", "recognised"] == 1
    # ada 0 of 2, ben 1 of 1, the three others 0 of 1; fay has no profile. Then ada 1 of 2, ben 0 of 1.
    assert [found[own, first, "agreement"] for first in "13"] == pytest.approx([1 / 5, 0.5 / 5])
    assert [found[own, first, "agreement so far"] for first in "13"] == pytest.approx([1 / 5, 1 / 5])
    assert found["without any text", "", "agreement so far"] == pytest.approx(1 / 5)
    # ada's city is told neither with nor without text: the same nothing.
    assert found[own, "3", "as without text"] == 1
    # ada as ben (young) 1, ben as ada 0, cleo, dan and fay as somebody old 0; eve as fay, who has no profile.
    assert found[floor, "1", "agreement"] == pytest.approx(1 / 5)
    assert [found[own, first, "repeated"] for first in "13"] == [0, 1]
    assert [found["backbone", first, "repeated"] for first in "13"] == [0, 1]  # the opening counts
    assert found["chance", "", "recognised"] == pytest.approx(1 / 6)
    assert found["chance", "", "MRR"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 6) / 6)
    assert {row["num_speakers"] for row in rows if row["figure"] == "agreement"} == {"5"}
    low_high = {(row["low"], row["high"]) for row in rows if (row["system"], row["figure"]) == (own, "recognised")}
    assert low_high == {("1.0", "1.0"), ("0.0", "0.0")}
    assert (written / "out" / "table.png").stat().st_size > 10_000
    assert r"\toprule" in (written / "out" / "table.tex").read_text()
    markdown = (written / "out" / "table.md").read_text()
    assert not [text for text in [*SAYS.values(), "hello"] if text in markdown]


def test_distinct_bigrams_of_a_part(tmp_path):
    path = tmp_path / "c.jsonl"
    texts = ["a b a b", "c", "a b", "c d"]
    turns = [said("own", 0, turn + 1, "xy"[turn % 2], text) for turn, text in enumerate(texts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in turns))
    x, y = read_parts(path, block_turns=4)
    assert (x.turns, y.turns, x.partner) == (("a b a b", "a b"), ("c", "c d"), "y")
    classifier = UserClassifier({"x": ["a b"], "y": ["c d"]})
    ((_, found),) = figures_of_parts([x, y], classifier, None, "word").items()
    assert found["x"][0, FIGURES.index("distinct-2")] == 2 / 4  # ab, ba, ab and ab
    assert found["y"][0, FIGURES.index("distinct-2")] == 1


def test_without_profiles_there_is_recognition_only(written):
    ConversationTable(written / "conversations.jsonl", written, written / "out", block_turns=2, num_resamples=50).run()
    figures = {row["figure"] for row in csv.DictReader((written / "out" / "table.csv").open())}
    assert figures == {"recognised", "MRR", "repeated", "distinct-2"}


def test_the_same_on_another_backbone(written, tmp_path, monkeypatch):
    """The files are where the commands before have written them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.yaml").write_text("model: {init_args: {init_from: runs/small/backbone}}")
    (tmp_path / "judge.yaml").write_text("data: {init_args: {conversations: runs/talk/conversations.jsonl}}")
    (tmp_path / "large").mkdir()
    for run, file in (("talk_large", "conversations.jsonl"), ("judge_large", "judged.parquet")):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / file).rename(tmp_path / "runs" / run / file)
    begun = []

    async def run_lightning(arguments, log, environment=None):
        begun.append(" ".join(arguments))
        return Run(Path("runs") / f"{Path(arguments[2]).stem}_large", None, 1.0)

    monkeypatch.setattr(child_process, "run_lightning", run_lightning)
    table = ConversationTable(
        Path("runs/talk/conversations.jsonl"),
        written,
        tmp_path / "out",
        judged=Path("runs/judge/judged.parquet"),
        profiles=tmp_path / "profiles.parquet",
        before=["predict --config talk.yaml", "predict --config judge.yaml"],
        backbone=Path("large"),
        block_turns=2,
        num_resamples=50,
        wandb_project="trial",
    )
    with pytest.raises(ValueError, match="no backbone in large"):
        table.run()
    (tmp_path / "large" / "manifest.json").touch()
    monkeypatch.setenv("WANDB_MODE", "offline")
    table.run()
    assert begun == [
        "predict --config talk.yaml --model.init_from=large",
        "predict --config judge.yaml --data.conversations=runs/talk_large/conversations.jsonl",
    ]
    lines = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert "agreement" in {line["figure"] for line in lines}
    (logged,) = (tmp_path / "out" / "wandb").glob("offline-run-*/files/media/table/*.table.json")
    assert len(json.loads(logged.read_text())["data"]) == len(lines)


def test_what_is_wrong_is_said(written):
    def error(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        return str(stop.value.code)

    assert "give both or neither" in error(*flags(written)[:4], f"--judged={written / 'judged.parquet'}")
    assert "set block_turns to the data.block_turns" in error(*flags(written, "--block_turns=3"))
    assert "no profiles in" in error(*flags(written, f"--judged={written / 'none.parquet'}"))
    path = written / "conversations.jsonl"
    path.write_text(path.read_text() + json.dumps(said("own", 9, 1, "ada", "hm")) + "\n")
    assert "is about the conversations" in error(*flags(written))
    path.write_text(path.read_text() + json.dumps(said("own", 9, 1, "ada", "secret")) + "\n")
    told = error(*flags(written))
    assert "line 44: turn 1 of this conversation comes twice" in told and "secret" not in told
    path.write_text('{"system": "own", "turn": 1}\n')
    assert "missing or of another type: ['conversation', 'speaker', 'text']" in error(*flags(written))
    assert "make them with: lightning predict" in error(*flags(written, f"--conversations={written / 'none.jsonl'}"))


def test_of_many_blocks_some_are_named_below_the_picture():
    lines = [ConversationScore("own", 2 * n + 1, 2 * n + 2, "recognised", 0.5, 0.4, 0.6, 24) for n in range(20)]
    (panel,) = draw(lines, "title").axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1-2", "9-10", "17-18", "25-26", "33-34"]
    (panel,) = draw(lines[:4], "title").axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1-2", "3-4", "5-6", "7-8"]
