"""Fixtures that several rooms share: an invented corpus, that corpus prepared, and a tokenizer written by hand.

All people and texts are invented. Who changes a prepared directory copies it first.
"""

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from datamodules.corpora import Corpus, Dialogue, Drops, Jsonl, Profile, Turn
from datamodules.preparation import shards
from datamodules.preparation.run import prepare
from datamodules.preparation.settings import Preparation
from datamodules.preparation.splits import SplitRule

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch: on a busy machine its threads wait for each other

WORDS = (
    "<pad> </s> <unk> <|speaker|> <|partner|> <|speaker_profile|> <|partner_profile|> "  # 0 to 6
    "hi tea coffee yes no more please thanks "  # 7 to 14
    "age city : , old young osaka"  # 15 to 21
)
TARGET_USERS = ("ada", "ben", "cleo", "dan")
OTHERS = tuple(f"guest {number}" for number in range(10))
FAVOURITES = {
    "ada": "astronomy stars telescope comet orbit",
    "ben": "bread sourdough oven flour butter",
    "cleo": "猫 かわいい にゃー 庭 魚",
    "dan": "drums rhythm band 🥁 loud",
}
COMMON = "yes no maybe today tomorrow we you they like want see hear good bad very much it is was there"


class InventedCorpus(Corpus):
    """Four people with 60 turns each in ten dialogues, and ten guests who talk with them and with each other.

    Dialogues come in no order of time.
    """

    @property
    def files(self) -> list[Path]:
        return []

    def dialogues(self, drops: Drops) -> Iterator[Dialogue]:
        rng = random.Random(1)
        plan = [(user, guest, 6) for user in TARGET_USERS for guest in OTHERS]
        plan += [(OTHERS[number], OTHERS[number - shift], 8) for number in range(10) for shift in (1, 2, 3)]
        days = rng.sample(range(len(plan)), len(plan))
        for number, ((first, second, num_each), day) in enumerate(zip(plan, days, strict=True)):
            drops.num_seen += 1
            start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day)
            turns = tuple(
                Turn(person, _sentence(person, rng), start + timedelta(minutes=minute))
                for minute, person in enumerate((second, first) * num_each)
            )
            yield Dialogue(f"d{number}", turns, "invented")

    def profiles(self) -> Iterator[Profile]:
        yield Profile("ada", {"city": "Osaka", "age": "20-29"}, "declared")
        yield Profile("ben", {"city": "Kyoto"}, "declared")
        yield Profile("guest 0", {"age": "30-39"}, "declared")


def _sentence(person: str, rng: random.Random) -> str:
    favourites = FAVOURITES.get(person, "weather rain sun wind snow").split()
    words = [rng.choice(favourites if rng.random() < 0.5 else COMMON.split()) for _ in range(rng.randint(1, 9))]
    return " ".join(words) + rng.choice([".", "?", "!", ""])


@pytest.fixture(scope="session")
def invented_corpus() -> InventedCorpus:
    """The invented corpus as its reader; target users are ada, ben, cleo and dan."""
    return InventedCorpus()


@pytest.fixture(scope="session")
def split_rule() -> SplitRule:
    """The rule that makes ada, ben, cleo and dan the target users of the invented corpus."""
    return SplitRule(num_target_users=4, min_turns=50, max_turns=65, min_dialogues=10, pretrain_validation_share=0.2)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, invented_corpus: InventedCorpus, split_rule: SplitRule) -> Path:
    """The invented corpus, prepared once for all tests: leave it as it is."""
    output = tmp_path_factory.mktemp("data") / "invented"
    prepare(Preparation(invented_corpus, output, split_rule, vocabulary_size=400))
    return output


