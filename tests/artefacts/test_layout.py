"""Which experiment files a run was made from, by its name."""

from pathlib import Path

import pytest

from artefacts.layout import configs_of


@pytest.mark.parametrize(
    ("run", "flags"),
    [
        ("runs/mln", "--config experiments/mln.yaml"),
        ("runs/mln+pairs", "--config experiments/mln.yaml --config experiments/conditions/pairs.yaml"),
        ("runs/mln+missing", None),
        ("runs/lora", None),
        ("elsewhere/mln", None),
    ],
)
def test_configs_of(tmp_path, monkeypatch, run, flags):
    monkeypatch.chdir(tmp_path)
    for name in ("mln.yaml", "conditions/pairs.yaml"):
        (Path("experiments") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("experiments") / name).touch()
    assert configs_of(Path(run)) == flags
