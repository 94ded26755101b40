"""Leases that come back while there is no queue: who of the same gateway goes on with them.

Rules: pure. The queue that granted them is known to be dead (its own address refuses), so it gives nothing away; the
next one grants nothing for `restart_grace_s` and is told of every lease in use. Until then a lease may pass to another
request of this gateway. What makes that safe is that nothing grows (tests/properties/queue/test_hand_on.py):
 1. a lease that came back is with one request at most, and only leases that came back are passed on: no engine gets
    more streams than the dead queue gave it;
 2. it stays in its band and model, with a request that wants no more tokens, so that reserves and the engine's memory
    are as the dead queue had them; one that may be called back is followed by one that may be called back;
 3. an answer goes on with its revision, and with no engine that it has lost already;
 4. what was lost, handed back or called back is not passed on: that engine, or that slot, is somebody else's;
 5. nothing is passed on later than `HAND_ON_S` after the queue was found dead, or after another one answers.
Bands do not mix, so nobody overtakes a higher one; among equals the oldest goes first. Fairness between tenants rests
for these seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..link.messages import Acquire, Grant
from ..outcome import Outcome

HAND_ON_S = 15.0
"""Three times what Serve takes to bring a queue back (4.7 to 5.3 s). An end, should an address refuse for ever."""
LOOK_AT = 1000
"""Of those that wait, so many are looked at for one lease."""
USABLE = frozenset({Outcome.COMPLETED, Outcome.CANCELLED, Outcome.EVICTED})


class Spare(msgspec.Struct, frozen=True):
    """A lease without a request. `last` is what its last one asked for: how large it is, and for whom."""

    grant: Grant
    last: Acquire

    def suits(self, wish: Acquire) -> bool:
        """May the request have it?"""
        last, grant = self.last, self.grant
        return (
            wish.model == last.model
            and wish.band == last.band
            and wish.prompt_tokens + wish.max_tokens <= last.prompt_tokens + last.max_tokens
            and (wish.preemptible or not last.preemptible)
            and wish.revision in ("", grant.revision)
            and grant.engine_id not in wish.avoid
        )


class HandOn:
    """Spare leases of one gateway. Empty, and closed, whenever a queue answers."""

    def __init__(self) -> None:
        self.spares: list[Spare] = []
        self._until_s = float("-inf")

    def queue_died(self, now_s: float) -> None:
        """The address of the queue that granted our leases refuses."""
        self._until_s = now_s + HAND_ON_S

    def queue_answers(self) -> None:
        """A queue has us again: it grants."""
        self.spares.clear()
        self._until_s = float("-inf")

    def open(self, now_s: float) -> bool:
        return now_s < self._until_s

    def returned(self, grant: Grant, last: Acquire, outcome: str) -> None:
        """A request is done with its lease."""
        if outcome in USABLE:
            self.spares.append(Spare(grant, last))

    def match(self, waiting: Iterable[Acquire], now_s: float) -> list[tuple[Acquire, Grant]]:
        """Who goes on with what; `waiting` with true ages and remainders. Those leases are spare no more."""
        if not self.spares or not self.open(now_s):
            return []
        matched: list[tuple[Acquire, Grant]] = []
        for wish in sorted(waiting, key=lambda acquire: -acquire.age_s):
            if wish.remaining_s <= 0:
                continue
            for place, spare in enumerate(self.spares):
                if spare.suits(wish):
                    del self.spares[place]
                    grant = msgspec.structs.replace(spare.grant, ticket=wish.ticket, queue_wait_s=wish.age_s)
                    matched.append((wish, grant))
                    break
            if not self.spares:
                break
        return matched
