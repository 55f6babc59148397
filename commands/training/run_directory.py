"""What is in the directory of a run already: a stopped fit goes on, what is finished is left alone, another is refused.

In: a run directory with its run cards, and the settings of the command. Out: a checkpoint, or the end of the command.
As a part of the command line it knows the run cards.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from commands.training.run_name import differences, same_settings

CHECKPOINT = Path("checkpoints") / "last.ckpt"
ARTEFACTS = (  # of a fit, one of them
    "backbone/manifest.json",
    "adapters/*/card.json",
    "models/*/card.json",
    "network/weights.safetensors",
)
WRITTEN = {  # by a command that is finished, one of them
    "test": ("test_users.csv", "judgements.parquet"),
    "predict": ("predictions.jsonl", "profiles.parquet", "conversations.jsonl"),
}


@contextmanager
def one_at_a_time(directory: Path, subcommand: str) -> Iterator[None]:
    """Waits while another process does the same with a run: it goes on behind it, and finds what it has made.

    The further processes of a distributed run do not wait for their first.
    """
    if rank_zero_only.rank:
        yield
        return
    locks = directory.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{directory.name}.{subcommand}").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is at `lightning {subcommand}` of {directory}; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class EarlierRun:
    """A run as an earlier command left it, if there was one.

    Args:
        directory: of the run; it may be missing.
        subcommand: of the trainer.
        settings: the resolved configuration of the command, as plain values.
        read_again: gives an earlier configuration as it would be read now: a setting that there was not then has its
            default, so that a new version finds the runs of the one before.
    """

    directory: Path
    subcommand: str
    settings: dict[str, Any]
    read_again: Callable[[dict[str, Any]], dict[str, Any]]

    @property
    def checkpoint(self) -> Path:
        """Where a fit that was stopped goes on, if the file is there."""
        return self.directory / CHECKPOINT

    def checkpoint_of_a_fit(self) -> Path | None:
        """The checkpoint from which this fit goes on; None where it begins.

        Raises:
            ValueError: it was trained with other settings or data.
            SystemExit: it is finished, and is left as it is.
        """
        path = self.directory / "fit.card.json"
        if not path.is_file():
            return None
        card = json.loads(path.read_text())
        anything = any(any(self.directory.glob(pattern)) for pattern in ARTEFACTS)
        if card["status"] != "finished" and not self.checkpoint.is_file() and not anything:
            return None  # it was stopped before there was anything to go on from
        if differing := differences(self.read_again(card["config"]), self.settings):
            raise ValueError(
                f"{self.directory} was trained with other settings ({'; '.join(differing)}); "
                "give another --run, or delete that directory"
            )
        if card["status"] == "finished":
            if self._backbone_now() not in (None, card["backbone"]):
                raise ValueError(
                    f"{self.directory} was trained on backbone {card['backbone']}, but model.init_from is backbone "
                    f"{self._backbone_now()} now; give another --run, or delete that directory"
                )
            if not anything:
                raise ValueError(f"{self.directory} was finished, but what it made is gone; delete it to train anew")
            self._refuse_other_data(card)
            print(f"{self.directory} is finished already and is used as it is; delete it to train anew")
            raise SystemExit(0)
        self._refuse_other_data(card)
        return self.checkpoint if self.checkpoint.is_file() else None

    def _refuse_other_data(self, card: dict[str, Any]) -> None:
        if self._prepared_now() not in (None, card["prepared"]):
            raise ValueError(
                f"{self.directory} was trained on other prepared data than are there now; give another --run, or "
                "delete that directory"
            )
        if self._profiles_now() not in (None, card.get("profiles")):
            raise ValueError(
                f"{self.directory} was trained with other profiles than are in the file now; give another --run, "
                "or delete that directory"
            )

    def leave_if_done(self) -> None:
        """Leaves a finished test or prediction alone, with SystemExit, if it is of the same settings, backbone and
        adapters."""
        path = self.directory / f"{self.subcommand}.card.json"
        if not path.is_file():
            return
        card = json.loads(path.read_text())
        if (
            card["status"] == "finished"
            and same_settings(self.read_again(card["config"]), self.settings, self.subcommand)
            and self._backbone_now(self.directory / "backbone") in (None, card["backbone"])
            and self._prepared_now() in (None, card["prepared"])
            and self._profiles_now() == card.get("profiles")
            and any((self.directory / name).is_file() for name in WRITTEN.get(self.subcommand, (path.name,)))
            and all(file.stat().st_mtime < path.stat().st_mtime for file in self._made_from())
        ):
            print(f"{self.subcommand} of {self.directory} is done already; delete {path} to do it again")
            for name, value in card["metrics"].items():
                print(f"  {name}: {value:.4g}")
            raise SystemExit(0)

    def _made_from(self) -> list[Path]:
        """What a test or prediction is made from and its card has no fingerprint of."""
        model, data = (self.settings[part]["init_args"] for part in ("model", "data"))
        adapters = Path(model.get("adapters") or self.directory / "adapters")
        found = [*adapters.glob("*/card.json"), *self.directory.glob("models/*/card.json")]
        if chat_model := (model.get("chat_model") or {}).get("init_args", {}).get("directory"):
            found += [*Path(chat_model).glob("*.safetensors"), Path(chat_model) / "config.json"]
        if data.get("conversations"):
            found += [Path(data["conversations"]), Path(data["network"] or self.directory) / "vocabulary.json"]
        return [path for path in found if path.is_file()]

    def _prepared_now(self) -> str | None:
        """Fingerprint of the prepared data, if they are there."""
        from callbacks.run_card import fingerprint_of

        preparation = self.settings["data"]["init_args"].get("preparation") or {}
        return fingerprint_of(Path(preparation.get("output") or ".") / "manifest.json")

    def _profiles_now(self) -> str | None:
        """Fingerprint of the profiles that the prompts are made from, where a file is named."""
        from callbacks.run_card import fingerprint_of_profiles

        return fingerprint_of_profiles(self.settings)

    def _backbone_now(self, first: Path | None = None) -> str | None:
        """Fingerprint of the backbone in a directory, or else of that which `init_from` names; None without one."""
        for directory in (first, self.settings["model"]["init_args"].get("init_from")):
            if directory and (manifest := Path(directory) / "manifest.json").is_file():
                return json.loads(manifest.read_text())["fingerprint"]
        return None
