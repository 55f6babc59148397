"""The command line, in this process: run names, going on, leaving alone, and messages for a person."""

import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from stopping import Killed
from tokenizers import Tokenizer

from commands.cli import main
from commands.experiments.child_process import finished
from commands.training.trainer_cli import _prefer_fast_precision

LORA = ["fit", "--config", "experiments/lora_tiny.yaml"]
PRETRAIN = ["fit", "--config", "experiments/pretrain_tiny.yaml", "--run=again", "--trainer.max_steps=3"]


def said(arguments, capsys):
    """What the command says when it stops: one line, and nothing like a traceback."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code not in (0, None)
    text = stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err
    assert "Traceback" not in text
    return text


def already_done(arguments, capsys):
    """What the command prints when it has nothing to do."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    return capsys.readouterr().out


def change(card):
    """Makes it the card of other weights."""
    card.write_text(json.dumps({**json.loads(card.read_text()), "best_epoch": 99}))


def runs(project):
    return sorted(path.name for path in (project / "runs").glob("[!.]*"))


def card(run, stage="fit"):
    return json.loads(Path("runs", run, f"{stage}.card.json").read_text())


def lines_of(run, name="predictions.jsonl"):
    return [json.loads(line) for line in Path("runs", run, name).read_text().splitlines()]


def with_profiles(value):
    """The flags of a pre-training with profiles, of which two people have one."""
    people = [{"user": name, "attribute": "age", "value": value} for name in ("ada", "ben")]
    pq.write_table(pa.Table.from_pylist(people), "people.parquet")
    Path("experiments/psp.yaml").write_text(
        "data: {init_args: {prompt: {style: psp}, profiles: people.parquet}}\n"
        "trainer: {max_epochs: 1, callbacks: [callbacks.BackboneExport, callbacks.PredictionWriter]}\n"
    )
    return ["--config", "experiments/pretrain_tiny.yaml", "--config", "experiments/psp.yaml"]


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "lora_tiny"),
        (["--model.rank=8"], "lora_tiny,rank=8"),
        (["--model.init_args.rank=8"], "lora_tiny,rank=8"),
        (["--model.rank=3"], "lora_tiny"),
        (["--model.decoding.num_candidates=2", "--checkpoint_every=5"], "lora_tiny"),
        (["--data.users=ada", "--model.alpha=2", "--seed_everything=7"], "lora_tiny,users=ada,alpha=2.0,seed=7"),
        (["--run=mine", "--model.rank=8"], "mine"),
    ],
)
def test_a_run_is_named_after_what_makes_it_another_one(project, flags, name):
    main([*LORA, *flags])
    assert set(runs(project)) == {"pretrain_tiny", name}
    assert card(name)["status"] == "finished"


def test_two_files_with_a_variable_of_the_environment(project, monkeypatch):
    """Resolving it drops `config` from what jsonargparse has parsed."""
    path = Path("experiments/lora_tiny.yaml")
    path.write_text(path.read_text().replace("runs/pretrain_tiny/backbone", "${oc.env:BACKBONE}"))
    monkeypatch.setenv("BACKBONE", "runs/pretrain_tiny/backbone")
    Path("experiments/quick.yaml").write_text("model: {init_args: {max_epochs: 1}}\n")
    main([*LORA, "--config", "experiments/quick.yaml", "--model.rank=2"])
    assert runs(project) == ["lora_tiny+quick,rank=2", "pretrain_tiny"]
    settings = card("lora_tiny+quick,rank=2")["config"]["model"]["init_args"]
    assert (settings["max_epochs"], settings["init_from"]) == (1, "runs/pretrain_tiny/backbone")


