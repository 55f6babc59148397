"""`RetrievedReply`: the user's own past reply to the most similar context, a baseline that cannot say anything new.

Only training turns are searched, so that a held-out reply is never found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from artefacts.ranges import AT_LEAST_1, require
from datamodules.batches import Seq2SeqBatch
from datamodules.prompts.rendering import Turns

from .device_module import DeviceModule
from .reply_module import Predictions


@dataclass(frozen=True)
class Retrieval:
    """How replies are chosen.

    Args:
        num_candidates: replies for one context, to the contexts that are most similar to it.
    """

    num_candidates: int = 1

    def __post_init__(self) -> None:
        require(vars(self), num_candidates=AT_LEAST_1)


class RetrievedReply(DeviceModule):
    """Looks replies up; for `lightning predict` only.

    Args:
        decoding: how replies are chosen; called as that of the systems which generate them.
    """

    written_by: ClassVar = {"predict": "callbacks.PredictionWriter"}

    def __init__(self, decoding: Retrieval | None = None) -> None:
        super().__init__()
        self.decoding = decoding or Retrieval()

    def predict_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Predictions:
        data = self.trainer.datamodule
        candidates = [
            self.replies(data.users[user], data.prompts.turns(ids))
            for user, ids in zip(batch.user_index.tolist(), batch.input_ids.tolist(), strict=True)
        ]
        return Predictions(candidates, nll=None, tokens=None)

    def replies(self, user: str, context: Turns) -> list[str]:
        """What this user has replied to the most similar contexts, the most similar first."""
        similar = self.trainer.datamodule.similar_replies(user, context, self.decoding.num_candidates)
        return [reply for _, reply in similar]
