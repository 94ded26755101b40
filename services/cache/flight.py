"""Single flight: identical requests under way share one generation. Pure: events in, effects out.

Rules: knows keys, members and parts; no link, no store, no clock beyond `now_s`. The same core runs twice: in
each gateway over its own requests, and in the Cache authority over gateways, so that 1,000 identical misses
on one gateway are one call to the authority, and one generation in the mesh.

1. A flight has at most one leader; only what the leader feeds is delivered, and only its finish ends the
   flight.
2. Every follower is delivered all parts, in order, each once, from the first part on, whenever it joined.
3. A leader that leaves is replaced by the follower that waited longest, which continues after the parts that
   it has: nothing is generated twice, nobody fails. A flight without members is gone.
4. A more urgent request does not wait behind a less urgent leader that has not produced anything yet: it
   takes the lead, and the old leader goes on alone.
5. A flight is tainted by a purge of any scope of any member that it ever had: its answer may not be stored.
6. A leader without a sign of life for `silent_s` is replaced.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from ..link.messages import FeedPart

SILENT_S = 900.0
MAX_BACKLOG_PARTS = 100_000

M = TypeVar("M", bound=Hashable)
"""A member: an object of a gateway's own, or (link, call) in the authority."""


class Lead(NamedTuple, Generic[M]):
    """`member` generates. `promoted`: it followed before, and continues after the parts that it was
    delivered."""

    member: M
    promoted: bool = False


class Follow(NamedTuple, Generic[M]):
    """`member` waits for deliveries."""

    member: M


class Alone(NamedTuple, Generic[M]):
    """`member` generates for itself outside the flight: it lost the lead, or came too late to be caught
    up."""

    member: M


class Want(NamedTuple, Generic[M]):
    """The leader must feed every part after the first `have`, from now on at once."""

    member: M
    have: int


class Deliver(NamedTuple, Generic[M]):
    """Parts for one follower."""

    member: M
    parts: tuple[FeedPart, ...]


Effect = Lead[M] | Follow[M] | Alone[M] | Want[M] | Deliver[M]


class Flight(Generic[M]):
    """One generation. `parts` is the backlog (None once it outgrew its bound), `num_parts` counts them
    all."""

    __slots__ = ("followers", "key", "leader", "num_parts", "parts", "rank", "scopes", "seen_s", "tainted")

    def __init__(self, key: bytes, leader: M, rank: int, now_s: float) -> None:
        self.key = key
        self.leader = leader
        self.rank = rank
        self.followers: dict[M, int] = {}
        self.parts: list[FeedPart] | None = []
        self.num_parts = 0
        self.scopes: set[bytes] = set()
        self.tainted = False
        self.seen_s = now_s


class Flights(Generic[M]):
    """All flights of one process."""

    def __init__(self, *, silent_s: float = SILENT_S, max_backlog_parts: int = MAX_BACKLOG_PARTS) -> None:
        self._flights: dict[bytes, Flight[M]] = {}
        self._silent_s = silent_s
        self._max_backlog_parts = max_backlog_parts

    def __len__(self) -> int:
        return len(self._flights)

    def get(self, key: bytes) -> Flight[M] | None:
        """The flight of a key, if there is one."""
        return self._flights.get(key)

    def join(
        self, key: bytes, member: M, now_s: float, *, rank: int = 0, scopes: tuple[bytes, ...] = ()
    ) -> list[Effect[M]]:
        """`member` asks for `key`. The first effect says what becomes of it: Lead, Follow or Alone."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(key, member, rank, now_s)
            flight.scopes.update(scopes)
            return [Lead(member)]
        if flight.parts is None:
            return [Alone(member)]
        flight.scopes.update(scopes)
        if rank < flight.rank and flight.num_parts == 0:
            deposed, flight.leader, flight.rank, flight.seen_s = flight.leader, member, rank, now_s
            return [Lead(member), Alone(deposed), *self._want(flight)]
        flight.followers[member] = rank
        effects: list[Effect[M]] = [Follow(member)]
        if flight.parts:
            effects.append(Deliver(member, tuple(flight.parts)))
        if len(flight.followers) == 1:
            effects.append(Want(flight.leader, flight.num_parts))
        return effects

    def feed(self, key: bytes, member: M, parts: tuple[FeedPart, ...], now_s: float) -> list[Effect[M]]:
        """The leader produced `parts`. Ignored from anybody else."""
        flight = self._flights.get(key)
        if flight is None or flight.leader != member:
            return []
        flight.seen_s = now_s
        flight.num_parts += len(parts)
        if flight.parts is not None:
            flight.parts.extend(parts)
            if len(flight.parts) > self._max_backlog_parts:
                flight.parts = None
        return [Deliver(follower, parts) for follower in flight.followers]

    def finish(self, key: bytes, member: M) -> Flight[M] | None:
        """The leader has the whole answer: the flight ends and is returned, for its followers and whether its
        answer may be stored (`tainted`). None when `member` does not lead it."""
        flight = self._flights.get(key)
        if flight is None or flight.leader != member:
            return None
        return self._flights.pop(key)

    def leave(self, key: bytes, member: M, now_s: float) -> list[Effect[M]]:
        """`member` died, gave up or has what it needs."""
        flight = self._flights.get(key)
        if flight is None:
            return []
        if flight.leader != member:
            flight.followers.pop(member, None)
            return []
        return self._replace(flight, now_s)

    def delegate(self, key: bytes, member: M, to: M) -> list[Effect[M]]:
        """`member`, which leads, has learned that `to` (another process) generates: it follows from here
        on."""
        flight = self._flights.get(key)
        if flight is None or flight.leader != member or flight.num_parts:
            return []
        flight.leader = to
        flight.followers = {member: flight.rank, **flight.followers}
        return [Follow(member)]

    def purge(self, scope: bytes) -> int:
        """Taint every flight under `scope`. Returns how many there are."""
        tainted = [flight for flight in self._flights.values() if scope in flight.scopes]
        for flight in tainted:
            flight.tainted = True
        return len(tainted)

    def held(self, scope: bytes) -> int:
        """Flights under `scope` whose answer may still be stored."""
        return sum(scope in flight.scopes and not flight.tainted for flight in self._flights.values())

    def expire(self, now_s: float) -> list[tuple[bytes, list[Effect[M]]]]:
        """Replace leaders that were silent for too long. Call now and then."""
        silent = [each for each in self._flights.values() if now_s - each.seen_s >= self._silent_s]
        return [(flight.key, self._replace(flight, now_s)) for flight in silent]

    def check_integrity(self) -> None:
        """Raises AssertionError when a leader follows itself or a count is wrong."""
        for key, flight in self._flights.items():
            assert flight.key == key
            assert flight.leader not in flight.followers
            assert flight.parts is None or len(flight.parts) == flight.num_parts

    def _replace(self, flight: Flight[M], now_s: float) -> list[Effect[M]]:
        if not flight.followers:
            del self._flights[flight.key]
            return []
        flight.leader = next(iter(flight.followers))
        flight.rank = flight.followers.pop(flight.leader)
        flight.seen_s = now_s
        return [Lead(flight.leader, promoted=True), *self._want(flight)]

    def _want(self, flight: Flight[M]) -> list[Effect[M]]:
        return [Want(flight.leader, flight.num_parts)] if flight.followers else []
