"""What a chat model reads: one message of text.

One message, because not every chat template has a system role, or lets a dialogue begin with the assistant. What is the
same for all of a user's contexts comes first, so that endpoints can cache the beginnings of prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from datamodules.prompts.rendering import Turns


@dataclass(frozen=True)
class ChatWording:
    """The words of the message. All of it is ours; the paper states neither the prompts of its LLMs nor the LLMs.

    Args:
        task: what is asked for, of whom; it names both people as `speaker` and `partner` do.
        profile: heading of the profile, which follows in the same line.
        examples: heading of what the person has said before.
        conversation: heading of the context.
        speaker: name of the person who is about to speak.
        partner: name of the other one.
    """

    task: str = (
        "You write the next message of A, one particular person, in a conversation with B. Write what this very "
        "person would say: as long, in the same language, style and mood as A writes, not as an assistant would. "
        "Answer with the text of that one message and nothing else."
    )
    profile: str = "About A:"
    examples: str = "How A has replied in other conversations:"
    conversation: str = "The conversation now:"
    speaker: str = "A"
    partner: str = "B"

    def message(self, profile: str, examples: Sequence[tuple[Turns, str]], context: Turns) -> str:
        """The whole message, up to where the reply begins; an empty part is dropped with its heading."""
        parts = [self.task]
        if profile:
            parts.append(f"{self.profile} {profile}")
        if examples:
            parts.append(self.examples)
            parts += [self._lines([*turns, ("speaker", reply)]) for turns, reply in examples]
        parts += [self.conversation, f"{self._lines(context)}\n{self.speaker}:"]
        return "\n\n".join(parts)

    def reply(self, answer: str) -> str:
        """The reply in an answer, as one line: without a name in front, and without turns that go on after it."""
        lines = re.sub(rf"^\s*{re.escape(self.speaker)}\s*[:：]", "", answer).strip().splitlines()
        begins_a_turn = re.compile(rf"({re.escape(self.speaker)}|{re.escape(self.partner)})\s*[:：]")
        return " ".join(" ".join(takewhile(lambda line: not begins_a_turn.match(line), lines)).split())

    def _lines(self, turns: Turns) -> str:
        names = {"speaker": self.speaker, "partner": self.partner}
        return "\n".join(f"{names[author]}: {text}" for author, text in turns)
