"""What the files of a run say of it beside its predictions: validation, and how large an adapter is."""

import json
import math
from pathlib import Path

from artefacts.files import read_json
from artefacts.layout import ADAPTER_WEIGHTS, ADAPTERS, run_card


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