def test_fit_test_and_predict_meet_in_one_run(project, capsys):
    main(LORA)
    main(["test", *LORA[1:], "--model.decoding.num_candidates=2"])
    main(["predict", *LORA[1:], "--model.decoding.num_candidates=2"])
    assert runs(project) == ["lora_tiny", "pretrain_tiny"]
    names = {path.name for path in Path("runs/lora_tiny").iterdir()}
    assert names >= {"adapters", "logs", "fit.card.json", "test.card.json", "predict.card.json", "predictions.jsonl"}
    assert {line["user"] for line in lines_of("lora_tiny")} == {"ada", "ben", "cleo", "dan"}
    assert {len(line["candidates"]) for line in lines_of("lora_tiny")} == {2}
    weights = Path("runs/lora_tiny/adapters/ada/adapter_model.safetensors")
    before = weights.stat().st_mtime_ns
    assert "runs/lora_tiny is finished already and is used as it is" in already_done(LORA, capsys)
    assert weights.stat().st_mtime_ns == before


def test_a_backbone_with_profiles_is_tested_by_the_run_that_trained_it(project, capsys):
    arguments = with_profiles("old")
    assert "this run has trained no backbone" in said(["predict", *arguments], capsys)
    main(["fit", *arguments])
    main(["test", *arguments])
    predict = ["predict", *arguments, "--model.decoding.max_new_tokens=3"]
    main(predict)
    run = Path("runs/pretrain_tiny+psp")
    lines = lines_of("pretrain_tiny+psp")
    assert {line["user"] for line in lines} == {"ada", "ben", "cleo", "dan"}
    fingerprint = json.loads((run / "backbone/manifest.json").read_text())["fingerprint"]
    assert json.loads((run / "predictions.card.json").read_text())["backbone"] == fingerprint
    perplexity = math.exp(sum(line["nll"] for line in lines) / sum(line["tokens"] for line in lines))
    assert card("pretrain_tiny+psp", "test")["metrics"]["test/perplexity"] == pytest.approx(perplexity, rel=1e-5)
    for finished_one in (["fit", *arguments], ["test", *arguments], predict):
        already_done(finished_one, capsys)
    with_profiles("young")  # in the same file
    main(["test", *arguments])
    assert card("pretrain_tiny+psp", "test")["profiles"] != card("pretrain_tiny+psp")["profiles"]
    assert "was trained with other profiles than are in the file now" in said(["fit", *arguments], capsys)


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_16_bit_products_are_used_where_the_cpu_has_them(project, monkeypatch, capsys, supported, precision):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    main([*LORA, "--trainer.precision=bf16-mixed", "--model.max_epochs=1"])
    (run,) = set(runs(project)) - {"pretrain_tiny"}
    assert run == "lora_tiny,max_epochs=1,precision=bf16-mixed"
    assert card(run)["config"]["trainer"]["precision"] == precision
    assert ("no bf16 matrix products" in capsys.readouterr().out) is not supported


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bf16_products_are_used_where_the_gpu_has_them(monkeypatch, supported, precision):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    trainer = SimpleNamespace(accelerator="auto", precision="bf16-mixed")
    _prefer_fast_precision(trainer)
    assert trainer.precision == precision


def test_what_cannot_run_is_refused_before_anything_is_written(project, capsys):
    text = said([*LORA, "--trainer.precision=bf16-true", "--trainer.devices=2"], capsys)
    assert "UserLora has no trainer.precision=bf16-true: set 32-true or bf16-mixed" in text
    assert "fit with UserLora runs in one process, got 2: set trainer.devices=1" in text
    assert not list(Path("runs").glob("lora_tiny*/*"))


def test_other_settings_are_refused_in_the_same_run(project, capsys):
    main(PRETRAIN)
    text = said([*PRETRAIN, "--data.tokens_per_batch=512", "--model.dropout=0.2"], capsys)
    assert "runs/again was trained with other settings (" in text
    assert "data.init_args.tokens_per_batch was 1024, now 512" in text  # it may change only while a run is stopped
    assert "model.init_args.dropout was 0.1, now 0.2" in text
    assert "give another --run, or delete that directory" in text


