"""Names of runs, pinned: another name would hide every run that exists."""

from pathlib import Path

import pytest

from commands.training.trainer_cli import TrainerCLI

ROOT = Path(__file__).parents[3]


class Named(Exception):
    """Carries a run's name."""


class OnlyNamed(TrainerCLI):
    """Parses a command, and goes no further than the name of its run."""

    def before_instantiate_classes(self):
        raise Named(self._run_name())


@pytest.mark.parametrize(
    ("files", "flags", "name"),
    [
        ("lora_r12", "--model.init_args.alpha=3 --data.users=ada", "lora_r12,users=ada,alpha=3.0"),
        ("lora_r12", "--trainer.max_epochs=4 --trainer.precision=bf16-mixed", "lora_r12,max_epochs=4"),
        ("lora_r12", "--model.adapters=x --model.max_users_at_once=4 --model.num_swaps=1", "lora_r12"),
        ("lora_r12", "--data.users_per_batch=3 --data.min_train_turns=5 --data.predict_rows=5", "lora_r12"),
        ("lora_r12", "--data.test_train_turns=4 --data.test_general_pairs=9", "lora_r12"),
        ("lora_r12", "--model.decoding.num_candidates=3 --seed_everything=3", "lora_r12,seed=3"),
        (
            "full_finetune",
            "--model.max_epochs=3 --model.tuned=x --data.users_per_batch=2",
            "full_finetune,max_epochs=3",
        ),
        ("conversations", "--model.adapters=x --model.num_turns=3", "conversations,num_turns=3"),
        ("retrieval", "--data.users_per_batch=2 --data.users=ada", "retrieval,users=ada"),
        ("pretrain_small_none conditions/real_persona_chat", "", "pretrain_small_none+real_persona_chat"),
        ("pretrain_small", "--data.test_general_pairs=4 --data.seed=3", "pretrain_small,data.seed=3"),
        (
            "pretrain_small",
            "--data.prompt.style=psp",
            "pretrain_small,attribute_format=-attribute-value-,separator=,-,style=psp",
        ),
        ("llm_profile", "--model.chat_model.rows_at_once=2 --model.chat_model.directory=x", "llm_profile,directory=x"),
        (
            "llm_profile conditions/chat_endpoint",
            "--model.chat_model.timeout=3 --model.chat_model.max_retries=1 --model.chat_model.cache=c "
            "--model.chat_model.concurrency=2 --model.chat_model.price_per_million=[1,2] "
            "--model.chat_model.allow_sending_text=true --model.chat_model.api_key_variable=K "
            "--model.chat_model.seed=4",
            "llm_profile+chat_endpoint,chat_model.seed=4",
        ),
        ("lora_r12 paper/conditions/speed_dating paper/conditions/on_ppp", "", "lora_r12+speed_dating+on_ppp"),
        # What is cut off is of the data; 120 bytes, not characters.
        ("lora_r12", f"--data.users={'x' * 120} --model.rank=3", f"lora_r12,rank=3,users={'x' * 98}-82bbe3d2"),
        ("lora_r12", f"--data.users={'名' * 50}", f"lora_r12,users={'名' * 35}-b5244dab"),
    ],
)
def test_names(monkeypatch, files, flags, name):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CHAT_MODEL", "models/chat")
    monkeypatch.setenv("CORPUS", "speed_dating")
    for variable in ("SNS_DIALOGUES", "SPEED_DATING"):
        monkeypatch.setenv(variable, "dialogues.jsonl")
    configs = [word for file in files.split() for word in ("--config", f"experiments/{file}.yaml")]
    command = "fit" if files.startswith(("lora", "pretrain", "full")) else "predict"
    with pytest.raises(Named) as named:
        OnlyNamed([command, *configs, *flags.split()])
    assert str(named.value) == name
