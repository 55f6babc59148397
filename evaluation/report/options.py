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
    """Settings of a table of systems.

    Attributes:
        title: Headline of the table and of the picture.
        encoder: Of similarities; None for none.
        bootstrap: Draws the intervals; its seed is that of all that is drawn.
        unit: What n-grams and lengths count.
        prepared: The prepared corpus, for the table with the persons; None for none.
        scores: Names of the figures that get a column; None for all.
        per_user: Are single users shown?
        curve: Settings of which the picture is a curve.
        paper: System → the similarity that the paper reports for it.
        mauve: Is MAUVE computed?
        wandb_project: Also logs the scores to this project of Weights & Biases; None for none.
    """

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
