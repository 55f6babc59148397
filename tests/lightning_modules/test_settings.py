"""Settings out of range, of everything that is trained, read or decoded with: refused where they are declared."""

import math
from pathlib import Path

import pytest
import torch

from datamodules import ReplyPairs, UserSets
from lightning_modules import Conversations, ProfileSeq2Seq, UserLora, UserTuning
from lightning_modules.backbones.generation import Decoding
from lightning_modules.chat.models import ChatDecoding
from lightning_modules.schedules import WarmupLinear


def schedule(warmup_share):
    return WarmupLinear(torch.optim.SGD([torch.zeros(1)], lr=1.0), num_steps=3, warmup_share=warmup_share)


def build(kind):
    """A class with what it requires besides the setting."""
    here = Path()
    required = {UserLora: [here], UserTuning: [here], Conversations: [here, here], UserSets: [None], ReplyPairs: [None]}
    return lambda **settings: kind(*required.get(kind, []), **settings)


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (UserLora, "learning_rate", (0, -1e-3, math.nan, math.inf)),
        (UserLora, "alpha", (0, -1, math.nan)),
        (UserLora, "rank", (0, -1, None)),
        (UserLora, "warmup_share", (-0.1, 2, math.nan)),
        (UserLora, "weight_decay", (-1, math.nan)),
        (UserLora, "max_grad_norm", (-1, math.nan)),
        (UserLora, "max_epochs", (0, -1, None)),
        (UserLora, "patience", (0, -5)),
        (UserLora, "max_users_at_once", (0, -1)),
        (UserLora, "seed", (-1,)),
        (UserTuning, "max_epochs", (0, None)),
        (ProfileSeq2Seq, "dropout", (-0.1, 1.1)),
        (Conversations, "num_turns", (0,)),
        (Decoding, "top_p", (0, -1, 2, math.nan)),
        (Decoding, "temperature", (0, -1, math.inf)),
        (Decoding, "num_beams", (0,)),
        (ChatDecoding, "top_p", (0, 2)),
        (UserSets, "rows_per_user", (0, None)),
        (UserSets, "users_per_batch", (0, -1)),
        (UserSets, "predict_rows", (0, -1)),
        (ReplyPairs, "tokens_per_batch", (0, -1)),
        (ReplyPairs, "max_context_tokens", (0,)),
        (schedule, "warmup_share", (-1, 2, math.nan)),
    ],
)
def test_what_is_out_of_range_is_named(kind, name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
            build(kind)(**{name: value})


def test_all_of_an_object_at_once():
    with pytest.raises(ValueError, match="^num_beams must be .*, got 0; top_p must be above 0 and at most 1, got 2$"):
        Decoding(top_p=2, num_beams=0)
    assert UserSets(None, predict_rows=None).predict_rows is None
