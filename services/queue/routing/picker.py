"""Where: the engine for one request. Filters, then the weighted sum of the scores, then the least loaded.

Rules: pure; called once per grant, so one pass over the engines. Load comes first and prefix affinity second
(weights below): an engine that holds the whole prompt wins until it is `PREFIX_WEIGHT / LOAD_WEIGHT` fuller than the
emptiest. Session affinity follows from prefix affinity: a conversation's next turn begins with the last.
"""

from __future__ import annotations

from collections.abc import Collection

from ..engines import EngineState
from ..entry import Entry
from .filters import fits_length, not_avoided, pool_allows
from .prefix import PrefixIndex
from .scorers import idle_share, own_pool, prefix_share

LOAD_WEIGHT = 1.0
PREFIX_WEIGHT = 0.6
POOL_WEIGHT = 2.0


def suits(entry: Entry, engine: EngineState, pool_of: dict[str, int]) -> bool:
    """Whether the entry may run there at all, room aside and avoided ones included."""
    return (
        engine.up
        and fits_length(entry, engine)
        and (engine.pool not in pool_of or pool_allows(entry, engine, pool_of))
    )


def pick(
    entry: Entry,
    engines: Collection[EngineState],
    pool_of: dict[str, int],
    index: PrefixIndex,
    at_once: bool = False,
) -> EngineState | None:
    """The best engine with room, or None. `at_once`: room to begin without waiting inside the engine.

    Engines that the request lost before are used only when no other engine would suit, free or not.
    """
    wanted = entry.wanted_tokens
    open_ones: list[EngineState] = []
    for (
        engine
    ) in engines:  # the comparison first: under load nearly all are full, and a call costs ten times as much
        if (
            engine.used < engine.capacity
            and engine.has_room(wanted, at_once)
            and suits(entry, engine, pool_of)
        ):
            open_ones.append(engine)
    if entry.avoid and open_ones:
        better = [e for e in open_ones if not_avoided(entry, e)]
        if better or any(suits(entry, e, pool_of) and not_avoided(entry, e) for e in engines):
            open_ones = better
    if len(open_ones) <= 1:
        return open_ones[0] if open_ones else None
    matched: dict[int, int] = {}
    if entry.prefix:
        bits = 0
        for engine in open_ones:
            bits |= engine.bit
        matched = index.matched_blocks(entry.prefix, bits)
    best: EngineState | None = None
    best_score = -1.0
    for engine in open_ones:
        score = LOAD_WEIGHT * idle_share(engine)
        if pool_of:
            score += POOL_WEIGHT * own_pool(entry, engine, pool_of)
        if matched:
            score += PREFIX_WEIGHT * prefix_share(entry, matched.get(engine.bit, 0))
        if score > best_score:
            best, best_score = engine, score
    return best
