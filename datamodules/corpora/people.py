"""Who is in a corpus: the one door through which ids of people come, and what to say about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from artefacts.people import clean_id, look_of

NUM_NAMED = 5


@dataclass
class People:
    """The ids of a corpus as `clean_id` writes them; `respelled` has what else was written for them."""

    ids: set[str] = field(default_factory=set)
    respelled: dict[str, str] = field(default_factory=dict)

    def id_of(self, spelling: str) -> str:
        """The id that is meant."""
        if spelling in self.ids:
            return spelling
        if spelling not in self.respelled:
            id = clean_id(spelling)
            self.ids.add(id)
            if id != spelling:
                self.respelled[spelling] = id
        return self.respelled.get(spelling, spelling)

    def report(self) -> Iterator[str]:
        """Yields a line about spellings that were merged, and one about people whose ids look alike."""
        if self.respelled:
            pairs = [f"{spelling!a} as {id!r}" for spelling, id in sorted(self.respelled.items())]
            yield f"{len(pairs):,} spellings of ids are read as another: {some(pairs)}"
        alike = [" and ".join(map(repr, sorted(ids))) for ids in self._by_look().values() if len(ids) > 1]
        if alike:
            yield f"ids that look alike are {len(alike):,} times different people: {some(sorted(alike))}"

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of the ids that are nobody here, each with the people whose ids look alike."""
        by_look = self._by_look()
        missing = []
        for id in sorted(set(ids) - self.ids):
            alike = " and ".join(map(repr, sorted(by_look.get(look_of(id), ()))))
            missing.append(f"{id!r} (there is {alike})" if alike else repr(id))
        return missing

    def _by_look(self) -> dict[str, set[str]]:
        by_look = defaultdict(set)
        for id in self.ids:
            by_look[look_of(id)].add(id)
        return by_look


def some(texts: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(texts) - NUM_NAMED
    return ", ".join(texts[:NUM_NAMED]) + (f" and {more:,} more" if more > 0 else "")
