"""What the files of a run say of it beside its predictions: validation, and how large an adapter is.

In: run directories. Out: `Score` records of the metrics `rendering.OF_A_RUN`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from evaluation.scores.user_scores import RUN, Score


def run_facts(runs: Mapping[str, Path], paper: Mapping[str, float]) -> list[Score]:
    """Figures that have no interval: of the paper, of validation, and the size of an adapter.

    Args:
        runs: system -> its run directory.
        paper: system -> the similarity that the paper reports for it.
    """
    facts = [(name, "paper_similarity", value) for name, value in paper.items()]
    for name, run in runs.items():
        if (size := adapter_size(run)) is not None:
            facts += [(name, "adapter_parameters", size[0]), (name, "adapter_bytes", size[1])]
        if (validated := validation_perplexity(run)) is not None:
            facts.append((name, "validation_perplexity", validated))
    return [Score(name, RUN, metric, float(value), None, None, 1) for name, metric, value in facts]


def adapter_size(run: Path) -> tuple[int, int] | None:
    """Parameters and bytes on disk of one user's adapter, the largest in a run; None where there are none."""
    found = []
    for path in run.glob("adapters/*/adapter_model.safetensors"):
        with path.open("rb") as file:  # eight bytes with the length of a header, then the header, then numbers
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        found.append((sum(math.prod(shape) for shape in shapes), path.stat().st_size))
    return max(found, default=None)


def validation_perplexity(run: Path) -> float | None:
    """Mean over users of the perplexity of their validation turns, each at their best epoch; None where unknown."""
    card = run / "fit.card.json"
    metrics = json.loads(card.read_text(encoding="utf-8")).get("metrics", {}) if card.is_file() else {}
    return metrics.get("val/best_macro_perplexity")
