"""Two user models talk: against a loop written out here, with plain PEFT, one conversation after the other."""

import json

import pytest
import torch
from fitting import QUIET
from lightning import Trainer
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from tokenizers import Tokenizer
from transformers import AutoModelForSeq2SeqLM

from artefacts.layout import user_directory
from callbacks import ConversationWriter
from datamodules import Openings
from lightning_modules import Conversations
from lightning_modules.backbones.generation import Decoding
from lightning_modules.lora.adapter_files import TrainedAdapter, save_adapter

USERS = ("ada", "ben", "cleo", "dan")
GREEDY = Decoding(sample=False, no_repeat_ngram_size=0, max_new_tokens=6)
NUM_TURNS, WINDOW = 6, 24


def save_random_adapters(directory, backbone, users=USERS, rank=2):
    fingerprint = json.loads((backbone / "manifest.json").read_text())["fingerprint"]
    for number, user in enumerate(users):
        config = LoraConfig(r=rank, lora_alpha=8, target_modules=["q", "v", "o", "wo"], task_type="SEQ_2_SEQ_LM")
        model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(backbone), config)
        torch.manual_seed(number)
        weights = {name: torch.randn_like(one) for name, one in get_peft_model_state_dict(model).items()}
        config.inference_mode = True
        save_adapter(directory, config, TrainedAdapter(user, weights, {"backbone": fingerprint, "settings": {}}))
    return directory


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, tiny_backbone):
    return save_random_adapters(tmp_path_factory.mktemp("lora") / "adapters", tiny_backbone)


@pytest.fixture
def talk(preparation, tiny_backbone, adapters, tmp_path):
    def run(decoding=GREEDY, name="run", data=None, **changes):
        settings = {"init_from": tiny_backbone, "adapters": adapters, "num_turns": NUM_TURNS, "decoding": decoding}
        module = Conversations(**{**settings, **changes})
        openings = Openings(preparation, **{"max_context_tokens": WINDOW, "num_conversations": 4, **(data or {})})
        trainer = Trainer(default_root_dir=tmp_path / name, callbacks=[ConversationWriter()], **QUIET)
        trainer.predict(module, datamodule=openings)
        path = tmp_path / name / "conversations.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()], openings

    return run


def read_by_hand(tokenizer, turns, speaker):
    """Marker and ids of the last four turns, at most WINDOW of them; a turn that is cut keeps its marker."""
    ids, markers = [], []
    for who, text in turns[-4:]:
        marker = tokenizer.token_to_id("<|speaker|>" if who == speaker else "<|partner|>")
        own = [marker, *tokenizer.encode(text).ids]
        ids += own
        markers += [marker] * len(own)
    kept = ids[-WINDOW:]
    if len(ids) > WINDOW:
        kept[0] = markers[-WINDOW]
    return torch.tensor([[*kept, 1]])


def test_each_turn_is_said_with_the_adapter_of_its_speaker(talk, tiny_backbone, adapters, prepared):
    lines, openings = talk()
    tokenizer = Tokenizer.from_file(str(prepared / "tokenizer" / "tokenizer.json"))
    bare = AutoModelForSeq2SeqLM.from_pretrained(tiny_backbone)
    load = AutoModelForSeq2SeqLM.from_pretrained
    peft = {u: PeftModel.from_pretrained(load(tiny_backbone), user_directory(adapters, u)).eval() for u in USERS}
    batch = openings.conversations()
    different = 0
    for number, people in enumerate(batch.people):
        beginning = [(people[side], tokenizer.decode(ids)) for side, ids in batch.turns[number]]
        for system in ("own", "base"):
            turns = list(beginning)
            for turn in range(NUM_TURNS):
                speaker = people[turn % 2]
                model = peft[speaker] if system == "own" else bare
                generated = model.generate(
                    input_ids=read_by_hand(tokenizer, turns, speaker), do_sample=False, max_new_tokens=6
                )
                turns.append((speaker, " ".join(tokenizer.decode(generated[0].tolist()).split())))
            found = [line for line in lines if (line["system"], line["conversation"]) == (system, number)]
            assert [line["turn"] for line in found] == list(range(-1, NUM_TURNS + 1))
            assert [line["text"] for line in found] == [text for _, text in turns]
            assert [line["speaker"] for line in found] == [None, None, *[who for who, _ in turns[2:]]]
            different += system == "own" and len({text for _, text in turns[2:]}) > 1
    assert different  # else nothing is shown by it


def test_batches_change_nothing_and_a_seed_gives_the_same_again(talk):
    one, together = talk(name="one", data={"conversations_per_batch": 1})[0], talk(name="together")[0]
    assert sorted(map(str, one)) == sorted(map(str, together))
    sampled = Decoding(max_new_tokens=6)
    first, again, other = (talk(sampled, str(number), seed=seed)[0] for number, seed in enumerate((1, 1, 2)))
    assert first == again != other


def test_real_turns_and_a_card(talk, tmp_path):
    lines, openings = talk()
    real = [line for line in lines if line["system"] == "real" and line["conversation"] == 1]
    assert [line["speaker"] for line in real] == [None, "ben"] * (NUM_TURNS // 2)
    assert [line["text"] for line in real] == [text for _, text in openings.real_turns("ben", NUM_TURNS)]
    card = json.loads((tmp_path / "run" / "conversations.card.json").read_text())
    assert card["split"] == openings.splits["test"].reader.content
    assert (card["num_turns"], card["opening_turns"], card["max_context_tokens"]) == (NUM_TURNS, 2, WINDOW)


def test_a_run_that_is_stopped_leaves_nothing_that_looks_finished(talk, monkeypatch, tmp_path):
    talk()

    def stop(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr("lightning_modules.conversations.generate", stop)
    with pytest.raises(RuntimeError, match="killed"):
        talk()
    assert not [
        name for name in ("conversations.jsonl", "conversations.card.json") if (tmp_path / "run" / name).exists()
    ]


def test_what_is_wrong_is_said(talk, tiny_backbone, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights of user 'ada' in .*; train them with: lightning fit"):
        talk(adapters=tmp_path / "none")
    mixed = save_random_adapters(tmp_path / "mixed", tiny_backbone)
    save_random_adapters(mixed, tiny_backbone, users=["dan"], rank=3)
    with pytest.raises(ValueError, match=r"adapters of 'ada' and 'dan' .* differ in \['r'\]"):
        talk(adapters=mixed)
    with pytest.raises(ValueError, match=r"set decoding\.num_candidates to 1, got 2"):
        talk(Decoding(num_candidates=2))
    with pytest.raises(ValueError, match=r"num_turns must be 1 or more"):
        talk(num_turns=0)