def test_a_run_of_an_earlier_version_is_found_when_what_is_new_has_its_default(project, capsys):
    main(PRETRAIN)
    path = Path("runs/again/fit.card.json")
    card = json.loads(path.read_text())
    del card["config"]["data"]["init_args"]["passes"]  # as if this version were the first to have it
    path.write_text(json.dumps(card))
    assert "is finished already" in already_done(PRETRAIN, capsys)
    assert "data.init_args.passes was 1, now 2" in said([*PRETRAIN, "--data.passes=2"], capsys)
    card["config"]["data"]["init_args"]["long_gone"] = 3  # and one that this version has no more
    path.write_text(json.dumps(card))
    assert "data.init_args.long_gone was 3, now None" in said(PRETRAIN, capsys)


def test_what_is_finished_is_found_without_running_it(project, monkeypatch, capsys):
    """In a process of its own; what cannot be read, or has another backbone by now, is not finished."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    main([*LORA, "--model.max_epochs=1"])
    predict = ["predict", *LORA[1:], "--model.max_epochs=1"]
    main(predict)
    questions = [[*LORA, "--model.max_epochs=1"], predict, ["test", *predict[1:]], [*LORA, "--model.rank=3"], ["fit"]]
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    run = Path("runs/lora_tiny,max_epochs=1")
    assert finished(questions) == {tuple(questions[0]): run, tuple(predict): run}
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before
    manifest = Path("runs/pretrain_tiny/backbone/manifest.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"fingerprint": "other"}))
    assert finished(questions) == {}
    assert "but model.init_from is backbone other now; give another --run" in said(questions[0], capsys)


def test_a_second_process_of_the_same_run_waits_and_finds_it_finished(project, monkeypatch, capsys):
    Path("runs/.locks").mkdir()
    flock = fcntl.flock
    with Path("runs/.locks/again.fit").open("w") as lock:
        flock(lock, fcntl.LOCK_EX)  # as if another one were at work

        def finish_the_other_one_when_waited_for(file, operation):
            if operation == fcntl.LOCK_EX:
                flock(lock, fcntl.LOCK_UN)
            flock(file, operation)

        monkeypatch.setattr("fcntl.flock", finish_the_other_one_when_waited_for)
        main(PRETRAIN)
    assert "another process is at `lightning fit` of runs/again; waiting for it" in capsys.readouterr().out
    main(["validate", *PRETRAIN[1:]])  # another command does not wait


def test_a_stopped_run_goes_on_and_comes_out_the_same(project, monkeypatch, capsys):
    from callbacks import BackboneExport

    main([*PRETRAIN[:3], "--run=whole"])
    stop = [*PRETRAIN[:3], "--run=stopped", "--checkpoint_every=0"]
    with monkeypatch.context() as patch:
        patch.setattr(BackboneExport, "on_train_batch_end", stop_at(4), raising=False)
        with pytest.raises(Killed):
            main(stop)
    assert card("stopped")["status"] == "running"
    assert not Path("runs/stopped/backbone").exists()
    main(stop)
    assert "continuing from runs/stopped/checkpoints/last.ckpt" in capsys.readouterr().out
    ours, theirs = (load_file(f"runs/{name}/backbone/model.safetensors") for name in ("stopped", "whole"))
    assert not [name for name in theirs if not torch.equal(ours[name], theirs[name])]
    assert card("stopped")["steps"] == card("whole")["steps"] > 5


def stop_at(step):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == step:
            raise Killed

    return on_train_batch_end


def test_a_run_that_failed_before_its_first_checkpoint_may_be_changed(project, capsys):
    said([*LORA, "--run=r", "--model.target_modules=[nothing]"], capsys)
    main([*LORA, "--run=r", "--model.max_epochs=1"])
    assert card("r")["status"] == "finished"


def test_a_missing_backbone_is_one_line_with_the_command(project, capsys):
    shutil.rmtree("runs/pretrain_tiny")
    assert said(LORA, capsys) == (
        "error: no backbone in runs/pretrain_tiny/backbone; "
        "make it with: lightning fit --config experiments/pretrain_tiny.yaml"
    )


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("    rank: 3", "    rnak: 3", "rnak"),
        ("    rank: 3", "    rank: many", "many"),
        ("  max_epochs: -1", "  max_epoch: -1", "max_epoch"),
        ("preparation: corpora/invented.yaml", "preparation: corpora/invented.yaml\n    user: ada", "user"),
        ("trainer:\n", "trayner: {x: 1}\ntrainer:\n", "trayner"),
        ("    rank: 3", "    rank: ${nothing.here}", "nothing.here"),
    ],
)
def test_a_misspelt_key_is_named(project, capsys, old, new, named):
    path = Path("experiments/lora_tiny.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert named in said(LORA, capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.rank=0"], "error: rank must be 1 or more, got 0"),
        (["--model.target_modules=[q,wi_0]"], "error: target_modules ['wi_0'] match nothing in this model"),
        (["--data.users=eve"], "error: unknown users ['eve']"),
        (["--data.users=[123, 007]"], "error: unknown users ['007', '123']"),
        (["--data.users=ann: lee"], "error: unknown users ['ann: lee']"),
        (["--data.users=corpora/words.txt"], "words.txt, in which 1 of 2 lines are no target user"),
        (["--model.target_modules=q,v"], "a text is a regular expression for whole names, names are a list: [q, v]"),
        (["--trainer.accelerator=gpu"], "error: trainer: No supported gpu backend found!"),
        (["--trainer.logger=MLFlowLogger"], "pip install -U 'mlflow"),
        (["--trainer.logger=TensorBoardLogger"], "`tensorboard`"),
        (["--seed_everything=-1"], "error: seed_everything must be at least 0"),
        (["--checkpoint_every=-1"], "error: checkpoint_every must be 0 or more, got -1.0"),
        (["--run=../x"], "error: --run is '../x'; expected the name of a directory below runs/"),
        (["--run=/x"], "error: --run is '/x'"),
        (["--run=" + "名" * 80], "is longer than 200 bytes"),
        (
            ["--model.rank=0", "--model.alpha=.nan", "--model.max_epochs=null"],
            "rank must be 1 or more, got 0; alpha must be above 0, got nan; max_epochs must be 1 or more, got None",
        ),
        (["--model.rank=many"], "error: model.rank: expected int, got many"),
        (["--model.decoding.num_candidates=0"], "must be 1 or more"),
        (["--trainer.max_epoch=3"], "max_epoch"),
        (["--config", "experiments/no.yaml"], "experiments/no.yaml"),
    ],
)
def test_mistakes_end_in_one_message(project, capsys, flags, message):
    Path("corpora").mkdir()
    Path("corpora/words.txt").write_text("ada\nwhat a person said\n")
    text = said([*LORA, *flags], capsys)
    assert message in text and "what a person said" not in text


def test_a_flag_before_its_file_wins_too(project):
    main(["fit", "--model.rank=2", "--model.target_modules=q", "--model.max_epochs=1", *LORA[1:]])
    settings = json.loads(next(Path("runs").glob("lora_tiny,*/adapters/ada/adapter_config.json")).read_text())
    assert (settings["r"], settings["target_modules"]) == (2, ["q"])


def test_wandb_offline_by_flags_gets_the_whole_configuration(project, monkeypatch):
    logged = {}
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setattr(WandbLogger, "log_hyperparams", lambda self, params: logged.update(params))
    Path("experiments/wandb.yaml").write_text(
        "trainer: {logger: {class_path: lightning.pytorch.loggers.WandbLogger, init_args: {project: test}}}\n"
    )
    main([*LORA, "--config", "experiments/wandb.yaml", "--model.max_epochs=1", "--run=w", "--data.users=ada"])
    assert logged["model"]["init_args"]["rank"] == 3
    assert logged["data"]["init_args"]["users"] == 1 and '"ada"' not in json.dumps(logged)
    assert list(Path("runs/w/wandb").glob("offline-run-*"))
    import wandb

    wandb.finish()


def test_tools_are_subcommands(project, capsys):
    main(["prepare", "--config", "experiments/corpora/invented.yaml"])
    assert "data/invented is prepared already: 4 target users" in capsys.readouterr().out
    main(["prepare", "--config", "experiments/corpora/invented.yaml", "--preview", "2", "--prompt.style=user"])
    shown = capsys.readouterr().out
    assert "row 2 of pretrain/train" in shown and "row 3" not in shown and "label ids: " in shown
    assert "no such predictions file" in said(["table", "--systems.a=no.jsonl", "--output=t"], capsys)
    export = ["human-eval", "export", "--systems.a=no.jsonl", "--output=h", "--num_users=1"]
    assert "no such predictions file" in said(export, capsys)
    assert "key.json: no such file" in said(["human-eval", "score", "--key=key.json", "--annotations=[a.json]"], capsys)


def test_a_second_test_is_left_alone_until_something_changes(project, capsys):
    main(LORA)
    test = ["test", *LORA[1:]]
    main(test)
    first = card("lora_tiny", "test")
    said = already_done(test, capsys)
    assert "is done already" in said and f"test/own_perplexity: {first['metrics']['test/own_perplexity']:.4g}" in said
    main([*test, "--model.num_swaps=1", "--run=lora_tiny"])  # other settings
    assert card("lora_tiny", "test")["config"]["model"]["init_args"]["num_swaps"] == 1
    change(next(Path("runs/lora_tiny/adapters").glob("*/card.json")))
    main([*test, "--model.num_swaps=1", "--run=lora_tiny"])


def test_what_concerns_a_test_alone_neither_trains_nor_predicts_anew(project, capsys):
    main(LORA)
    main(["predict", *LORA[1:]])
    looked_at = ["--data.test_train_turns=5", "--data.test_general_pairs=6", "--model.num_swaps=null"]
    main(["test", *LORA[1:], *looked_at])
    capsys.readouterr()
    for command, message in (("fit", "is finished already"), ("predict", "is done"), ("test", "is done")):
        assert message in already_done([command, *LORA[1:], *looked_at], capsys)
    assert Path("runs/lora_tiny/swaps.csv").is_file()
    Path("runs/lora_tiny/test_users.csv").unlink()  # then it is done again
    main(["test", *LORA[1:], *looked_at])


def test_all_weights_of_many_users_meet_in_one_run(project, capsys):
    tuning = ["--config", "experiments/tuning_tiny.yaml"]
    main(["fit", *tuning])
    run = Path("runs/tuning_tiny")
    assert {path.name for path in (run / "models").iterdir()} == {"ada", "ben", "cleo", "dan"}
    main(["predict", *tuning])
    assert {line["user"] for line in lines_of("tuning_tiny")} == {"ada", "ben", "cleo", "dan"}
    for command, message in (("fit", "is finished already"), ("predict", "is done already")):
        assert message in already_done([command, *tuning], capsys)
    change(run / "models" / "ada" / "card.json")
    main(["predict", *tuning])


def test_a_run_that_was_killed_between_users_goes_on_with_the_same_settings_only(project, capsys):
    tuning = ["fit", "--config", "experiments/tuning_tiny.yaml", "--run=killed"]
    main(tuning)
    run = Path("runs/killed")
    weights = load_file(run / "models" / "dan" / "model.safetensors")
    shutil.rmtree(run / "models" / "dan")
    (run / "fit.card.json").write_text(json.dumps({**card("killed"), "status": "running"}))
    assert not (run / "checkpoints" / "last.ckpt").exists()
    assert "optimizer.init_args.lr was 0.01, now 0.02" in said([*tuning, "--model.optimizer.init_args.lr=0.02"], capsys)
    main(tuning)
    assert "3 of 4 users are trained already" in capsys.readouterr().out
    again = load_file(run / "models" / "dan" / "model.safetensors")
    assert not [name for name in weights if not torch.equal(weights[name], again[name])]


def test_conversations_are_left_alone_until_an_adapter_is_another_one(project, capsys):
    Path("experiments/conversations.yaml").write_text(
        "model:\n  class_path: lightning_modules.Conversations\n"
        "  init_args: {init_from: runs/pretrain_tiny/backbone, adapters: runs/lora_tiny/adapters, num_turns: 4}\n"
        "data: {class_path: datamodules.Openings, init_args: {preparation: corpora/invented.yaml}}\n"
        "trainer: {accelerator: cpu, enable_progress_bar: false, callbacks: [callbacks.ConversationWriter]}\n"
    )
    talk = ["predict", "--config", "experiments/conversations.yaml"]
    assert "train them with: lightning fit --config experiments/lora_tiny.yaml" in said(talk, capsys)
    main(LORA)
    main(talk)
    lines = lines_of("conversations", "conversations.jsonl")
    assert {line["speaker"] for line in lines} == {None, "ada", "ben", "cleo", "dan"}
    assert card("conversations", "predict")["backbone"] == card("conversations", "conversations")["backbone"]
    assert "is done already" in already_done(talk, capsys)
    Path("runs/lora_tiny/adapters/ada/card.json").touch()
    assert "is done already" in already_done(talk, capsys)
    change(Path("runs/lora_tiny/adapters/ada/card.json"))
    main(talk)


def test_a_copied_run_is_as_good_as_the_first(project, capsys):
    main(LORA)
    main(["predict", *LORA[1:]])
    shutil.move("runs/lora_tiny", "before")
    shutil.copytree("before", "runs/lora_tiny", copy_function=shutil.copyfile)
    for path in Path("runs/lora_tiny/adapters").glob("*/*"):
        os.utime(path, (4e9, 4e9))  # as if it were copied last
    assert "is done already" in already_done(["predict", *LORA[1:]], capsys)
    path = Path("runs/lora_tiny/predictions.jsonl")
    whole = path.read_text()
    for damaged in ("", whole[: whole.index("\n") + 1]):
        path.write_text(damaged)
        main(["predict", *LORA[1:]])
        assert path.read_text() == whole


WITHOUT_THIS_PROJECT = """
import sys
from peft import AutoPeftModelForSeq2SeqLM
from transformers import AutoTokenizer
model = AutoPeftModelForSeq2SeqLM.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(model.peft_config["default"].base_model_name_or_path)
batch = tokenizer(text="<|partner|>yes today<|speaker|>no", text_target="tea", return_tensors="pt")
print(batch["input_ids"][0].tolist(), batch["labels"][0].tolist())
print(float(model(**batch).loss))
assert not {"datamodules", "lightning_modules", "artefacts"} & set(sys.modules)
"""


def test_an_adapter_is_loaded_from_anywhere_without_this_project(project, tmp_path):
    main([*LORA, "--data.users=ada"])
    adapter = project / "runs/lora_tiny,users=ada/adapters/ada"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WITHOUT_THIS_PROJECT, str(adapter)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    ids, loss = run.stdout.splitlines()
    tokenizer = Tokenizer.from_file("runs/pretrain_tiny/backbone/tokenizer.json")
    turns = [
        [tokenizer.token_to_id(m), *tokenizer.encode(t).ids]
        for m, t in (("<|partner|>", "yes today"), ("<|speaker|>", "no"))
    ]
    assert ids == f"{[*turns[0], *turns[1], 1]} {[*tokenizer.encode('tea').ids, 1]}"
    assert math.isfinite(float(loss))
