"""`PromptedLLM`: what it is told of whom, and the whole command with a local model and with an endpoint."""

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fitting import QUIET
from lightning import Trainer

from callbacks import PredictionWriter
from commands.cli import main
from datamodules import UserSets
from datamodules.prompts.template import PromptTemplate
from lightning_modules import PromptedLLM
from lightning_modules.chat.models import ChatDecoding, ChatModel
from lightning_modules.chat.wording import ChatWording

WORDING = ChatWording(task="Go.", profile="Who:", examples="Before:", conversation="Now:", speaker="Me", partner="You")
REPLIES = [
    ([("partner", "do you like tea?")], "very much"),
    ([("partner", "a comet!")], "where?"),
    ([("speaker", "hi"), ("partner", "tea, please?")], "here you are"),
    ([("partner", "is there bread")], "no"),
]


class Parrot(ChatModel):
    """Says what it was asked, and keeps it."""

    name = "parrot"

    def open(self, device):
        self.asked = []

    def replies(self, prompts, decoding):
        self.asked += [message["content"] for (message,) in prompts]
        self.usage.answers += len(prompts) * decoding.num_candidates
        return [[f"A: {number}\nB: well" for number in range(decoding.num_candidates)] for _ in prompts]


def told(monkeypatch, style="psp", **settings):
    """A module whose only user, ben, has four training replies."""
    module = PromptedLLM(Parrot(), wording=WORDING, **settings)
    prompts = SimpleNamespace(template=PromptTemplate(style), profiles={"ben": {"age": "old", "city": "Osaka"}})
    replies = {"training_replies": {"ben": REPLIES}.__getitem__, "similar_replies": similar_replies}
    data = SimpleNamespace(prompts=prompts, **replies)
    monkeypatch.setattr(PromptedLLM, "trainer", SimpleNamespace(datamodule=data))
    return module


def similar_replies(user, context, k):
    """What `UserSets` finds for ben: the most similar contexts first."""
    assert (user, context) == ("ben", CONTEXT)
    return [REPLIES[0], REPLIES[2], REPLIES[1], REPLIES[3]][:k]


CONTEXT = [("partner", "you like tea?")]
NOW = "Now:\n\nYou: you like tea?\nMe:"
WHO = "Who: age: old, city: Osaka"
SHOWN = [
    "You: do you like tea?\nMe: very much",
    "You: a comet!\nMe: where?",
    "Me: hi\nYou: tea, please?\nMe: here you are",
    "You: is there bread\nMe: no",
]


@pytest.mark.parametrize(
    ("settings", "examples"),
    [
        ({"told": "profile"}, []),
        ({"told": "examples", "num_examples": 2}, [0, 3]),
        ({"told": "examples", "num_examples": 9}, [0, 1, 2, 3]),
        ({"told": "retrieved", "num_examples": 2}, [2, 0]),  # the most similar last
    ],
)
def test_what_a_model_is_told(monkeypatch, settings, examples):
    shown = ["Before:", *(SHOWN[index] for index in examples)] if examples else []
    assert told(monkeypatch, **settings).message("ben", CONTEXT) == "\n\n".join(["Go.", WHO, *shown, NOW])


def test_the_profile_can_be_left_out(monkeypatch):
    module = told(monkeypatch, told="examples", num_examples=1)
    module.trainer.datamodule.prompts.profiles = {}
    assert module.message("ben", CONTEXT) == "\n\n".join(["Go.", "Before:", SHOWN[0], NOW])


@pytest.mark.parametrize(("style", "kind"), [("none", "profile"), ("ppp", "profile"), ("ppp", "retrieved")])
def test_a_prompt_it_cannot_write_is_refused(monkeypatch, style, kind):
    with pytest.raises(ValueError, match=f"data.prompt.style is {style}: use psp"):
        told(monkeypatch, style, told=kind).on_predict_start()
    with pytest.raises(ValueError, match="num_examples must be 1 or more, got 0"):
        PromptedLLM(Parrot(), num_examples=0)


def test_every_test_turn_is_asked_once_and_examples_are_training_turns(preparation, tmp_path, capsys):
    """48 turns of each user are for training and 6 for test, so 5 rows a user leave places that are only filled up."""
    data = UserSets(preparation, users=["ada", "cleo"], rows_per_user=5, max_context_tokens=1000)
    module = PromptedLLM(Parrot(), told="retrieved", num_examples=3, decoding=ChatDecoding(num_candidates=2))
    Trainer(**QUIET, default_root_dir=tmp_path, callbacks=[PredictionWriter()]).predict(module, data)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    ids = {split: pq.read_table(preparation.output / "users" / split).to_pylist() for split in ("train", "test")}
    wanted = {str(row["pair_id"]) for row in ids["test"] if row["speaker"] in ("ada", "cleo")}
    assert sorted(line["pair_id"] for line in lines) == sorted(wanted)
    assert all(line["candidates"] == ["0", "1"] for line in lines)
    assert all(line["nll"] is None and line["tokens"] is None for line in lines)
    asked = module.chat_model.asked
    assert len(asked) == len(lines)
    decode = data.prompts.tokenizer.decode
    said = [(row["speaker"], decode(row["response_ids"])) for row in ids["train"]]
    for line, text in zip(lines, asked, strict=True):
        before, now = text.split("\n\nThe conversation now:\n\n")
        names = {"speaker": "A", "partner": "B"}
        assert now == "\n".join(f"{names[author]}: {turn}" for author, turn in line["context"]) + "\nA:"
        examples = before.split("How A has replied in other conversations:\n\n")[1].split("\n\n")
        assert len(examples) == 3
        assert all((line["user"], example.rpartition("\nA: ")[2]) in said for example in examples)
    card = json.loads((tmp_path / "predictions.card.json").read_text())
    assert (card["system"], card["model"], card["prompt"]) == ("PromptedLLM", "parrot", "3 retrieved")
    assert card["usage"]["answers"] == 2 * len(lines)
    assert f"parrot: answers {2 * len(lines)}" in capsys.readouterr().out


