"""`PromptedLLM`: a large language model that is told about the user, and not trained: what adapters are compared with.

In: `Seq2SeqBatch`es of `UserSets`, so that it answers the same test turns, with the same context, as any other
system. Out: candidates as texts, without likelihoods.

The user's examples are their training turns; the model never sees a validation or test turn before the one it is asked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from lightning import LightningModule

from datamodules.batches import Seq2SeqBatch
from lightning_modules.chat.models import ChatDecoding, ChatModel
from lightning_modules.chat.wording import ChatWording, Turns

from .reply_module import Predictions


@dataclass(frozen=True)
class Told:
    """What a prompt can tell of one user."""

    profile: str
    replies: list[tuple[Turns, str]]


class PromptedLLM(LightningModule):
    """Asks a chat model for the user's reply; only `lightning predict` has a use for it.

    Args:
        chat_model: who is asked.
        told: `profile`; `examples` adds some of the user's training replies with their contexts, the same ones for
            every context; `retrieved` those whose contexts are most like the one at hand, the most similar last. The
            profile is there if `data.prompt.style` is psp.
        num_examples: how many, where there are any (not stated in the paper).
        wording: the words of the prompt.
        decoding: how it is asked to answer.
    """

    def __init__(
        self,
        chat_model: ChatModel,
        told: Literal["profile", "examples", "retrieved"] = "profile",
        num_examples: int = 8,
        wording: ChatWording | None = None,
        decoding: ChatDecoding | None = None,
    ) -> None:
        super().__init__()
        if num_examples < 1:
            raise ValueError(f"model.num_examples must be 1 or more, got {num_examples}; told=profile has no examples")
        self.chat_model = chat_model
        self.told = told
        self.num_examples = num_examples
        self.wording = wording or ChatWording()
        self.decoding = decoding or ChatDecoding()
        self._users: dict[str, Told] = {}

    def on_predict_start(self) -> None:
        style = self.trainer.datamodule.prompts.template.style
        if style == "ppp" or (style == "none" and self.told == "profile"):
            raise ValueError(
                f"data.prompt.style is {style}: use psp, the speaker's profile, or none where told is not profile"
            )
        self.chat_model.open(self.device)

    def predict_step(self, batch: Seq2SeqBatch, batch_idx: int) -> Predictions:
        data = self.trainer.datamodule
        rows = [row for row, pair_id in enumerate(batch.pair_id.tolist()) if pair_id >= 0]
        messages = [
            self.message(data.users[int(batch.user_index[row])], data.prompts.turns(batch.input_ids[row].tolist()))
            for row in rows
        ]
        answers = self.chat_model.replies([[{"role": "user", "content": text}] for text in messages], self.decoding)
        candidates: list[list[str]] = [[] for _ in batch.pair_id]
        for row, texts in zip(rows, answers, strict=True):
            candidates[row] = [self.wording.reply(text) for text in texts]
        return Predictions(candidates, nll=None, tokens=None)

    def on_predict_end(self) -> None:
        facts = ", ".join(f"{name} {value:,}" for name, value in asdict(self.chat_model.usage).items() if value)
        print(f"{self.chat_model.name}: {facts}")

    @property
    def card(self) -> dict[str, Any]:
        """What a predictions card says of the prompt and the model."""
        told = self.told if self.told == "profile" else f"{self.num_examples} {self.told}"
        return {"model": self.chat_model.name, "prompt": told, "usage": asdict(self.chat_model.usage)}

    def message(self, user: str, context: Turns) -> str:
        """The prompt for one context of one user."""
        known = self._told(user)
        examples: list[tuple[Turns, str]] = []
        if self.told == "examples":  # from all of the time that the user's training turns cover
            places = np.linspace(0, len(known.replies) - 1, min(self.num_examples, len(known.replies)))
            examples = [known.replies[round(place)] for place in places]
        elif self.told == "retrieved":
            similar = self.trainer.datamodule.similar_replies(user, context, self.num_examples)
            examples = list(reversed(similar))
        return self.wording.message(known.profile, examples, context)

    def _told(self, user: str) -> Told:
        if user not in self._users:
            data = self.trainer.datamodule
            profile = data.prompts.template.render(data.prompts.profiles.get(user, {}))
            self._users[user] = Told(profile, data.training_replies(user) if self.told == "examples" else [])
        return self._users[user]
