"""The paper's grid, `experiments/paper/`: every command of every table is built, and a part of it runs on invented data
in the layouts of its corpora, with a tiny model and few steps."""

import csv
import json
import random
import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parsed import Parsed

from artefacts.manifest import read_manifest
from commands.cli import main
from commands.tools import read_tool

openpyxl = pytest.importorskip("openpyxl")

ROOT = Path(__file__).parents[1]
TABLES = sorted((ROOT / "experiments" / "paper").glob("*.yaml"))
SEED = ["--seed_everything=0"]
CORPORA = ("speed_dating", "user_profile_chat", "persona_chat_jp")
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.logger=false"]
QUIET = [*CPU, "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
WORDS = "今日 は 雨 海 山 へ 行き ます か いい です ね 猫 犬 が 好き 本 を"
PERSONAS = ("蜂を飼っています。", "海が好きです。", "本を書きます。", "山に住んでいます。")


def sentence(rng):
    return "".join(rng.choices(WORDS.split(), k=rng.randint(1, 5))) + "。"


def write_jsonl(path, pairs, num_each):
    """A dialogue of each pair, in which each of the two has this many turns."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number, pair in enumerate(pairs):
            turns = [{"speaker": person, "text": sentence(rng)} for person in pair * num_each]
            file.write(json.dumps({"id": str(number), "turns": turns}, ensure_ascii=False) + "\n")


def write_workbook(path):
    """PersonaChatJP's layout: a pair of personas for each dialogue, 24 of them, so that a persona is in twelve."""
    rng = random.Random(1)
    book = openpyxl.Workbook()
    personas, dialogues = book.active, book.create_sheet("対話")
    personas.title = "ペルソナリスト"
    personas.append(["No", "ペルソナID", "A", "B"])
    dialogues.append(["No", "ペルソナID", "speaker", "発話"])
    for number in range(1, 25):
        first, second = pair(number)
        personas.append([number, f"PP{number}", first, second])
        for side in "AB" * 18:
            dialogues.append([number, f"PP{number}", side, sentence(rng)])
    book.save(path)


def pair(number):
    """Every persona meets every other one."""
    shift = 1 + number % 3
    return PERSONAS[number // 3 % 4], PERSONAS[(number // 3 + shift) % 4]


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """A working directory with the experiments and the corpora of the paper, invented."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    people = [f"u{number}" for number in range(8)]
    write_jsonl(tmp_path / "sns.jsonl", [(a, b) for a in people for b in people if a < b], 6)
    write_jsonl(tmp_path / "users.jsonl", [(user, f"guest {n}") for user in ("ada", "ben") for n in range(10)], 20)
    write_workbook(tmp_path / "japanese_persona_chat.xlsx")
    monkeypatch.setenv("SNS_DIALOGUES", "sns.jsonl")
    monkeypatch.setenv("SPEED_DATING", "users.jsonl")
    monkeypatch.setenv("USER_PROFILE_CHAT", "users.jsonl")
    monkeypatch.setenv("PERSONA_CHAT_JP", "japanese_persona_chat.xlsx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table_of(path):
    settings, tool = read_tool("table", ["--config", str(path)])
    return tool(**settings)


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_table_is_about_the_corpus_that_is_named(path, corpus, monkeypatch):
    monkeypatch.setenv("CORPUS", corpus)
    table = table_of(path)
    assert table.before[1] == f"prepare --config experiments/paper/corpora/{corpus}.yaml"
    condition = f"experiments/paper/conditions/{corpus}.yaml"
    assert all(condition in system.flags("predict") for system in table.systems.values())
    assert table.prepared == Path("data/paper") / corpus
    assert table.output.name == f"{path.stem}_{corpus}"


def test_every_run_is_built_and_reads_what_an_earlier_one_writes(corpora, monkeypatch):
    monkeypatch.setenv("CORPUS", "speed_dating")
    written = {}  # command → what it makes; tables share commands
    prompts = {}
    for path in TABLES:
        table = table_of(path)
        systems = [[system.commands[0], *system.flags(system.commands[0])] for system in table.systems.values()]
        before = [shlex.split(command) for command in table.before if not command.startswith("prepare")]
        made = set()
        for arguments in before + systems[: 10 if table.curve is None else 3]:  # ranks differ in their number only
            key = shlex.join(arguments)
            if key not in written:
                parsed = Parsed([*arguments, *CPU])
                assert inputs(parsed) <= made, key
                read = [getattr(parsed.datamodule, name, None) for name in ("prompt", "max_context_tokens")]
                prompts[parsed.run_directory / "backbone"] = read
                if source := getattr(parsed.model, "init_from", None):
                    assert read == prompts[source]  # what users' turns look like is what the backbone was trained with
                outputs = ("backbone", "adapters", "models", "network", "profiles.parquet")
                written[key] = {parsed.run_directory / name for name in outputs}
            made |= written[key]
    directories = [min(made) for made in written.values()]
    assert len(set(directories)) == len(directories)  # no run writes over another


def inputs(parsed):
    """Files and directories of other runs that a run begins with."""
    model, data = parsed.model, parsed.datamodule
    needed = [getattr(model, "init_from", None), getattr(model, "adapters", None), getattr(data, "network", None)]
    if getattr(data, "prompt", None) is not None and data.prompt.style != "none":
        needed.append(data.profiles)
    return {one for one in needed if one is not None}


def files(experiment, *conditions):
    """The flags that name an experiment and conditions of the paper's."""
    named = [f"experiments/{experiment}", *(f"experiments/paper/conditions/{name}" for name in conditions)]
    return [word for file in named for word in ("--config", file)]


def write_profiles(name, users):
    """What profile_mln_ja.yaml would infer; nothing of the last user."""
    rows = [{"user": user, "attribute": "age", "value": ("20-29", "30-39")[n % 2]} for n, user in enumerate(users[:-1])]
    Path(f"runs/profiles_{name}").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), f"runs/profiles_{name}/profiles.parquet")


