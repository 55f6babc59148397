"""What `lightning test` leaves in a run (`artefacts/user_sums.py`), if it is of the weights that predicted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artefacts.described import require_described
from artefacts.files import read_object
from artefacts.layout import SWAPS, TEST_USERS, card_of, run_card
from artefacts.user_sums import Losses, read_kinds, read_swaps
from evaluation.results.cards import is_of_other_weights

KINDS = ("own", "train", "general", "other")


@dataclass(frozen=True)
class TestSums:
    """The sums of one run."""

    __test__ = False  # not a test of pytest's

    sums: Mapping[str, Losses]  # kind → user → (nats, label tokens); kinds that were not tested are missing
    swaps: Mapping[str, Losses] | None  # user → adapter's user → (nats, label tokens)
    num_train_turns: int  # of a user, at most
    num_general_pairs: int  # of other people


def read_test(run: Path, predicted: Mapping[str, object]) -> TestSums | None:
    """The sums of a run; None where it was not tested.

    Raises:
        ValueError: A file is damaged, or of other weights, or of another backbone or split than the card of the
            predictions says.
    """
    path, swaps = run / TEST_USERS, run / SWAPS
    if not path.is_file():
        return None
    repeat = f"delete {run_card(run, 'test')} and run `lightning test` of that experiment again"
    if not card_of(path).is_file():
        raise ValueError(f"{path} has no {card_of(path).name}: that test was not finished; {repeat}")
    card = read_object(card_of(path), mend=repeat)
    require_described(card_of(path), repeat)
    for key in ("backbone", "split"):
        if predicted.get(key) and card.get(key) != predicted[key]:
            raise ValueError(
                f"{path} is of {key} {card.get(key)}, the predictions beside it are of {predicted[key]}; {repeat}"
            )
    if is_of_other_weights(card, run):
        raise ValueError(f"{path} is of other weights than those in {run}; {repeat}")
    return TestSums(
        read_kinds(path, KINDS),
        read_swaps(swaps) if swaps.is_file() else None,
        card.get("train_turns", 0),
        card.get("general_pairs", 0),
    )


def read_tests(
    runs: Mapping[str, Path], cards: Mapping[str, Mapping[str, object]]
) -> tuple[dict[str, TestSums], list[str]]:
    """The sums of each system's run, and why those of some are left out."""
    tests, notes = {}, []
    for name, run in runs.items():
        try:
            if (test := read_test(run, cards[name])) is not None:
                tests[name] = test
        except ValueError as error:
            notes.append(f"{name}: its test is left out: {error}")
    return tests, notes
