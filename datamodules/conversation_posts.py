"""`ConversationPosts`: what was said in conversations as evidence for a network that is learnt already.

A "user" of these `EvidenceBatch`es is what one speaker said in one part of one conversation:

    <fingerprint of the file>/<system>/<conversation>/<first turn>-<last turn>/<speaker>

Parts are blocks of turns, and all turns up to the end of each block. `<fingerprint>/prior/0/0-0/<speaker>` is an
empty turn: what the network believes of somebody who says nothing.

What somebody says is judged by the network that has not seen that speaker's posts, as their profile is, and turns that
match a pattern of distant labels are hidden, as they are in profiles. Chunks of 150 posts are what a network has learnt
from; a block of ten turns has five of each speaker, so the prior weighs more here.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from artefacts.conversations import Utterance, parse_utterance
from artefacts.fingerprints import fingerprint
from datamodules.corpora.records import Post
from datamodules.evidence.histories import Spoken
from datamodules.preparation.settings import Preparation
from datamodules.profile_posts import ProfilePosts

PRIOR = "prior"


class ConversationPosts(ProfilePosts):
    """Parts of conversations, for the prediction of a learnt network.

    Args:
        preparation: of the corpus that the network is learnt from.
        language: YAML of attributes, patterns and forms, as the network was learnt with.
        conversations: a `conversations.jsonl`.
        block_turns: turns of a block, of both people together.
        min_posts: a part with fewer turns of its speaker is left out.
        settings: as of `ProfilePosts`; `network` and the labels have to be those of the run that has learnt it.
    """

    def __init__(
        self,
        preparation: Preparation,
        language: Path,
        conversations: Path,
        block_turns: int = 10,
        min_posts: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(preparation, language, min_posts=min_posts, **settings)
        if block_turns < 1:
            raise ValueError(f"data.block_turns must be 1 or more, got {block_turns}")
        self.conversations = Path(conversations)
        self.block_turns = block_turns

    def histories(self) -> dict[str, list[Spoken]]:
        """What each speaker said in each part, in order, and an empty turn of every speaker."""
        if not self.conversations.is_file():
            raise FileNotFoundError(
                f"no conversations in {self.conversations}; make them with: lightning predict --config "
                "experiments/conversations.yaml"
            )
        content = self.conversations.read_bytes()
        self.fingerprint = fingerprint(content)
        self.speaker_of: dict[str, str] = {}
        talks: dict[tuple[str, int], list[Utterance]] = defaultdict(list)
        for line in content.decode("utf-8").strip("\n").split("\n"):  # texts may have other line ends in them
            turn = parse_utterance(line)
            talks[turn.system, turn.conversation].append(turn)
        histories: dict[str, list[Spoken]] = defaultdict(list)
        for (system, number), turns in talks.items():
            self._parts(f"{self.fingerprint}/{system}/{number}", turns, histories)
        for speaker in sorted(set(self.speaker_of.values())):
            name = f"{self.fingerprint}/{PRIOR}/0/0-0/{speaker}"
            self.speaker_of[name] = speaker
            histories[name].append(Spoken(Post(speaker, ""), "", name))
        return histories

    def _parts(self, name: str, turns: list[Utterance], histories: dict[str, list[Spoken]]) -> None:
        """Adds the parts of one conversation: of each speaker up to the last block in which they said something."""
        turns = sorted(turns, key=lambda turn: turn.turn)
        size = self.block_turns
        last = {turn.speaker: -(-turn.turn // size) for turn in turns}  # number of that block
        answered = ""
        for turn in turns:
            number = -(-turn.turn // size)
            if speaker := turn.speaker:
                block = [((number - 1) * size + 1, number * size)]
                so_far = [(1, end * size) for end in range(number, last[speaker] + 1)]
                for first, end in dict.fromkeys(block + so_far):
                    part = f"{name}/{first}-{end}"
                    histories[f"{part}/{speaker}"].append(Spoken(Post(speaker, turn.text), answered, part))
                    self.speaker_of[f"{part}/{speaker}"] = speaker
            answered = turn.text

    def _begin(self) -> None:
        raise ValueError("conversations teach a network nothing: use lightning predict, with data.network")

    def _take_over(self) -> None:
        super()._take_over()
        self.folds |= {name: self.folds[one] for name, one in self.speaker_of.items() if one in self.folds}
