"""Every YAML under `experiments/`: its first line is its command, that command parses, and what it builds runs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from parsed import Parsed

from commands.cli import main
from commands.experiments.experiment import OF_THE_TRAINER, Experiment, experiment_of
from commands.experiments.other_backbone import places_of
from commands.tools import read_tool

ROOT = Path(__file__).parents[1]
ALL = sorted((ROOT / "experiments").rglob("*.yaml"))
TOOLS = {
    "corpora": ("prepare",),
    "tables": ("table", "profile_table", "conversation_table"),
    "paper": ("table",),
    "human": ("human-eval export",),
    "sweeps": ("sweep",),
}
CHEAP = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.logger=false"]
OURS = {"prompt", "profiles", "control", "tokens_per_batch", "max_context_tokens", "seed", "formulas", "l2", "size"}
MODELS = {
    "Conversations": "lightning_modules.conversations",
    "JointTuning": "lightning_modules.joint_tuning",
    "ProfileNetwork": "lightning_modules.profile_network",
    "ProfileSeq2Seq": "lightning_modules.seq2seq",
    "PromptedLLM": "lightning_modules.prompted_llm",
    "RetrievedReply": "lightning_modules.retrieved_reply",
    "UserLora": "lightning_modules.user_lora",
    "UserTuning": "lightning_modules.user_tuning",
}


def first_line(path):
    return path.read_text(encoding="utf-8").splitlines()[0]


def command(path):
    """The arguments of `lightning` in the first line, without variables in front and with `<...>` filled in."""
    words = shlex.split(re.sub(r"<\w+>", "ben", first_line(path).removeprefix("# ")))
    return words[words.index("lightning") + 1 :]


def split(arguments):
    """The subcommand, of one word or two, and its flags."""
    start = arguments.index("--config")
    return " ".join(arguments[:start]), arguments[start:]


def kind(path):
    """Its directory; a corpus may also stand above."""
    return "corpora" if path.name.startswith("corpus_") else path.parent.name


def of_kind(*kinds):
    chosen = [path for path in ALL if kind(path) in kinds]
    assert chosen, kinds
    return pytest.mark.parametrize("path", chosen, ids=lambda path: str(path.relative_to(ROOT / "experiments")))


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch, invented_jsonl):
    """The paths in the files are relative to the repository."""
    monkeypatch.chdir(ROOT)
    for name in ("DIALOGUES", "SNS_DIALOGUES", "SPEED_DATING", "USER_PROFILE_CHAT"):
        monkeypatch.setenv(name, str(invented_jsonl))
    monkeypatch.setenv("PERSONA_CHAT_JP", "japanese_persona_chat.xlsx")
    monkeypatch.setenv("CORPUS", "speed_dating")


def test_nothing_is_left_out():
    assert len(ALL) > 8
    kinds = "experiments conditions corpora devices profiles tables human sweeps paper"
    assert {path.parent.name for path in ALL} == set(kinds.split())


@of_kind("experiments", "corpora", "tables", "human", "sweeps", "paper")
def test_the_first_line_is_its_command(path):
    assert first_line(path).startswith("# ")
    subcommand, flags = split(command(path))
    assert flags[:2] == ["--config", str(path.relative_to(ROOT))]
    assert subcommand in TOOLS.get(kind(path), ("fit", "predict"))


@of_kind("conditions")
def test_a_condition_changes_what_it_names(path):
    """Its command builds; and each of its settings is what it says, whatever the files before it said."""
    arguments = command(path)
    assert arguments[-2:] == ["--config", str(path.relative_to(ROOT))]
    built, before = (Parsed([*one, *CHEAP]) for one in (arguments, arguments[:-2]))
    content = yaml.safe_load(path.read_text())
    for part, after, once in (("model", built.model, before.model), ("data", built.datamodule, before.datamodule)):
        named = content.get(part, {}).get("init_args", {})
        for name, value in named.items():
            assert getattr(after, name) != getattr(once, name)
            if isinstance(value, dict):
                found = vars(getattr(after, name))
                if "class_path" in value:
                    assert type(getattr(after, name)).__name__ == value["class_path"].rpartition(".")[2]
                    value = {key: one for key, one in value["init_args"].items() if "${" not in str(one)}
                assert {key: plain(found[key]) for key in value} == value
            elif name == "preparation":  # nothing is left of the corpus before, so `lightning prepare` makes the same
                prepared, _ = read_tool("prepare", ["--config", str((path.parent / value).resolve())])
                found = vars(getattr(after, name))
                assert {key: found[key] for key in found if key != "corpus"} == {
                    key: one for key, one in prepared.items() if key in found and key != "corpus"
                }
            else:
                assert plain(getattr(after, name)) == value
        assert all(vars(after).get(key) == vars(once).get(key) for key in OURS - named.keys())


@of_kind("devices")
def test_a_file_about_devices_chooses_how_they_share_the_work(path):
    assert command(path)[-2:] == ["--config", str(path.relative_to(ROOT))]
    strategy = yaml.safe_load(path.read_text())["trainer"]["strategy"]["class_path"].rpartition(".")[2]
    built = Parsed([*command(path), *CHEAP])
    assert type(built.trainer.strategy).__name__ == strategy
    assert not built.config_init.fit.trainer.use_distributed_sampler  # the data module gives every rank its own pairs


def plain(value):
    """A setting as a YAML file has it."""
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


@of_kind("experiments")
def test_an_experiment_is_built(path, monkeypatch):
    parsed = Parsed([*command(path), *CHEAP])
    settings = yaml.safe_load(path.read_text())
    name = settings["model"]["class_path"].rpartition(".")[2]
    assert type(parsed.model).__module__ == MODELS[name]
    assert type(parsed.datamodule).__name__ == settings["data"]["class_path"].rpartition(".")[2]
    assert parsed.datamodule.preparation.output.parts[0] == "data"
    assert parsed.trainer.callbacks
    for key, value in settings["model"]["init_args"].items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert getattr(parsed.model, key) == value


@of_kind("corpora", "tables", "human", "paper")
def test_a_tool_is_built(path):
    subcommand, flags = split(command(path))
    settings, _ = read_tool(subcommand, flags)
    assert settings["output"]


@of_kind("tables", "paper")
def test_a_table_moves_to_other_backbones_as_a_whole(path):
    subcommand, flags = split(command(path))
    settings, _ = read_tool(subcommand, flags)
    experiments = {n: one for n, one in settings.get("systems", {}).items() if isinstance(one, Experiment)}
    old = {name for one in experiments.values() if (name := one.makes or one.backbone)}
    if not old:
        return
    places = places_of(experiments, {name: Path(f"other/{number}") for number, name in enumerate(sorted(old))})
    found = [one.on(places) for one in experiments.values()]
    assert {one.backbone for one in found} - {None} == set(places.values())
    assert all(one.makes is None for one in found)
    # What a row names of what a command before it makes is made from the other backbone too.
    before = [shlex.split(line) for line in settings["before"] or []]
    made = [one for line in before if line[0] in OF_THE_TRAINER and (one := experiment_of(line)).on(places) is not one]
    places |= {f"runs/{one.name}": "elsewhere" for one in made}
    adapters = [path for one in found if (path := one.on(places).overrides.get("model.adapters"))]
    assert all(path.startswith("elsewhere/") for path in adapters)


@of_kind("sweeps")
def test_a_sweep_names_settings_that_exist(path):
    sweep = yaml.safe_load(path.read_text())
    subcommand, *flags = [word for word in sweep["command"][1:] if word != "${args}" and "logger" not in word]
    assert (subcommand, flags[0]) == ("fit", "--config")
    for name, choice in sweep["parameters"].items():
        parsed = Parsed(["fit", *flags, f"--{name}={choice['values'][0]}"])
        part, *keys = name.replace(".init_args", "").split(".")
        found = parsed.model if part == "model" else parsed.datamodule
        for key in keys:
            found = getattr(found, key)
        assert (list(found) if isinstance(found, tuple) else found) == choice["values"][0]


def test_the_experiment_at_the_scale_of_the_paper_runs_with_a_tiny_model(project, monkeypatch):
    monkeypatch.chdir(project)
    shutil.copy(ROOT / "experiments" / "pretrain_t5_base.yaml", "experiments/t5.yaml")
    shutil.copy("experiments/corpora/invented.yaml", "experiments/corpus_sns.yaml")
    tiny = ["--model.size=tiny", "--data.tokens_per_batch=256", "--trainer.val_check_interval=2"]
    limits = ["--trainer.max_steps=4", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    main(["fit", "--config", "experiments/t5.yaml", "--run=t5", *tiny, *limits])
    assert (project / "runs" / "t5" / "backbone" / "model.safetensors").is_file()
