"""The prompt: the one place that knows what the encoder reads. No torch.

    [<|speaker profile|> text] [<|partner profile|> text]  <|partner|> turn  <|speaker|> turn  ...  </s>
                               [<|speaker profile|> reply] ... stand between profiles and context, where asked for

`none` has no profile, `psp` (persona speaker prompt) the speaker's, `ppp` (persona pair prompt) both
people's (Otsuka et al. 2024; the literal strings are not stated in the paper). `user` is a control that says nothing
of a person but who it is: a number for each target user stands where a profile would. Each context turn is preceded
by the marker of its author; "speaker" is the person who is about to speak. Past replies of the speaker to similar
contexts (`users/past_replies.py`) are told like a profile: they are known of the person and not said in this
conversation, and the context is what begins at the first turn marker, whatever stands in front of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from datamodules.preparation.tokenizer import EOS, PARTNER, PARTNER_PROFILE, SPEAKER, SPEAKER_PROFILE, harmless
from datamodules.prompts.profiles import Attributes
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.ragged import Ragged, join
from datamodules.shards.reader import TokenPairs

Turns = list[tuple[str, str]]
"""(`speaker` or `partner`, text), oldest first."""


@dataclass(frozen=True)
class Rendered:
    """Reply pairs as the model sees them, a row a pair."""

    inputs: Ragged  # what the encoder reads
    targets: Ragged  # what the decoder learns
    pair_id: np.ndarray  # (rows,)
    prefix_lengths: np.ndarray  # (rows,), ids of the inputs in front of the context: profiles and past replies

    @property
    def context_lengths(self) -> np.ndarray:
        """Ids of each input without what stands in front of its context, (rows,)."""
        return self.inputs.lengths - self.prefix_lengths

    @property
    def costs(self) -> np.ndarray:
        """Tokens of each pair, inputs and labels together, (rows,). Batches are cut by this, and are the same pairs in
        the same order whatever the prompt is, for what stands in front of the context does not count."""
        return self.context_lengths + self.targets.lengths


def concatenate(pieces: Sequence[Rendered]) -> Rendered:
    """The rows of all pieces, one piece after the other."""
    return Rendered(
        Ragged.concatenate([piece.inputs for piece in pieces]),
        Ragged.concatenate([piece.targets for piece in pieces]),
        np.concatenate([piece.pair_id for piece in pieces]),
        np.concatenate([piece.prefix_lengths for piece in pieces]),
    )


class Prompts:
    """Profile prompts as token ids, each person's tokenised once; a person without an entry has an empty profile."""

    def __init__(
        self, template: PromptTemplate, tokenizer: Tokenizer, profiles: Mapping[str, Attributes] | None = None
    ) -> None:
        self.template = template
        self.tokenizer = tokenizer
        self.profiles = profiles or {}
        self.markers = np.array([tokenizer.token_to_id(SPEAKER), tokenizer.token_to_id(PARTNER)], dtype=np.int32)
        self.reply_marker = tokenizer.token_to_id(SPEAKER_PROFILE)
        self.eos = tokenizer.token_to_id(EOS)
        self._cache: dict[tuple[str, str], list[int]] = {}

    def profile_ids(self, user: str, marker: str) -> list[int]:
        """Marker and profile text of one person; nothing where nothing is known of them."""
        key = (user, marker)
        if key not in self._cache:
            text = harmless(self.template.render(self.profiles.get(user, {})))
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            self._cache[key] = [self.tokenizer.token_to_id(marker), *ids] if text else []
        return self._cache[key]

    def report_missing(self, people: Collection[str], whose: str) -> None:
        """Prints how many of these people have an empty profile, where the prompt has profiles at all."""
        if self.template.style != "none":
            missing = sum(not self.template.render(self.profiles.get(person, {})) for person in people)
            print(f"{missing:,} of {len(people):,} {whose} have no profile: theirs is empty")

    def prefixes(self, speakers: Iterable[str], partners: Iterable[str]) -> Ragged:
        """The profile part of the input, a row for each (speaker, partner)."""
        rows = []
        for speaker, partner in zip(speakers, partners, strict=True):
            ids = [] if self.template.style == "none" else self.profile_ids(speaker, SPEAKER_PROFILE)
            rows.append(ids + self.profile_ids(partner, PARTNER_PROFILE) if self.template.style == "ppp" else ids)
        return Ragged.from_lists(rows)

    def replies(self, replies: Sequence[Sequence[np.ndarray]], max_tokens: int) -> Ragged:
        """Past replies of the speaker as a part of the input, a row for each list of them, in its order.

        Of each row, the last `max_tokens` ids and markers are kept, as in `inputs`.
        """
        text = Ragged.from_lists([[id for reply in row for id in reply] for row in replies])
        lengths = Ragged.from_lists([[len(reply) for reply in row] for row in replies])
        return _marked(text, lengths, np.full(len(lengths.values), self.reply_marker, dtype=np.int32), max_tokens)

    def render(self, pairs: TokenPairs, max_context_tokens: int, past_replies: Ragged | None = None) -> Rendered:
        """Puts profiles and past replies before the contexts, and end tokens after the responses."""
        both = np.stack([pairs.speaker, pairs.partner])
        people, person = np.unique(both, axis=1, return_inverse=True)
        prefixes = self.prefixes(
            (pairs.speakers[index] for index in people[0]), (pairs.partners[index] for index in people[1])
        ).take(person.ravel())
        prefixes = prefixes if past_replies is None else join(prefixes, past_replies)
        inputs = self.inputs(prefixes, pairs.context, pairs.context_lengths, pairs.context_speakers, max_context_tokens)
        return Rendered(inputs, self.targets(pairs.response), pairs.pair_id, prefixes.lengths)

    def inputs(
        self, prefixes: Ragged, context: Ragged, context_lengths: Ragged, context_speakers: Ragged, max_tokens: int
    ) -> Ragged:
        """What the encoder reads: prefix, the most recent part of the context with its markers, end token.

        Args:
            prefixes: what stands before the context of each row.
            context: ids of the context turns of each row, oldest first.
            context_lengths: ids in each turn of each row.
            context_speakers: author of each turn of each row, 0 the speaker and 1 the partner.
            max_tokens: most ids of context and markers kept, from the end; a turn that is cut keeps its marker.
        """
        turns = _marked(context, context_lengths, self.markers[context_speakers.values], max_tokens)
        return join(prefixes, turns, self._ends(len(turns)))

    def targets(self, responses: Ragged) -> Ragged:
        """What the decoder learns: the response and an end token. Prompt and context are never in it."""
        return join(responses, self._ends(len(responses)))

    def _ends(self, num_rows: int) -> Ragged:
        return Ragged.from_lengths(np.full(num_rows, self.eos), np.ones(num_rows, dtype=np.int64))

    def turns(self, input_ids: Iterable[int]) -> Turns:
        """The context in an encoder input as (`speaker` or `partner`, text), oldest first, without what is in front."""
        names = {int(self.markers[0]): "speaker", int(self.markers[1]): "partner"}
        turns: list[tuple[str, list[int]]] = []
        for id in input_ids:
            if id in names:
                turns.append((names[id], []))
            elif id == self.eos:
                break
            elif turns:
                turns[-1][1].append(id)
        return [(name, self.tokenizer.decode(ids)) for name, ids in turns]


def _marked(text: Ragged, turn_lengths: Ragged, markers: np.ndarray, max_tokens: int) -> Ragged:
    """Puts its marker before each turn, and keeps the last `max_tokens` ids and markers of each row.

    A turn that is cut keeps its marker. `markers` has one for each turn of all rows, (turns,).
    """
    with_marker = turn_lengths.values.astype(np.int64) + 1
    turn_starts = np.cumsum(with_marker) - with_marker
    values = np.empty(with_marker.sum(), dtype=np.int32)
    is_text = np.ones(len(values), dtype=bool)
    is_text[turn_starts] = False
    values[is_text] = text.values
    values[turn_starts] = markers
    lengths = text.lengths + turn_lengths.lengths  # ids and one marker for each turn
    turns = Ragged.from_lengths(values, lengths)
    starts = np.maximum(turns.offsets[:-1], turns.offsets[1:] - max_tokens)
    cut = np.flatnonzero(starts > turns.offsets[:-1])
    if not len(cut):
        return turns
    values[starts[cut]] = markers[np.searchsorted(turn_starts, starts[cut], side="right") - 1]
    keep = np.arange(len(values)) >= np.repeat(starts, lengths)
    return Ragged.from_lengths(values[keep], turns.offsets[1:] - starts)
