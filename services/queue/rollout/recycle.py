"""Which worker is replaced next because it is old: one at a time, and never the last that serves.

Rules: pure; ages and states in, one unit out. A unit is what lives and dies together: a group of ranks, or an engine
alone. It is told to retire: it finishes or hands back its streams, ends, and Serve starts another in its place.

1. At most one unit is away: none is chosen while one retires, or while fewer units serve than did before the last one
   went (its successor still starts), until `back_within_s` has passed.
2. A unit is chosen only when another of the same model and revision serves, so that its streams have where to go.
3. The oldest goes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Unit(msgspec.Struct, frozen=True):
    """`serves`: takes leases now; `leaving`: drains."""

    name: str
    revision: str
    age_s: float
    serves: bool
    leaving: bool
    model: str = ""

    @property
    def lane(self) -> tuple[str, str]:
        """Whose streams it may take: two models may call their revisions alike."""
        return self.model, self.revision


class Recycling(msgspec.Struct, frozen=True):
    """What is remembered: the last unit told to go, when, and how many of its lane served then."""

    last: str = ""
    at_s: float = 0.0
    lane: tuple[str, str] = ("", "")
    served: int = 0


def next_unit(
    units: Sequence[Unit], memory: Recycling, now_s: float, *, after_s: float, back_within_s: float
) -> tuple[Recycling, str]:
    """The unit to retire now ("": none), and what to remember. `after_s` 0: never."""
    if after_s <= 0 or any(unit.leaving for unit in units):
        return memory, ""
    if memory.last and now_s - memory.at_s < back_within_s:
        serving = sum(1 for unit in units if unit.serves and unit.lane == memory.lane)
        if serving < memory.served or any(unit.name == memory.last for unit in units):
            return memory, ""
    old = sorted((u for u in units if u.serves and u.age_s >= after_s), key=lambda u: -u.age_s)
    for unit in old:
        peers = sum(1 for other in units if other.serves and other.lane == unit.lane)
        if peers > 1:
            return Recycling(unit.name, now_s, unit.lane, peers), unit.name
    return memory, ""
