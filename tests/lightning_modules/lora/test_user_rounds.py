"""Slots, queue and the judgement of epochs, by hand."""

import csv
import math

import pytest
import torch

from artefacts.user_sums import write_kinds
from lightning_modules.backbones.user_totals import UserTotals
from lightning_modules.lora.user_rounds import UserProgress, UserRounds, macro_perplexity


def begin(user: str) -> UserProgress:
    return UserProgress(user, num_steps=10, tokens_per_batch=4.0)


@pytest.mark.parametrize(
    ("losses", "are_best", "best_epoch", "best_loss", "epochs_without_gain"),
    [
        ((3.0, 2.0, 2.0, 2.5, 1.9), [True, True, False, False, True], 5, 1.9, 0),
        ((1.0, 2.0, 3.0), [True, False, False], 1, 1.0, 2),
        ((None, None, None), [True] * 3, 3, None, 0),  # without validation turns the last epoch counts
    ],
)
def test_an_epoch_is_the_best_when_its_loss_is_lower(losses, are_best, best_epoch, best_loss, epochs_without_gain):
    progress = begin("ada")
    assert [progress.end_epoch(loss) for loss in losses] == are_best
    assert progress.epoch == len(losses)
    assert (progress.best_epoch, progress.best_loss) == (best_epoch, best_loss)
    assert progress.epochs_without_gain == epochs_without_gain


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_the_failure_of_its_user_alone(loss):
    rounds = UserRounds(["ada", "ben"], num_slots=2)
    rounds.fill(begin)
    ada, ben = rounds.slots
    assert rounds.end_epoch(ada, 2.0)
    assert not rounds.end_epoch(ada, loss)
    assert rounds.end_epoch(ben, 3.0)
    assert rounds.failed == {"ada": f"the validation loss is {loss} after epoch 2"}
    assert (ada.best_epoch, rounds.best_losses) == (1, {"ben": 3.0})
    again = UserRounds([], 0)
    again.load_state_dict(rounds.state_dict("b1"), "b1")
    assert again.failed == rounds.failed
    assert macro_perplexity({"ada": 1e4, "ben": 0.0}) == math.inf  # on the way there, a loss may be any number


def test_free_slots_go_to_those_who_wait_in_order():
    rounds = UserRounds(["ada", "ben", "cleo", "dan"], num_slots=2)
    assert rounds.fill(begin) == [0, 1]
    assert rounds.slots_of(["ben", "ada"]) == [1, 0]
    assert rounds.waiting == ["cleo", "dan"]
    rounds.slots[0] = None
    assert rounds.fill(begin) == [0]
    assert {slot: progress.user for slot, progress in rounds.active.items()} == {0: "cleo", 1: "ben"}
    rounds.slots = [None, None]
    assert rounds.fill(begin) == [0]
    assert (rounds.waiting, list(rounds.active)) == ([], [0])


def test_a_rounds_comes_back_from_its_state():
    rounds = UserRounds(["ada", "ben", "cleo"], num_slots=2)
    rounds.fill(begin)
    rounds.slots[0].end_epoch(2.0)
    rounds.slots[1] = None
    rounds.best_losses["ada"] = 2.0
    again = UserRounds([], 0)
    again.load_state_dict(rounds.state_dict("b1"), "b1")
    assert (again.slots, again.waiting, again.best_losses) == (rounds.slots, ["cleo"], {"ada": 2.0})
    with pytest.raises(ValueError, match="made on backbone b1, init_from is b2"):
        again.load_state_dict(rounds.state_dict("b1"), "b2")


def test_totals_of_users_by_hand(tmp_path):
    totals = UserTotals()
    # two rows of each user, the second of them empty
    totals.add("base", ["ada", "ben"], torch.tensor([4.0, 0.0, 3.0, 3.0]), torch.tensor([2, 0, 1, 1]))
    totals.add("base", ["ada"], torch.tensor([2.0, 0.0]), torch.tensor([1, 0]))
    assert totals.losses("base") == {"ada": 2.0, "ben": 3.0}
    assert totals.perplexity("base") == pytest.approx(math.exp(12 / 5))
    assert macro_perplexity(totals.losses("base")) == pytest.approx((math.e**2 + math.e**3) / 2)
    totals.add("own", ["ben"], torch.tensor([1.0, 0.5]), torch.tensor([1, 1]))
    write_kinds(tmp_path / "run" / "users.csv", totals.sums())
    rows = list(csv.reader((tmp_path / "run" / "users.csv").open()))
    assert rows == [
        ["user", "base_nll", "base_tokens", "own_nll", "own_tokens"],
        ["ada", "6.0", "3", "0.0", "0"],
        ["ben", "6.0", "2", "1.5", "2"],
    ]
    assert not list(tmp_path.rglob("*.partial"))
