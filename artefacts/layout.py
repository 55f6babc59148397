"""Names of files and directories that one part of the project writes and another reads.

runs/<run>/<command>.card.json      what was run, with what, and whether it finished (fit, validate, test, predict)
           checkpoints/last.ckpt    where a stopped fit resumes
           backbone/                model, tokenizer, prompt.yaml and manifest.json
           adapters/<user>/         PEFT adapter and card.json
           models/<user>/           all weights of a user and card.json
           network/                 a learned Markov logic network and card.json
           predictions.jsonl        replies, with predictions.card.json
           conversations.jsonl      conversations, with conversations.card.json
           profiles.parquet         inferred profiles, with judgements.parquet
           test_users.csv           summed losses of a test, with test_users.card.json and swaps.csv
data/<corpus>/manifest.json         what a prepared corpus holds, with tokenizer/ and profiles.parquet
"""

from pathlib import Path
from urllib.parse import quote

from artefacts.fingerprints import sha256_of_content

RUNS = Path("runs")
LONGEST_NAME = 120
"""Characters of a file name, so that suffixes fit into the 143 bytes of encrypted file systems, 255 of others."""

CARD = "card.json"
MANIFEST = "manifest.json"
CHECKPOINT = Path("checkpoints") / "last.ckpt"

BACKBONE = "backbone"
MODEL_WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
PROMPT = "prompt.yaml"

ADAPTERS = "adapters"
MODELS = "models"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

NETWORK = "network"
NETWORK_WEIGHTS = "weights.safetensors"
VOCABULARY = "vocabulary.json"

PREDICTIONS = "predictions.jsonl"
CONVERSATIONS = "conversations.jsonl"
PROFILES = "profiles.parquet"
JUDGEMENTS = "judgements.parquet"
TEST_USERS = "test_users.csv"
SWAPS = "swaps.csv"


def card_of(path: Path) -> Path:
    """The card beside a file of a run: `predictions.card.json` beside `predictions.jsonl`."""
    return path.with_name(f"{path.stem}.{CARD}")


def describing_card(path: Path) -> Path:
    """The card that has the SHA-256 of a file (`artefacts/described.py`)."""
    if path.name == SWAPS:
        return card_of(path.with_name(TEST_USERS))
    return card_of(path) if path.name in (PREDICTIONS, CONVERSATIONS, TEST_USERS) else path.with_name(CARD)


def run_card(run: Path, command: str) -> Path:
    """The card of a command of the trainer (fit, validate, test, predict) in its run."""
    return run / f"{command}.{CARD}"


def user_directory(parent: Path, user: str) -> Path:
    """A user's directory below `adapters` or `models`; any name is safe, and no two names meet.

    The end of a long name is replaced by a hash after `=`, which no quoted name has.
    """
    name = quote(user, safe="").replace(".", "%2E")
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 33]}={sha256_of_content(user)[:32]}"
    return parent / name


def configs_of(run: Path) -> str | None:
    """The `--config` flags that make `runs/<run>`, by its name; None if there are no such files.

    A run is called after its experiment and conditions: `profile_mln_ja+pairs`.
    """
    experiment, *conditions = run.name.split("+")
    files = [Path("experiments") / f"{experiment}.yaml"]
    files += [Path("experiments/conditions") / f"{name}.yaml" for name in conditions]
    if run.parent.name != RUNS.name or not all(file.is_file() for file in files):
        return None
    return " ".join(f"--config {file}" for file in files)
