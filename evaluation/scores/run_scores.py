"""Figures of a run beside its predictions, none with an interval: the paper's, validation's, the size of an adapter."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from artefacts.files import read_json
from artefacts.layout import ADAPTER_WEIGHTS, ADAPTERS, run_card
from evaluation.scores.figure import RUN, Figure, Score

PAPER_SIMILARITY = Figure(
    "paper_similarity",
    "sim in the paper",
    (RUN,),
    ".2f",
    description="sim in the paper (Otsuka et al. 2024): of 222M parameters, Japanese, other people and an encoder that "
    "is not stated; it does not compare. It is the best that is reported, of which prompt and corpus is not stated "
    "either: the row in which it stands is our choice.",
)
VALIDATION_PERPLEXITY = Figure("validation_perplexity", "macro ppl in validation", (RUN,), ".2f")
ADAPTER_PARAMETERS = Figure("adapter_parameters", "parameters of an adapter", (RUN,), ",.0f")
ADAPTER_BYTES = Figure("adapter_bytes", "kB on disk", (RUN,), ",.0f", scale=1 / 1000)
RUN_FIGURES = (PAPER_SIMILARITY, VALIDATION_PERPLEXITY, ADAPTER_PARAMETERS, ADAPTER_BYTES)


def run_scores(runs: Mapping[str, Path], paper: Mapping[str, float]) -> list[Score]:
    """The figures of each run that has them; `paper` names the similarity that the paper reports for a system."""
    facts = [(name, PAPER_SIMILARITY, value) for name, value in paper.items()]
    for name, run in runs.items():
        if (size := adapter_size(run)) is not None:
            facts += [(name, ADAPTER_PARAMETERS, size[0]), (name, ADAPTER_BYTES, size[1])]
        if (validated := validation_perplexity(run)) is not None:
            facts.append((name, VALIDATION_PERPLEXITY, validated))
    return [Score(name, RUN, figure.name, float(value), None, None, 1) for name, figure, value in facts]


def adapter_size(run: Path) -> tuple[int, int] | None:
    """Parameters and bytes on disk of one user's adapter, the largest in a run; None where there are none."""
    sizes = []
    for path in run.glob(f"{ADAPTERS}/*/{ADAPTER_WEIGHTS}"):
        with path.open("rb") as file:  # eight bytes with the length of a header, then the header, then numbers
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        sizes.append((sum(math.prod(shape) for shape in shapes), path.stat().st_size))
    return max(sizes, default=None)


def validation_perplexity(run: Path) -> float | None:
    """Mean over users of the perplexity of their validation turns, each at their best epoch; None where unknown."""
    card = run_card(run, "fit")
    metrics = read_json(card).get("metrics", {}) if card.is_file() else {}
    return metrics.get("val/best_macro_perplexity")
