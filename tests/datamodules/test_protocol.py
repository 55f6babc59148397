"""What is asked of data modules: nothing that a protocol does not declare, and every data module has its part."""

import ast
import inspect
import textwrap
from pathlib import Path

import pytest
import yaml
from lightning import Trainer
from stopping import QUIET

import datamodules
import lightning_modules
from datamodules import UserSets, protocol
from datamodules.protocol import Evidence, Prepared, Replies, Talks, UserReplies
from lightning_modules import ProfileSeq2Seq

ROOT = Path(__file__).parents[2]
ASKED = {
    "adapter_module": UserReplies,
    "conversations": Talks,
    "joint_tuning": Replies,
    "profile_network": Evidence,
    "prompted_llm": UserReplies,
    "reply_module": Replies,
    "retrieved_reply": UserReplies,
    "seq2seq": Replies,
    "user_lora": UserReplies,
    "user_module": UserReplies,
    "user_tuning": UserReplies,
    "backbone_export": Replies,
    "conversation_writer": Talks,
    "prediction_writer": Replies,
    "profile_writer": Evidence,
    "run_card": Prepared,
    "sample_replies": Replies,
}
FILES = sorted(path for room in ("lightning_modules", "callbacks") for path in (ROOT / room).rglob("*.py"))


def members(asked):
    """Names that a protocol declares."""
    bases = [base for base in asked.__mro__ if base.__module__ == protocol.__name__]
    names = {name for base in bases for name in [*vars(base), *base.__annotations__]}
    return {name for name in names if not name.startswith("_")}


def is_data(node):
    return isinstance(node, ast.Attribute) and node.attr == "datamodule"


def asked_in(function):
    """Attributes of `trainer.datamodule`, of names for it, and of arguments that are declared as data modules."""
    names = {
        argument.arg
        for argument in function.args.args
        if isinstance(argument.annotation, ast.Name) and hasattr(protocol, argument.annotation.id)
        if getattr(protocol, argument.annotation.id).__module__ == protocol.__name__
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and is_data(node.value):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        if is_data(node.value) or (isinstance(node.value, ast.Name) and node.value.id in names)
    }


def asked_by(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for name in asked_in(node)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_what_is_declared_is_asked_for(path):
    anything = set().union(*map(members, (UserReplies, Talks, Evidence)))
    declared = members(ASKED[path.stem]) if path.stem in ASKED else anything
    assert asked_by(path) - declared == set()
    assert "getattr(data" not in path.read_text(encoding="utf-8")


def test_what_is_declared_is_asked_for_somewhere():
    anything = set().union(*map(members, (UserReplies, Talks, Evidence)))
    assert anything - set().union(*map(asked_by, FILES)) == set()


def pairs_of_experiments():
    """LightningModules and the data modules that our experiments give them."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "experiments").glob("*.yaml")]
    paths = [[content[part]["class_path"] for part in ("model", "data")] for content in files if "model" in content]
    return sorted({tuple(path.rpartition(".")[-1] for path in pair) for pair in paths})


def attributes_of(cls):
    """Attributes of a data module: those of its class, and those that its methods give it."""
    names = set(dir(cls))
    for base in cls.__mro__:
        if base.__module__.startswith(datamodules.__name__):
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                targets = [one for target in targets for one in getattr(target, "elts", [target])]
                names |= {target.attr for target in targets if isinstance(target, ast.Attribute)}
    return names


@pytest.mark.parametrize(("module", "data"), pairs_of_experiments())
def test_a_data_module_has_what_its_module_asks_for(module, data):
    asked = ASKED[getattr(lightning_modules, module).__module__.rpartition(".")[-1]]
    cls = getattr(datamodules, data)
    assert members(asked) - attributes_of(cls) == set()
    for name in members(asked):
        declared, own = getattr(asked, name, None), getattr(cls, name, None)
        assert inspect.isfunction(declared) == inspect.isfunction(own), f"{name} has two meanings"
        if inspect.isfunction(declared):
            assert list(inspect.signature(declared).parameters) == list(inspect.signature(own).parameters)


def test_every_data_module_is_in_an_experiment():
    assert {data for _, data in pairs_of_experiments()} == set(datamodules.__all__)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pre_training_goes_on_user_sets_too(preparation, tmp_path):
    """Two steps; a loss is per label token of a batch, as the mean over the round says."""
    from torch.optim import SGD

    data = UserSets(preparation, rows_per_user=4)
    module = ProfileSeq2Seq("tiny", optimizer=lambda parameters: SGD(parameters, lr=0.01))
    trainer = Trainer(max_steps=2, limit_val_batches=0, default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    trainer.fit(module, data)
    assert trainer.global_step == 2
    data.next_round(dict.fromkeys(data.users, 0))
    batches = list(data.train_dataloader())
    labels = sum(int((batch.labels >= 0).sum()) for batch in batches)
    assert data.label_tokens_per_batch == pytest.approx(labels / len(batches))
