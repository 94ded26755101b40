"""The queue as one request uses it while the response cache is still being asked: the look-up runs beside the queue.

Rules: knows no cache; holds back what the queue says until it is told that this request generates. So a miss waits for
the slower of the two instead of both, an answer that is kept elsewhere is never refused for a full queue, and no engine
begins what another gateway generates already.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..link.messages import Acquire, Grant, Refuse, Release


class Holder(Protocol):
    """Who wants a lease (choice.py)."""

    def on_grant(self, grant: Grant) -> None: ...
    def on_refuse(self, refuse: Refuse) -> None: ...
    def on_preempt(self, lease_id: int) -> None: ...


class Leases(Protocol):
    """The queue (services/queue/client.py)."""

    def acquire(self, acquire: Acquire, holder: Holder) -> None: ...
    def cancel(self, ticket: int) -> None: ...
    def release(self, release: Release) -> None: ...
    def progress(self, ticket: int, num_tokens: int) -> None: ...


class Beside:
    """See the module. Ends with `open` (generate) or `drop` (nothing that was asked so far is wanted)."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.cancel, self.release, self.progress = leases.cancel, leases.release, leases.progress
        self._held: list[Callable[[], None]] | None = []

    def acquire(self, acquire: Acquire, holder: Holder) -> None:
        self._leases.acquire(acquire, holder if self._held is None else _Held(self, holder))

    def say(self, what: Callable[[], None]) -> None:
        """Now, or when it is open."""
        if self._held is None:
            what()
        else:
            self._held.append(what)

    def open(self) -> None:
        """The request generates: it hears what the queue has said, in order. Idempotent."""
        held, self._held = self._held, None
        for what in held or ():
            what()

    def drop(self) -> None:
        """What the queue has said is for nobody. Whoever asked cancels its tickets; it may ask anew. Idempotent."""
        self._held = None


class _Held:
    """A holder whose words may have to wait."""

    __slots__ = ("_beside", "_holder")

    def __init__(self, beside: Beside, holder: Holder) -> None:
        self._beside, self._holder = beside, holder

    def on_grant(self, grant: Grant) -> None:
        self._beside.say(partial(self._holder.on_grant, grant))

    def on_refuse(self, refuse: Refuse) -> None:
        self._beside.say(partial(self._holder.on_refuse, refuse))

    def on_preempt(self, lease_id: int) -> None:
        self._beside.say(partial(self._holder.on_preempt, lease_id))