@pytest.mark.parametrize(
    ("corpus", "style", "users"),
    [
        ("persona_chat_jp", "psp", ["PP1:A", "PP1:B", "PP2:B", "PP3:A"]),
        ("speed_dating", "ppp", ["ada", "ben"]),
        ("user_profile_chat", "none", ["ada", "ben"]),
    ],
)
def test_the_grid_runs_with_a_tiny_model(corpus, style, users, corpora, chat_directory, monkeypatch):
    monkeypatch.setenv("CHAT_MODEL", str(chat_directory))
    main(["prepare", "--config", "experiments/paper/corpora/sns.yaml"])
    main(["prepare", "--config", f"experiments/paper/corpora/{corpus}.yaml"])
    sns, theirs = read_manifest(Path("data/paper/sns")), read_manifest(Path("data/paper") / corpus)
    assert theirs["tokenizer_fingerprint"] == sns["tokenizer_fingerprint"]
    assert (sns["target_users"], theirs["target_users"]) == ([], users)
    write_profiles("sns", [f"u{number}" for number in range(8)])
    write_profiles(corpus, users)
    profile = ["--data.prompt.attributes=[age]"]
    prompt = ([], []) if style == "none" else ([f"{style}.yaml"], profile)
    few = ["--trainer.max_steps=3", "--trainer.val_check_interval=2", "--data.tokens_per_batch=512", *SEED]
    pretrained = [*files("pretrain_t5_base.yaml", "sns.yaml", *prompt[0]), *prompt[1], "--model.size=tiny", *few]
    main(["fit", *pretrained, f"--run={'+'.join(['pretrain_t5_base+sns', *(prompt[0] and [style])])}", *QUIET])
    short = [f"--data.users={json.dumps(users[:2])}", "--model.decoding.max_new_tokens=3", *SEED, *QUIET]
    on = (f"on_{style}.yaml", prompt[1])
    rows = {
        "base": ("base.yaml", on, []),
        "LoRA r=2": ("lora_r12.yaml", on, ["--model.rank=2", "--model.max_epochs=1"]),
        "full fine-tuning": ("full_finetune.yaml", on, ["--model.max_epochs=1"]),
        "LLM, profile": ("llm_profile.yaml", ("psp.yaml", profile), []),
    }
    for name, (experiment, (condition, attributes), flags) in rows.items():
        arguments = [*files(experiment, f"{corpus}.yaml", condition), *attributes, f"--run={name}", *flags, *short]
        for command in ("fit", "predict") if flags else ("predict",):
            main([command, *arguments])
    systems = json.dumps({name: f"runs/{name}/predictions.jsonl" for name in rows})
    settings = ["--encoder=null", "--unit=character", "--per_user=false", "--num_resamples=50"]
    main(["table", f"--systems={systems}", "--output=table", *settings])
    with Path("table/table.csv").open() as file:
        lines = list(csv.DictReader(file))
    found = {row["system"]: float(row["value"]) for row in lines if row["metric"] == "perplexity"}
    assert found.keys() == rows.keys() - {"LLM, profile"}  # which gives no likelihoods
    assert found["LoRA r=2"] != found["base"] != found["full fine-tuning"]
    assert {row["system"] for row in lines if row["metric"] == "chrF"} == rows.keys()


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["table", "--config", "experiments/paper/next_utterance.yaml"], "CORPUS"),
        (["prepare", "--config", "experiments/paper/corpora/persona_chat_jp.yaml"], "PERSONA_CHAT_JP"),
        (["fit", *files("pretrain_t5_base.yaml", "sns.yaml")], "SNS_DIALOGUES"),
    ],
)
def test_a_variable_that_is_not_set_is_named_in_one_line(arguments, variable, corpora, monkeypatch):
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DIALOGUES", "sns.jsonl")  # of corpora/jsonl.yaml, which pretrain_t5_base.yaml names
    with pytest.raises(SystemExit, match=rf"^error: .*{variable} is not set; set it: {variable}=<value> lightning"):
        main(arguments)
