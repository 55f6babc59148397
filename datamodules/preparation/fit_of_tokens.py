"""How well a tokenizer suits people's words: how much of them becomes bytes, and how many turns are cut."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
MAX_SHARE_OF_BYTES, MAX_SHARE_OF_CUT_TURNS = 0.2, 0.05
NUM_WORST = 3
MIN_TURNS = 20  # of a person who is named among the worst


class FitOfTokens:
    """Sums over turns, by person: `turns`, `cut`, `ids`, `bytes` (ids that stand for a byte of a letter not known)."""

    def __init__(self, tokenizer: Tokenizer, max_turn_tokens: int) -> None:
        self.max_turn_tokens = max_turn_tokens
        self.sums: dict[str, Counter[str]] = defaultdict(Counter)
        self._bytes = {tokenizer.token_to_id(piece) for piece in BYTES} - {None}

    def add(self, speakers: Iterable[str], turns: Iterable[Sequence[int]]) -> None:
        """Counts the turns of a dialogue, given as ids, before they are cut."""
        for speaker, ids in zip(speakers, turns, strict=True):
            sums = self.sums[speaker]
            sums["turns"] += 1
            sums["cut"] += len(ids) > self.max_turn_tokens
            sums["ids"] += len(ids)
            sums["bytes"] += sum(id in self._bytes for id in ids)

    @property
    def total(self) -> Counter[str]:
        return sum(self.sums.values(), Counter())

    def report(self) -> Iterator[str]:
        """Yields a line about all people, and a warning for each share that is high, with the worst of them."""
        in_bytes, cut = _share(self.total, "bytes", "ids"), _share(self.total, "cut", "turns")
        yield f"{in_bytes:.1%} of the ids are bytes; {cut:.1%} of the turns are cut"
        few_bytes = "the tokenizer does not know this language; take one, and a backbone, that were made for it"
        yield from self._warning("bytes", "ids", MAX_SHARE_OF_BYTES, few_bytes)
        yield from self._warning(
            "cut", "turns", MAX_SHARE_OF_CUT_TURNS, f"raise max_turn_tokens {self.max_turn_tokens}"
        )

    def _warning(self, part: str, whole: str, most: float, advice: str) -> Iterator[str]:
        shares = {user: _share(sums, part, whole) for user, sums in self.sums.items() if sums["turns"] >= MIN_TURNS}
        worst = sorted((user for user in shares if shares[user] > most), key=lambda user: (-shares[user], user))
        if worst or _share(self.total, part, whole) > most:
            named = ", ".join(f"{user!r} {shares[user]:.0%}" for user in worst[:NUM_WORST])
            yield f"warning: {part} are more than {most:.0%} of {whole} of {len(worst):,} people ({named}): {advice}"


def _share(sums: Counter[str], part: str, whole: str) -> float:
    return sums[part] / max(1, sums[whole])
