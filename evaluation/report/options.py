"""What a table of systems is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.metrics.similarity import TextEncoder
from evaluation.metrics.text_metrics import Unit
from evaluation.scores.registry import FIGURES
from evaluation.statistics.bootstrap import Bootstrap


@dataclass(frozen=True)
class Options:
    """Settings of a table of systems, as `lightning table --help` describes them."""

    title: str
    encoder: TextEncoder | None
    bootstrap: Bootstrap
    unit: Unit
    prepared: Path | None
    scores: tuple[str, ...] | None
    per_user: bool
    curve: tuple[str, ...]
    paper: Mapping[str, float]
    mauve: bool
    wandb_project: str | None

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the figures that get a column where some system has them."""
        return tuple(FIGURES) if self.scores is None else self.scores

    @property
    def encoder_name(self) -> str:
        """As table.csv and axes name it."""
        return "none" if self.encoder is None else self.encoder.name
