"""The systems of a table: their predictions and cards, as far as they can be compared with the first of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artefacts.predictions import Prediction
from evaluation.results.cards import check_same_split, is_of_other_weights, on_other_backbones, read_card
from evaluation.results.predictions import check_same_pairs, read_predictions
from evaluation.results.training_turns import check_corpus


@dataclass(frozen=True)
class Systems:
    """What is compared."""

    predictions: dict[str, list[Prediction]]  # of each system that is scored; the first is the reference
    cards: dict[str, dict[str, Any]]
    runs: dict[str, Path]  # the directories they are in
    failed: dict[str, str]  # other systems of the table, and the reason

    @property
    def reference(self) -> str:
        """The system that the others are compared to."""
        return next(iter(self.predictions))


def read_systems(
    paths: Mapping[str, Path], may_fail: Collection[str], failed: Mapping[str, str], prepared: Path | None
) -> Systems:
    """Reads the predictions of all systems.

    Args:
        paths: Name of a system and its predictions.jsonl.
        may_fail: Systems without which the table is made where something is wrong with them.
        failed: Systems that have no predictions, and the reason.
        prepared: The prepared corpus that they must be of, if any.

    Raises:
        ValueError: Something is wrong with another system, or every system has failed.
        FileNotFoundError: A file of another system is missing.
    """
    systems = Systems({}, {}, {name: path.parent for name, path in paths.items()}, dict(failed))
    for name, path in paths.items():
        try:
            _add(systems, name, path, prepared)
        except (ValueError, FileNotFoundError) as error:
            if name not in may_fail:
                raise
            systems.failed[name] = str(error)
    for name, reason in on_other_backbones(systems.cards).items():
        if name not in may_fail:
            raise ValueError(reason)
        systems.failed[name] = reason
        del systems.predictions[name], systems.cards[name]
    if not systems.predictions:
        raise ValueError("every system has failed: " + "; ".join(f"{n}: {why}" for n, why in systems.failed.items()))
    for name in systems.failed:
        systems.runs.pop(name, None)
    return systems


def _add(systems: Systems, name: str, path: Path, prepared: Path | None) -> None:
    """Adds a system if it can be compared with the first one."""
    card, records = read_card(path), read_predictions(path)
    if is_of_other_weights(card, path.parent):
        raise ValueError(f"{path} was made with other weights than those beside it; run `lightning predict` again")
    if prepared:
        check_corpus(name, card, prepared)
    if systems.predictions:
        reference = systems.reference
        check_same_split(reference, systems.cards[reference], name, card)
        check_same_pairs(reference, systems.predictions[reference], name, records)
    systems.predictions[name], systems.cards[name] = records, card
