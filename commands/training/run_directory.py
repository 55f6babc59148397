"""What an earlier command left in a run: a stopped fit resumes, a finished one is kept, another's is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from artefacts import layout
from artefacts.described import require_whole_zip
from artefacts.locks import locked
from artefacts.run_card import (
    backbone_fingerprint,
    has_written,
    made_from,
    prepared_fingerprint,
    profiles_fingerprint,
    read_run_card,
)
from commands.training.run_name import differences, same_settings


@contextmanager
def one_at_a_time(directory: Path, subcommand: str) -> Iterator[None]:
    """Waits while another process runs the same command in a run, and then finds its results.

    The other ranks of a distributed run do not wait for their first.
    """
    if rank_zero_only.rank:
        yield
        return

    def wait() -> None:
        print(f"another process is at `lightning {subcommand}` of {directory}; waiting for it", flush=True)

    with locked(directory.parent / ".locks" / f"{directory.name}.{subcommand}", wait):
        yield


@dataclass(frozen=True)
class EarlierRun:
    """A run as an earlier command left it, if there was one.

    `reread` gives an earlier configuration as it would be read now: a setting that did not exist then gets its default,
    so that a new version finds the runs of the version before.
    """

    directory: Path  # it may be missing
    subcommand: str
    settings: dict[str, Any]  # the resolved configuration of the command, as plain values
    reread: Callable[[dict[str, Any]], dict[str, Any]]

    def checkpoint_of_a_fit(self) -> Path | None:
        """The checkpoint from which this fit resumes; None if it begins.

        Raises ValueError if it was trained with other settings or data, and SystemExit if it is already finished.
        """
        card = read_run_card(self.directory, "fit")
        if card is None:
            return None
        is_finished = card["status"] == "finished"
        has_results = has_written(self.directory, "fit", self.settings)
        checkpoint = self.directory / layout.CHECKPOINT
        if not (is_finished or has_results or checkpoint.is_file()):
            return None  # it was stopped before there was anything to resume from
        if difference := self._difference(card):
            raise ValueError(f"{self.directory} was trained {difference}; give another --run, or delete that directory")
        if is_finished and not has_results:
            raise ValueError(f"{self.directory} was finished, but what it made is gone; delete it to train anew")
        if is_finished:
            print(f"{self.directory} is finished already and is used as it is; delete it to train anew")
            raise SystemExit(0)
        if not checkpoint.is_file():
            return None
        require_whole_zip(checkpoint, "delete it: the same command then trains again what is not finished")
        return checkpoint

    def _difference(self, card: dict[str, Any]) -> str | None:
        """What of a fit was another one than it is now; None if all was the same."""
        if differing := differences(self.reread(card["config"]), self.settings, resumes=card["status"] != "finished"):
            return f"with other settings ({'; '.join(differing)})"
        backbone = backbone_fingerprint(self._init_from)
        if card["status"] == "finished" and backbone not in (None, card["backbone"]):
            return f"on backbone {card['backbone']}, but model.init_from is backbone {backbone} now"
        if self._prepared not in (None, card["prepared"]):
            return "on other prepared data than are there now"
        if profiles_fingerprint(self.settings) not in (None, card.get("profiles")):
            return "with other profiles than are in the file now"
        return None

    def leave_if_done(self) -> None:
        """Ends the command (SystemExit) if it has finished with the same settings, backbone and adapters."""
        card, path = read_run_card(self.directory, self.subcommand), layout.run_card(self.directory, self.subcommand)
        if (
            card is not None
            and card["status"] == "finished"
            and same_settings(self.reread(card["config"]), self.settings, self.subcommand)
            and backbone_fingerprint(self.directory / layout.BACKBONE, self._init_from) in (None, card["backbone"])
            and self._prepared in (None, card["prepared"])
            and profiles_fingerprint(self.settings) == card.get("profiles")
            and has_written(self.directory, self.subcommand, self.settings)
            and ("made_from" not in card or set(made_from(self.settings, self.directory)) <= set(card["made_from"]))
        ):
            print(f"{self.subcommand} of {self.directory} is done already; delete {path} to do it again")
            for name, value in card["metrics"].items():
                print(f"  {name}: {value:.4g}")
            raise SystemExit(0)

    @property
    def _init_from(self) -> str | None:
        return self.settings["model"]["init_args"].get("init_from")

    @property
    def _prepared(self) -> str | None:
        """Fingerprint of the prepared data, if they exist."""
        preparation = self.settings["data"]["init_args"].get("preparation") or {}
        return prepared_fingerprint(Path(preparation.get("output") or "."))
