"""Writes conversations as JSONL: `system, conversation, turn, speaker, text`, a line a turn.

Systems: `own` (everyone's own adapter), `base` (the bare backbone) and `real`, everyone's real turns in the test
dialogues with those that they answer, a conversation a user. Turns count from 1; those of an opening up to 0. The
speaker is null where nobody's model, or none of the users, has said it: in openings, and of the partners of `real`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from lightning import Callback, Trainer

from artefacts.commit import git_commit
from artefacts.conversations import Utterance
from artefacts.described import described
from artefacts.files import partial_of, publish, write_json
from artefacts.layout import CONVERSATIONS, card_of
from lightning_modules.conversations import Conversations

REAL = "real"


class ConversationWriter(Callback):
    """Writes `<run>/conversations.jsonl`, and beside it `conversations.card.json`, which says what made them.

    The file holds what real people said. It gets its name only when it is complete.
    """

    def __init__(self) -> None:
        self.file: TextIO | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: Conversations) -> None:
        self.path = Path(trainer.default_root_dir) / CONVERSATIONS
        self.card_path = card_of(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not trainer.fast_dev_run:
            for path in (self.card_path, self.path):  # older ones are never taken for those of a run that was killed
                path.unlink(missing_ok=True)
        self.file = partial_of(self.path).open("w", encoding="utf-8")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Conversations, outputs: list[Utterance], *rest: Any
    ) -> None:
        self.file.writelines(utterance.line() for utterance in outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: Conversations) -> None:
        data = trainer.datamodule
        for number, user in enumerate(data.users):
            for turn, (is_own, text) in enumerate(data.real_turns(user, pl_module.num_turns), start=1):
                self.file.write(Utterance(REAL, number, turn, user if is_own else None, text).line())
        self.file.close()
        if trainer.fast_dev_run:
            return
        card = {
            **pl_module.card,
            "split": data.splits["test"].reader.content,
            "users": len(data.users),
            "opening_turns": data.opening_turns,
            "data_seed": data.seed,
            "max_context_tokens": data.max_context_tokens,
            "max_context_turns": data.preparation.max_context_turns,
            "prompt": data.prompts.template.style,
            "commit": git_commit(),
            **described(partial_of(self.path)),
        }
        write_json(self.card_path, card)
        publish(partial_of(self.path), self.path)
        print(f"conversations are in {self.path}")
