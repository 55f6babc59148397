"""Who may import whom: the contracts in `setup.cfg`, and proof that they are looked at."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("artefacts", "datamodules", "lightning_modules", "callbacks", "evaluation", "commands")


def lint(cwd):
    """Import-linter's own command, in this process' environment."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    return subprocess.run(
        [*command, "--config", str(cwd / "setup.cfg"), "--no-cache"], cwd=cwd, capture_output=True, text=True
    )


def test_no_room_imports_a_higher_one():
    run = lint(ROOT)
    assert run.returncode == 0, run.stdout
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    contracts = [name for name in parser.sections() if name.startswith("importlinter:contract")]
    assert f"Contracts: {len(contracts)} kept, 0 broken." in run.stdout
    names = {"layers", "evaluation", "artefacts", "corpora", "datamodules", "lightning_modules"}
    assert {name.rpartition(":")[2] for name in contracts} >= names


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("datamodules/corpora/records.py", "torch", "corpora"),
        ("datamodules/preparation/pairs.py", "lightning", "corpora"),
        ("datamodules/preparation/pairs.py", "datamodules.prompts.rendering", "data"),
        ("datamodules/batches.py", "lightning_modules.backbones.likelihood", "layers"),
        ("lightning_modules/backbones/likelihood.py", "datamodules.users.user_rows", "models"),
        ("lightning_modules/backbones/t5.py", "callbacks.run_card", "layers"),
        ("callbacks/run_card.py", "evaluation.report.cells", "layers"),
        ("evaluation/report/cells.py", "datamodules.prompts.rendering", "evaluation"),
        ("evaluation/report/cells.py", "lightning", "evaluation"),
        ("evaluation/report/cells.py", "commands.table", "layers"),
        ("artefacts/files.py", "numpy", "artefacts"),
    ],
)
def test_an_import_from_a_higher_room_is_found(tmp_path, module, imported, contract):
    for path in [ROOT / "setup.cfg", *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    with (tmp_path / module).open("a") as file:
        file.write(f"\nimport {imported}\n")
    run = lint(tmp_path)
    assert run.returncode == 1
    assert any(line.startswith(contract) and "BROKEN" in line for line in run.stdout.splitlines()), run.stdout


def test_corpora_and_preparation_load_without_torch():
    code = "import sys, datamodules.corpora, datamodules.preparation.settings; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "openpyxl"} & set(run.stdout.split())
