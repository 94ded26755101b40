"""The flights among one gateway's own requests: seats that share a generation, here or in another gateway.

Rules: runs the effects of flight.py on seats; knows no link, no store, no keys beyond their bytes. `REMOTE` is the
member that stands for whoever generates in another gateway.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import MeshError
from ..link.messages import FeedPart
from .flight import Alone, Deliver, Effect, Flight, Flights, Follow, Lead
from .seat import REMOTE, Following, Leading, Remote, Seat
from .value import CachedAnswer

SharedFlight = Flight[Seat | Remote]


class GatewayFlights:
    """See the module. Counts what became of requests: `generations` were told to generate, `bypassed` too, but because
    the Cache was not there or not in time; `joined` found the same request under way; `yielded` had begun."""

    def __init__(self) -> None:
        self._flights: Flights[Seat | Remote] = Flights()
        self.generations = self.bypassed = self.joined = self.yielded = 0

    def counts(self) -> dict[str, int]:
        """Part of ClientStats."""
        return {
            "generations": self.generations,
            "bypassed": self.bypassed,
            "joined": self.joined,
            "yielded": self.yielded,
        }

    def get(self, wire: bytes) -> SharedFlight | None:
        """The key's flight, if there is one."""
        return self._flights.get(wire)

    def join(self, seat: Seat, now_s: float, rank: int) -> Leading | Following | None:
        """What becomes of a request. None: it is the only one here and leads, as far as this gateway knows."""
        wire, known = seat.key.wire, self._flights.get(seat.key.wire)
        effects = self._flights.join(wire, seat, now_s, rank=rank, scopes=seat.key.scopes)
        if known is None:
            return None
        self.joined += 1
        self._run(effects[1:])
        if isinstance(effects[0], Follow):
            return Following(seat)
        seat.alone = isinstance(effects[0], Alone)
        return self.lead(seat)

    def lead(self, seat: Seat, *, bypass: bool = False) -> Leading:
        """Let it generate."""
        if bypass:
            self.bypassed += 1
        else:
            self.generations += 1
        return Leading(seat, bypass)

    def feed(self, seat: Seat, parts: tuple[FeedPart, ...]) -> None:
        """The leader's parts, for those who follow."""
        if effects := self._flights.feed(seat.key.wire, seat, parts, 0.0):
            self._run(effects)

    def finish(self, wire: bytes, leader: Seat | Remote) -> SharedFlight | None:
        """End the flight that `leader` leads; whoever follows is told next, by `end` or `fail`."""
        return self._flights.finish(wire, leader)

    def leave(self, seat: Seat, now_s: float) -> bool:
        """A seat needs its flight no longer. True: nobody here does."""
        wire = seat.key.wire
        self._run(self._flights.leave(wire, seat, now_s))
        flight = self._flights.get(wire)
        if flight is not None and flight.leader is REMOTE and not flight.followers:
            self._flights.leave(wire, REMOTE, 0.0)
            return True
        return flight is None

    def purge(self, scope: bytes) -> None:
        """Answers under way under this scope are not kept."""
        self._flights.purge(scope)

    def held(self, scope: bytes) -> int:
        """Answers under way under this scope that may be kept."""
        return self._flights.held(scope)

    # another gateway generates -------------------------------------------------------------------------

    def delegate(self, seat: Seat) -> bool:
        """The leader, which generated nothing yet, follows REMOTE from here on. False: too late for that."""
        return bool(self._flights.delegate(seat.key.wire, seat, REMOTE))

    def remote_parts(self, wire: bytes, parts: tuple[FeedPart, ...]) -> None:
        """Its parts."""
        self._run(self._flights.feed(wire, REMOTE, parts, 0.0))

    def remote_left(self, wire: bytes, now_s: float) -> None:
        """It is gone: the follower that waited longest goes on."""
        self._run(self._flights.leave(wire, REMOTE, now_s))

    # ends ----------------------------------------------------------------------------------------------

    def end(self, flight: SharedFlight, answer: CachedAnswer) -> int:
        """The flight is over, with this answer. Returns how many followed."""
        followers = _seats(flight)
        for follower in followers:
            follower.ended(answer)
        return len(followers)

    def fail(self, flight: SharedFlight, error: MeshError) -> None:
        """The flight is over: the request itself is at fault."""
        for follower in _seats(flight):
            follower.failed(error)

    def _run(self, effects: Iterable[Effect[Seat | Remote]]) -> None:
        for effect in effects:
            seat = effect.member
            if not isinstance(seat, Seat):
                continue
            match effect:
                case Deliver(parts=parts):
                    seat.parts(parts)
                case Lead():
                    self.generations += 1
                    seat.promoted()
                case Alone():
                    seat.alone = True
                case _:
                    pass


def _seats(flight: SharedFlight) -> list[Seat]:
    return [member for member in flight.followers if isinstance(member, Seat)]
