"""`Conversations`: two user models talk with each other, turn by turn; the paper has no such experiment.

All conversations of a batch are held at the same time: each turn is one `generate` call in which every row has the
adapter of its own speaker. The bare backbone holds the same conversations, to show what the adapters add.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from artefacts.conversations import Utterance
from artefacts.fingerprints import fingerprint
from artefacts.layout import ADAPTER_WEIGHTS, user_directory
from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, require
from datamodules.batches import ConversationBatch
from lightning_modules.backbones.generation import Decoding, generate
from lightning_modules.lora.adapter_files import load_adapter
from lightning_modules.lora.stacked_lora import StackedLora

from .reply_module import ReplyModule

OWN, BASE = "own", "base"
CONFIG_FIELDS = ("r", "lora_alpha", "use_rslora", "target_modules")


class Conversations(ReplyModule):
    """Two users' models talk with each other; prediction only.

    Args:
        init_from: directory of the backbone.
        adapters: directory of the adapters of all users of the data; rank and matrices are those of its files.
        num_turns: turns that are generated, of both people together.
        seed: of what is sampled; the backbone and the adapters draw from the same numbers. None is the run's
            (`seed_everything`).
        decoding: how a turn is generated; one candidate.
    """

    written_by: ClassVar = {"predict": "callbacks.ConversationWriter"}
    not_in_run_name: ClassVar = ("adapters",)

    def __init__(
        self,
        init_from: Path,
        adapters: Path,
        num_turns: int = 40,
        seed: int | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        super().__init__(decoding)
        if self.decoding.num_candidates != 1:
            raise ValueError(f"one reply a turn: set decoding.num_candidates to 1, got {self.decoding.num_candidates}")
        self.init_from = init_from
        self.adapters = adapters
        self.num_turns = num_turns
        self.seed = seed or 0
        require(vars(self), num_turns=AT_LEAST_1, seed=AT_LEAST_0)

    def configure_model(self) -> None:
        if self.model is not None:
            return
        users = self.trainer.datamodule.users
        self.model = self.open_backbone(self.init_from).model
        states = {user: load_adapter(self.adapters, user, self.backbone_fingerprint, retrieved={}) for user in users}
        self.lora = StackedLora(self.model, self._config(users), num_slots=0)
        self.rows = {user: self.lora.from_peft(state) for user, state in states.items()}

    def _config(self, users: list[str]) -> Any:
        """The adapters' common configuration; ValueError if they have several."""
        from peft import LoraConfig

        first, *others = [LoraConfig.from_pretrained(str(user_directory(self.adapters, user))) for user in users]
        for user, other in zip(users[1:], others, strict=True):
            if differing := [name for name in CONFIG_FIELDS if getattr(first, name) != getattr(other, name)]:
                raise ValueError(
                    f"the adapters of {users[0]!r} and {user!r} in {self.adapters} differ in {differing}; train all "
                    "with the same settings"
                )
        return first

    @property
    def card(self) -> dict[str, Any]:
        """What a reader has to know of these conversations."""
        weights = (user_directory(self.adapters, user) / ADAPTER_WEIGHTS for user in self.rows)
        return {
            "backbone": self.backbone_fingerprint,
            "adapters": fingerprint(b"".join(path.read_bytes() for path in weights)),
            "num_turns": self.num_turns,
            "seed": self.seed,
            "decoding": vars(self.decoding),
        }

    def predict_step(self, batch: ConversationBatch, batch_idx: int) -> list[Utterance]:
        utterances = []
        for system in (OWN, BASE):
            torch.manual_seed(self.seed + batch_idx)
            utterances += self._talk(system, batch)
        return utterances

    def _talk(self, system: str, batch: ConversationBatch) -> list[Utterance]:
        data = self.trainer.datamodule
        # Copied to the device once, not in every turn; (conversations, p) for each of the two sides.
        rows = [torch.stack([self.rows[pair[side]] for pair in batch.people]).to(self.device) for side in (0, 1)]
        turns = [list(opening) for opening in batch.turns]
        utterances = [
            Utterance(system, number, turn, None, data.said(ids)[0])
            for number, opening in zip(batch.number, turns, strict=True)
            for turn, (_, ids) in enumerate(opening, start=1 - len(opening))
        ]
        for turn in range(1, self.num_turns + 1):
            side = (turn - 1) % 2
            speakers = [people[side] for people in batch.people]
            self.lora.activate(rows[side] if system == OWN else None)
            inputs = data.read(batch, turns, side).to(self.device)
            replies = generate(self.model, inputs, self.decoding)[:, 0]  # (conversations, length)
            for number, own, speaker, reply in zip(batch.number, turns, speakers, replies.tolist(), strict=True):
                text, ids = data.said(reply)
                own.append((side, ids))
                utterances.append(Utterance(system, number, turn, speaker, text))
        return utterances