# ---- the whole command

LLM_TINY = """# lightning predict --config experiments/llm_tiny.yaml
model:
  class_path: lightning_modules.PromptedLLM
  init_args:
    chat_model: {{class_path: lightning_modules.LocalChatModel, init_args: {{directory: {directory}}}}}
    told: retrieved
    num_examples: 2
    decoding: {{max_new_tokens: 6}}
data:
  class_path: datamodules.UserSets
  init_args:
    preparation: corpora/invented.yaml
    prompt: {{style: psp}}
    profiles: people.parquet
    users: [ada, ben]
trainer:
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [callbacks.PredictionWriter]
"""
ENDPOINT = """
model:
  init_args:
    chat_model:
      class_path: lightning_modules.ChatEndpoint
      init_args: {{model: {directory}, base_url: {url}}}
"""
PREDICT = ["predict", "--config", "experiments/llm_tiny.yaml"]


@pytest.fixture
def llm_project(project, chat_directory):
    people = [{"user": name, "attribute": "age", "value": age} for name, age in (("ada", "old"), ("ben", "young"))]
    pq.write_table(pa.Table.from_pylist(people), "people.parquet")
    Path("experiments/llm_tiny.yaml").write_text(LLM_TINY.format(directory=chat_directory))
    return project


def predicted(run):
    directory = Path("runs", run)
    lines = [json.loads(line) for line in (directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    return lines, json.loads((directory / "predictions.card.json").read_text())


def test_predict_with_a_local_model(llm_project, capsys):
    from evaluation.results.cards import check_same_split, read_card
    from evaluation.results.predictions import check_same_pairs, read_predictions

    main([*PREDICT, "--model.chat_model.rows_at_once=3"])
    lines, card = predicted("llm_tiny")  # how much is in memory changes no name
    assert {line["user"] for line in lines} == {"ada", "ben"}
    assert (card["model"], card["prompt"], card["backbone"]) == ("chat", "2 retrieved", None)
    assert card["data"]["profiles"] == "people.parquet"
    assert card["usage"]["answers"] == len(lines)
    main(["fit", "--config", "experiments/lora_tiny.yaml", "--data.users=[ada, ben]", "--run=lora"])
    main(["predict", "--config", "experiments/lora_tiny.yaml", "--data.users=[ada, ben]", "--run=lora"])
    paths = [Path("runs", name, "predictions.jsonl") for name in ("llm_tiny", "lora")]
    check_same_pairs("LLM", read_predictions(paths[0]), "LoRA", read_predictions(paths[1]))
    check_same_split("LLM", read_card(paths[0]), "LoRA", read_card(paths[1]))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*PREDICT, "--model.chat_model.rows_at_once=3"])
    assert stop.value.code == 0
    assert "predict of runs/llm_tiny is done already" in capsys.readouterr().out


def test_predict_with_an_endpoint_and_again_without_it(llm_project, chat_directory, transformers_serve, capsys):
    path = Path("experiments/endpoint.yaml")
    path.write_text(ENDPOINT.format(directory=chat_directory, url=transformers_serve))
    arguments = [*PREDICT, "--config", str(path), "--data.users=ada", "--run=served"]
    arguments.append("--model.decoding.num_candidates=2")
    main(arguments)
    lines, card = predicted("served")
    assert {len(line["candidates"]) for line in lines} == {2}
    assert (card["model"], card["usage"]["from_cache"]) == (f"chat at {transformers_serve.split('/')[2]}", 0)
    assert card["usage"]["answers"] == 2 * len(lines)
    assert card["usage"]["prompt_tokens"] > 100 * card["usage"]["answers"]  # bytes of the prompts
    Path("runs/served/predict.card.json").unlink()
    main(arguments)
    again, card = predicted("served")
    assert again == lines
    assert card["usage"]["from_cache"] == card["usage"]["answers"] == 2 * len(lines)


def test_mistakes_end_in_one_line(llm_project, capsys):
    endpoint = ["--model.chat_model=lightning_modules.ChatEndpoint", "--model.chat_model.model=m"]
    for flags, text in (
        (["--model.chat_model.directory=nowhere"], "no language model in nowhere"),
        ([*endpoint, "--model.chat_model.base_url=https://api.example.com/v1"], "allow_sending_text=true"),
        (
            [*endpoint, "--model.chat_model.base_url=http://127.0.0.1:9/v1", "--model.chat_model.max_retries=0"],
            "is the server running",
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*PREDICT, *flags])
        said = stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err
        assert text in said
        assert "Traceback" not in said
    assert not list(Path("runs").rglob("predictions.jsonl"))