@pytest.fixture(scope="session")
def in_small_groups(
    tmp_path_factory: pytest.TempPathFactory, invented_corpus: InventedCorpus, split_rule: SplitRule
) -> Preparation:
    """The invented corpus prepared in row groups of 20 and parts of 5 groups, so that there are many of both."""
    output = tmp_path_factory.mktemp("data") / "in_small_groups"
    preparation = Preparation(invented_corpus, output, split_rule, vocabulary_size=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS_PER_GROUP", 20)
        patch.setattr(shards, "ROWS_PER_PART", 100)
        prepare(preparation)
    return preparation


@pytest.fixture(params=["preparation", "in_small_groups"])
def corpus(request: pytest.FixtureRequest) -> Preparation:
    """The invented corpus prepared in one row group a split, and in many."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def second_corpus(in_small_groups: Preparation, tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    """Another corpus with the same tokenizer: its 192 pairs for pre-training are the target users'."""
    copy = shutil.copytree(in_small_groups.output, tmp_path_factory.mktemp("data") / "target_users")
    shutil.rmtree(copy / "pretrain/train")
    shutil.copytree(copy / "users/train", copy / "pretrain/train")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["pretrain/train"] = manifest["splits"]["users/train"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return replace(in_small_groups, output=copy)


@pytest.fixture
def preparation(prepared: Path, invented_corpus: InventedCorpus, split_rule: SplitRule) -> Preparation:
    """The finished preparation in `prepared`."""
    return Preparation(invented_corpus, prepared, split_rule, vocabulary_size=400)


@pytest.fixture(scope="session")
def invented_jsonl(tmp_path_factory: pytest.TempPathFactory, invented_corpus: InventedCorpus) -> Path:
    """The same dialogues as a file for the reader `Jsonl`, for tests that start another process."""
    path = tmp_path_factory.mktemp("jsonl") / "invented.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for dialogue in invented_corpus.dialogues(Drops()):
            turns = [
                {"speaker": turn.speaker, "text": turn.text, "time": turn.time.isoformat() if turn.time else None}
                for turn in dialogue.turns
            ]
            file.write(json.dumps({"id": dialogue.id, "turns": turns}, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="session")
def word_tokenizer() -> Tokenizer:
    """A tokenizer written by hand: a word an id, in the order of `WORDS`."""
    words = [word.replace("_", " ") for word in WORDS.split()]
    vocabulary = {word: id for id, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(words[:7])
    return tokenizer


def _save_tiny_backbone(prepared: Path, run: Path) -> Path:
    """Writes a random backbone of the size `tiny` for a prepared corpus."""
    import torch

    from datamodules.prompts.template import PromptTemplate
    from lightning_modules.backbones.files import save_backbone
    from lightning_modules.backbones.t5 import new_model

    torch.manual_seed(0)
    model = new_model("tiny", Tokenizer.from_file(str(prepared / "tokenizer" / "tokenizer.json")).get_vocab_size())
    run.mkdir(parents=True)
    save_backbone(model, prepared / "tokenizer", PromptTemplate(), run / "backbone")
    return run / "backbone"


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """A random backbone of the size `tiny` for the prepared corpus: leave it as it is."""
    return _save_tiny_backbone(prepared, tmp_path_factory.mktemp("runs") / "tiny")


QUIET = """trainer:
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false"""
IN_ROUNDS = f"""{QUIET}
  max_epochs: -1
  reload_dataloaders_every_n_epochs: 1
  num_sanity_val_steps: 0"""
PRETRAIN_TINY = f"""# lightning fit --config experiments/pretrain_tiny.yaml
model:
  class_path: lightning_modules.ProfileSeq2Seq
  init_args:
    size: tiny
    dropout: 0.1
    optimizer:
      class_path: torch.optim.Adafactor
      init_args: {{lr: 0.03}}
    lr_scheduler: lightning_modules.schedules.WarmupLinear
data:
  class_path: datamodules.ReplyPairs
  init_args:
    preparation: corpora/invented.yaml
    tokens_per_batch: 1024
{QUIET}
  max_epochs: 2
  callbacks:
    - callbacks.BackboneExport
"""
LORA_TINY = f"""# lightning fit --config experiments/lora_tiny.yaml
model:
  class_path: lightning_modules.UserLora
  init_args:
    init_from: runs/pretrain_tiny/backbone
    rank: 3
    max_epochs: 2
    decoding: {{max_new_tokens: 5}}
data:
  class_path: datamodules.UserSets
  init_args:
    preparation: corpora/invented.yaml
{IN_ROUNDS}
  callbacks:
    - callbacks.AdapterCheckpoint
    - callbacks.PredictionWriter
"""
TUNING_TINY = f"""# lightning fit --config experiments/tuning_tiny.yaml
model:
  class_path: lightning_modules.UserTuning
  init_args:
    init_from: runs/pretrain_tiny/backbone
    optimizer:
      class_path: torch.optim.Adafactor
      init_args: {{lr: 0.01}}
    lr_scheduler: lightning_modules.schedules.WarmupLinear
    max_epochs: 2
    decoding: {{max_new_tokens: 5}}
data:
  class_path: datamodules.UserSets
  init_args:
    preparation: corpora/invented.yaml
    users_per_batch: 1
{IN_ROUNDS}
  callbacks:
    - callbacks.TunedExport
    - callbacks.PredictionWriter
"""
INVENTED_YAML = """# lightning prepare --config experiments/corpora/invented.yaml
corpus:
  class_path: datamodules.corpora.Jsonl
  init_args: {{dialogues_path: {path}}}
output: data/invented
splits: {{num_target_users: 4, min_turns: 50, max_turns: 65, min_dialogues: 10, pretrain_validation_share: 0.2}}
vocabulary_size: 400
"""


@pytest.fixture(scope="session")
def _project(tmp_path_factory: pytest.TempPathFactory, invented_jsonl: Path, split_rule: SplitRule) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "experiments" / "corpora").mkdir(parents=True)
    for name, text in (("pretrain", PRETRAIN_TINY), ("lora", LORA_TINY), ("tuning", TUNING_TINY)):
        (root / "experiments" / f"{name}_tiny.yaml").write_text(text)
    (root / "experiments" / "corpora" / "invented.yaml").write_text(INVENTED_YAML.format(path=invented_jsonl))
    prepare(Preparation(Jsonl(invented_jsonl), root / "data" / "invented", split_rule, vocabulary_size=400))
    _save_tiny_backbone(root / "data" / "invented", root / "runs" / "pretrain_tiny")
    return root


@pytest.fixture
def project(_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with three experiments, their corpus prepared and a backbone; the current directory."""
    shutil.copytree(_project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path / "project"


CHAT_TEMPLATE = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def chat_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama whose tokens are bytes, with a chat template, saved: leave it as it is."""
    import torch
    from tokenizers import decoders
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "</s>", "<|begin|>", "<|end|>"]
    tokens = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate([*special, *alphabet])}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="</s>", extra_special_tokens=special[2:]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = True
    directory = tmp_path_factory.mktemp("models") / "chat"
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
