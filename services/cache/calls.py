"""What a gateway's cache client keeps of a call to the authority, and what it counts. Plain data."""

from __future__ import annotations

import asyncio

import msgspec

from .key import CacheKey
from .seat import Seat


class Call:
    """One call to the authority, on behalf of all of this gateway's requests for a key.

    `state`: "asking" (the bound runs), "late" (it ran out; the answer may still come), "leading" (this
    gateway has the right to store), "following" (another gateway generates).
    """

    __slots__ = ("call_id", "key", "seat", "state", "timer", "wanted")

    def __init__(self, call_id: int, key: CacheKey, seat: Seat, timer: asyncio.TimerHandle) -> None:
        self.call_id = call_id
        self.key = key
        self.seat = seat
        self.timer = timer
        self.state = "asking"
        self.wanted = False


class ClientStats(msgspec.Struct, frozen=True):
    """Counters since the start. `saved_s` is engine time that hits did not spend; `bypassed` were not
    answered in time or had no link; `joined` found the same request under way in this gateway."""

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
