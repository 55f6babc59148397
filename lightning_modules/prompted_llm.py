"""`PromptedLLM`: a large language model that reads about the user and is not trained, to compare adapters with.

It answers the same test turns, with the same context, as any other system. A user's examples are their training turns:
the model never sees a validation or test turn before the one it answers.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, Literal

import numpy as np

from artefacts.ranges import AT_LEAST_1, require
from datamodules.batches import Seq2SeqBatch
from datamodules.prompts.rendering import Turns
from lightning_modules.chat.models import ChatDecoding, ChatModel
from lightning_modules.chat.wording import ChatWording

from .device_module import DeviceModule
from .reply_module import Predictions


class PromptedLLM(DeviceModule):
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

    written_by: ClassVar = {"predict": "callbacks.PredictionWriter"}

    def __init__(
        self,
        chat_model: ChatModel,
        told: Literal["profile", "examples", "retrieved"] = "profile",
        num_examples: int = 8,
        wording: ChatWording | None = None,
        decoding: ChatDecoding | None = None,
    ) -> None:
        super().__init__()
        self.chat_model = chat_model
        self.told = told
        self.num_examples = num_examples
        require(vars(self), num_examples=AT_LEAST_1)
        self.wording = wording or ChatWording()
        self.decoding = decoding or ChatDecoding()
        self._examples_of: dict[str, list[tuple[Turns, str]]] = {}

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
        prompts = self.trainer.datamodule.prompts
        profile = prompts.template.render(prompts.profiles.get(user, {}))
        return self.wording.message(profile, self._examples(user, context), context)

    def _examples(self, user: str, context: Turns) -> list[tuple[Turns, str]]:
        data = self.trainer.datamodule
        if self.told == "profile":
            return []
        if self.told == "retrieved":
            return list(reversed(data.similar_replies(user, context, self.num_examples)))
        if user not in self._examples_of:  # spread over all of the user's training turns
            replies = data.training_replies(user)
            positions = np.linspace(0, len(replies) - 1, min(self.num_examples, len(replies)))
            self._examples_of[user] = [replies[round(position)] for position in positions]
        return self._examples_of[user]
