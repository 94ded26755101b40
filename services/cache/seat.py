"""A request's place in a flight, as the gateway's pipeline sees it, and what a look-up may come to.

Rules: no link, no store; the client (client.py) moves seats, the pipeline holds them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from ..errors import MeshError
from ..link.messages import FeedPart
from .key import CacheKey
from .value import CachedAnswer

log = logging.getLogger(__name__)


class Remote(Enum):
    """The member that stands for whoever leads in another gateway."""

    REMOTE = "remote"


REMOTE = Remote.REMOTE


class Yield(Enum):
    """The event that tells a leader to follow."""

    YIELD = "yield"


YIELD = Yield.YIELD
Event = tuple[FeedPart, ...] | CachedAnswer | MeshError | Yield | None
"""Parts; the whole answer; the request's fault; follow another; None: lead."""


class Follower(Protocol):
    """What a pipeline gives to `Seat.attach`. Called on the event loop, in order; must not block.

    Nothing comes after cache_hit, cache_promoted or cache_failed, nor after `leave`.
    """

    def cache_parts(self, parts: tuple[FeedPart, ...]) -> None:
        """Tokens of the answer, as an engine would have sent them."""
        ...

    def cache_hit(self, answer: CachedAnswer) -> None:
        """The whole answer at once. Only when no part came before."""
        ...

    def cache_promoted(self) -> None:
        """Nobody generates for you any more: go on after the parts that you have (like after a lost engine),
        unless those complete your answer. From now on the seat is a leader's: `feed`, then `store` or
        `abandon`."""
        ...

    def cache_yield(self) -> None:
        """Another gateway generates the same answer and was first: stop what you began, of which nothing was fed, and
        take what it makes. Only for a leader; from now on the seat is a follower's."""
        ...

    def cache_failed(self, error: MeshError) -> None:
        """The request itself is at fault; whoever led it got the same error."""
        ...


class SeatOwner(Protocol):
    """What a seat needs of the client."""

    def publish(self, seat: Seat, parts: tuple[FeedPart, ...]) -> None: ...
    def finish(self, seat: Seat, answer: CachedAnswer, ttl_s: float) -> bool: ...
    def fail(self, seat: Seat, error: MeshError) -> None: ...
    def leave(self, seat: Seat) -> None: ...


class Seat:
    """One request's place. A leader's seat takes `attach`, `feed`, then `store`, `fail` or `abandon`; a follower's
    `attach`, then `leave`. `alone`: outside the flight, so that all of these do nothing."""

    __slots__ = ("_events", "_follower", "_owner", "alone", "key", "num_delivered", "told")

    def __init__(self, owner: SeatOwner, key: CacheKey) -> None:
        self._owner = owner
        self.key = key
        self.alone = False
        self.told: Callable[[LookedUp], None] | None = None
        self.num_delivered = 0
        self._follower: Follower | None = None
        self._events: list[Event] = []

    # the pipeline's side -------------------------------------------------------------------------------

    def feed(self, part: FeedPart) -> None:
        """An engine frame of the answer that this seat leads. About a µs when nobody follows."""
        if not self.alone:
            self._owner.publish(self, (part,))

    def store(self, answer: CachedAnswer, ttl_s: float) -> bool:
        """The answer is complete: end the flight and keep it (ttl_s 0: end the flight only). True when it was
        sent to be kept."""
        kept = not self.alone and self._owner.finish(self, answer, ttl_s)
        self.alone = True
        return kept

    def fail(self, error: MeshError) -> None:
        """The request itself is at fault (blocked, poisonous, too long): followers get the same error."""
        if not self.alone:
            self._owner.fail(self, error)
        self.alone = True

    def leave(self) -> None:
        """This request needs the flight no longer; a leader is replaced, and nobody fails."""
        if not self.alone:
            self.alone = True
            self._owner.leave(self)
        self._follower = self.told = None
        self._events.clear()

    abandon = leave

    def attach(self, follower: Follower) -> None:
        """Deliver to `follower`, beginning with what came already."""
        self._follower = follower
        events, self._events = self._events, []
        for event in events:
            self._deliver(event)

    # the client's side ---------------------------------------------------------------------------------

    def resolve(self, found: LookedUp) -> bool:
        """Answer the look-up that waits. False when none does."""
        told, self.told = self.told, None
        if told is None:
            return False
        told(found)
        return True

    def parts(self, parts: tuple[FeedPart, ...]) -> None:
        self.num_delivered += len(parts)
        self._deliver(parts)

    def promoted(self) -> None:
        self._deliver(None)

    def yielded(self) -> None:
        self._deliver(YIELD)

    def ended(self, answer: CachedAnswer | None) -> None:
        """The flight is over, with this answer or without one."""
        self.alone = True
        self._deliver(answer if answer is not None and not self.num_delivered else None)

    def failed(self, error: MeshError) -> None:
        self.alone = True
        self._deliver(error)

    def _deliver(self, event: Event) -> None:
        follower = self._follower
        if follower is None:
            self._events.append(event)
            return
        try:
            if isinstance(event, tuple):
                follower.cache_parts(event)
            elif isinstance(event, CachedAnswer):
                follower.cache_hit(event)
            elif event is None:
                follower.cache_promoted()
            elif event is YIELD:
                follower.cache_yield()
            else:
                follower.cache_failed(event)
        except Exception:  # one follower's fault must not stop the leader's stream
            log.exception("a follower of a flight failed")
            self.leave()


class Hit(NamedTuple):
    """The answer was kept. `ttl_s` is what is left of its life."""

    answer: CachedAnswer
    ttl_s: float


class Leading(NamedTuple):
    """Generate. `bypass`: the cache was not asked or did not answer in time (x-cache: bypass, else miss)."""

    seat: Seat
    bypass: bool = False


class Following(NamedTuple):
    """Somebody generates the same answer already: `seat.attach(follower)`."""

    seat: Seat


LookedUp = Hit | Leading | Following


class Asking(NamedTuple):
    """The Cache was asked; until it answers, the seat leads."""

    seat: Seat


def into(answer: asyncio.Future[LookedUp]) -> Callable[[LookedUp], None]:
    """Sets a future that may have been cancelled."""

    def told(found: LookedUp) -> None:
        if not answer.done():
            answer.set_result(found)

    return told
