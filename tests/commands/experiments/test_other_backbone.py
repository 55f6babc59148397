"""A table on other backbones: what takes their place in its rows and in the commands before it."""

from pathlib import Path

import pytest
import yaml

from commands.experiments import child_process
from commands.experiments.before import run_before
from commands.experiments.experiment import Experiment, experiment_of, moved
from commands.experiments.other_backbone import places_of
from commands.table import Table


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes experiment files: a name, and what its model and its data are given."""
    monkeypatch.chdir(tmp_path)

    def write(name, model=None, data=None):
        settings = {"model": {"init_args": model or {}}, "data": {"init_args": data or {}}}
        Path(name).write_text(yaml.safe_dump(settings, sort_keys=False))
        return name

    return write


def test_other_backbones_take_the_place_of_those_that_are_named(written):
    small, on_psp = (written(f"{name}.yaml", {"init_from": f"runs/{name}/backbone"}) for name in ("small", "psp"))
    pretraining, none = written("psp_itself.yaml"), written("none.yaml")
    systems = {
        "file": Path("predictions.jsonl"),
        "lookup": Experiment(none, commands=["predict"]),
        "base": Experiment(small, commands=["predict"]),
        "named": Experiment(none, {"model.init_from": "runs/small/backbone", "n": 1, "run": "ten"}),
    }
    places = places_of(systems, Path("runs/large"))
    assert places == {"runs/small/backbone": "runs/large"}
    assert systems["lookup"].on(places) is systems["lookup"]
    assert systems["base"].on(places) == Experiment(small, {"model.init_from": "runs/large"}, ["predict"])
    assert systems["named"].on(places) == Experiment(
        none, {"model.init_from": "runs/large", "n": 1, "run": "ten,init_from=runs-large"}
    )
    with pytest.raises(ValueError, match="runs/large: no experiment of this table names a backbone"):
        places_of({"lookup": Experiment(none, commands=["predict"])}, Path("runs/large"))
    systems |= {"base psp": Experiment(pretraining), "LoRA psp": Experiment([small, on_psp])}
    with pytest.raises(ValueError, match=r"\['LoRA psp', 'base psp'\] would stay on "):
        places_of(systems, Path("runs/large"))
    with pytest.raises(ValueError, match="no experiment of this table is on runs/ppp/backbone"):
        places_of(systems, {"runs/ppp/backbone": Path("x")})
    seeded = Experiment(pretraining, {"seed_everything": 1})
    assert seeded.makes == "runs/psp_itself/backbone with {'seed_everything': 1}"
    mapping = {f"runs/{name}/backbone": Path(f"large/{name}") for name in ("small", "psp", "psp_itself")}
    places = places_of(systems, mapping)
    on_large = {"model.init_from": "large/psp_itself"}
    assert systems["base psp"].on(places) == Experiment(pretraining, on_large, ["predict"])
    assert systems["LoRA psp"].on(places) == Experiment([small, on_psp], {"model.init_from": "large/psp"})


def test_the_experiment_of_a_command(written):
    small = written("small.yaml", {"init_from": "runs/small/backbone"})
    command = f"predict --config={small} --run mine --config b.yaml --model.init_from=runs/x/backbone"
    one = experiment_of(command.split())
    assert (one.files, one.name, one.backbone) == ([small, "b.yaml"], "mine", "runs/x/backbone")
    assert one.on({"runs/small/backbone": "large"}) is one
    assert experiment_of(["fit", "--config", "a.yaml", "--config", "b.yaml"]).name == "a+b"


def test_backbones_that_change_places(written, tmp_path, commands):
    """Each is replaced once: what takes the place of one may be named by another."""
    files = {name: written(f"{name}.yaml", {"init_from": f"runs/{name}/backbone"}) for name in ("small", "base")}
    for name in ("base", "large"):
        (tmp_path / "runs" / name / "backbone").mkdir(parents=True)
        (tmp_path / "runs" / name / "backbone" / "manifest.json").touch()
    new = {"runs/small/backbone": "runs/base/backbone", "runs/base/backbone": "runs/large/backbone"}
    systems = {name: Experiment(file, commands=["predict"]) for name, file in files.items()}
    backbone = {old: Path(directory) for old, directory in new.items()}
    table = Table(systems, tmp_path / "out", backbone=backbone, encoder=None, per_user=False)
    with pytest.raises(ValueError, match="every system has failed"):  # their predictions are invented, and empty
        table.run()
    assert [one.backbone for one in table.systems.values()] == list(new.values())


def test_paths_in_a_directory_that_has_moved():
    new = {"runs/a": "runs/b", "runs/a/x/y": "runs/b/x/y", "runs/ab/x": "runs/ab/x", "x/runs/a": "x/runs/a"}
    assert {path: moved(path, {"runs/a": "runs/b"}) for path in new} == new


def test_what_commands_before_a_table_make_from_another_backbone(commands, written, tmp_path, monkeypatch, capsys):
    """Adapters of another backbone talk, and a network reads what they have said; each run is told where that is."""
    written("small.yaml")
    written("lora.yaml", {"init_from": "runs/small/backbone", "rank": 12})
    written("talk.yaml", {"init_from": "runs/small/backbone", "adapters": "runs/lora/adapters"})
    written("judge.yaml", {"formulas": "en.mln"}, {"heard": "runs/talk/said.jsonl", "network": "runs/network/network"})
    monkeypatch.setattr(child_process, "finished", lambda _: pytest.fail("asked for under their old names"))
    before = ["prepare --config corpus.yaml", "fit --config small.yaml", "fit --config lora.yaml"]
    before += ["predict --config talk.yaml", "predict --config judge.yaml"]
    places = run_before(before, tmp_path, {"runs/small/backbone": "large"})
    runs = f"{tmp_path}/runs"
    assert [" ".join(one) for one in commands] == [
        "prepare --config corpus.yaml",
        "fit --config lora.yaml --model.init_from=large",
        f"predict --config talk.yaml --model.init_from=large --model.adapters={runs}/lora/adapters",
        f"predict --config judge.yaml --data.heard={runs}/talk/said.jsonl",
    ]
    assert places == {f"runs/{name}": f"{runs}/{name}" for name in ("lora", "talk", "judge")}
    assert "[before, 2 of 5] fit --config small.yaml: large takes its place" in capsys.readouterr().out


def test_a_backbone_that_is_not_there_is_said_before_anything_is_run(commands, tmp_path):
    (tmp_path / "a.yaml").write_text("model: {init_args: {init_from: runs/small/backbone}}")
    table = Table({"a": Experiment(str(tmp_path / "a.yaml"))}, tmp_path, backbone=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no backbone in .*nowhere: expected what `lightning fit`"):
        table.run()
    assert commands == []
