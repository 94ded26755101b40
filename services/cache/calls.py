"""What a gateway's cache client keeps of a call to the authority, how long it waits, and what it counts.

Rules: no link, no store; time comes from the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ..clock import Clock
from ..errors import MeshError, RequestError
from ..link.messages import CacheLeave
from ..outcome import Reason
from .key import CacheKey
from .patience import Patience
from .seat import Seat

SHARE, GRACE_SHARE, GRACES = 0.7, 0.5, 4
"""Of `store_timeout_s`: what a look-up waits (the rest is the timer's, which may come half a millisecond late), and
what it waits once more, up to `GRACES` times, when the event loop was busy (patience.py): without that 1,000 requests
that arrive in one burst of 12 ms all miss an answer that is there."""
PATIENCE = 3
SILENT_S, PAUSE_S = 0.02, 0.1
"""A Cache that let so many look-ups in a row wait in vain, and said nothing at all for `SILENT_S` (one hiccup makes all
that wait late at once), is not asked for `PAUSE_S`; then the next look-up waits again. Asking without waiting would
only pile up what it has to work off first."""


class Call:
    """One call to the authority, on behalf of all of this gateway's requests for a key.

    `state`: "asking" (the bound runs), "late" (it ran out, or nobody waits; the answer may still come), "leading"
    (this gateway has the right to store), "following" (another gateway generates).
    """

    __slots__ = (
        "_clock", "_patience", "_timer", "_too_late", "asked_s", "call_id", "key", "seat", "state", "wanted",
    )  # fmt: skip

    def __init__(self, call_id: int, key: CacheKey, seat: Seat) -> None:
        self.call_id = call_id
        self.key = key
        self.seat = seat
        self.state = "asking"
        self.wanted = False
        self.asked_s = asyncio.get_running_loop().time()
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, timeout_s: float, clock: Clock, too_late: Callable[[Call], None]) -> None:
        """Call `too_late` when the bound has passed by `clock` and the event loop had time to hear an answer."""
        bound_s = SHARE * timeout_s
        self._clock, self._too_late = clock, too_late
        self._patience = Patience(clock.now_s(), bound_s, grace_s=GRACE_SHARE * timeout_s, num_graces=GRACES)
        self._timer = asyncio.get_running_loop().call_later(bound_s, self._due)

    def answered(self) -> None:
        """Nobody waits any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        more_s = self._patience.more_s(self._clock.now_s())
        if more_s:
            self._timer = asyncio.get_running_loop().call_later(more_s, self._due)
        else:
            self._too_late(self)


class ClientStats(msgspec.Struct, frozen=True):
    """Counters since the start. `saved_s` is engine time that hits did not spend; `bypassed` were not
    answered in time or had no link; `joined` found the same request under way in this gateway; `yielded` had begun
    to generate when they learned that another gateway does. Of the questions `semantic_asked`, `semantic_hits` were
    answered by meaning, `semantic_late` after the first token."""

    local_hits: int
    remote_hits: int
    generations: int
    bypassed: int
    joined: int
    saved_tokens: int
    saved_s: float
    local_entries: int
    local_bytes: int
    linked: bool
    yielded: int
    semantic_hits: int
    semantic_asked: int
    semantic_late: int


def error_of(left: CacheLeave) -> MeshError:
    """What a flight failed of, as its leader told."""
    try:
        return RequestError(Reason(left.reason), left.message)
    except ValueError:
        return RequestError(Reason.INTERNAL, left.message)
