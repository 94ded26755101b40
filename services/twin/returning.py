"""A client of the twin that has a key (Idempotency-Key) and never gives up: when its connection breaks, or the mesh
asks it to, it comes back to any gateway with the last event id it saw.

Rules: a client; knows the pipeline's Call and Responder and the oracle, to whom it tells all it sees. Several may want
one answer, each with a view of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import msgspec

from ..answer import AnswerHead, AnswerTail, Delta
from ..api.event_ids import Cursor, parse
from ..errors import MeshError
from ..outcome import Reason
from ..request import InferenceRequest
from .client import TwinCall
from .oracle import Oracle
from .workload import Ask

if TYPE_CHECKING:
    from .gateway_node import GatewayNode

COME_BACK = (Reason.DRAINING, Reason.NOT_READY, Reason.CLIENT_CANCELLED)
"""What only says: try again, here or elsewhere."""


class Reader:
    """Somebody who wants one answer; `number` tells those of one key apart."""

    def __init__(
        self, ask: Ask, number: int, oracle: Oracle, gateways: Sequence[GatewayNode], rng: Random
    ) -> None:
        self.ask, self.number, self.oracle = ask, number, oracle
        self.last_id = ""
        self.resumable = True
        self.done = False
        self.call: ReaderCall | None = None
        self._gateways, self._rng = gateways, rng
        self._connections = 0
        self._view = oracle.view(ask)

    @property
    def view(self) -> list:  # type: ignore[type-arg]
        return self._view

    def connect(self) -> None:
        """To any gateway that listens; at first the one it was given."""
        if self.done or self.call is not None:
            return
        able = [gateway for gateway in self._gateways if gateway.alive and not gateway.stopped]
        if not able:
            self.later()
            return
        first = self._gateways[(self.ask.gateway + self.number) % len(self._gateways)]
        gateway = first if not self._connections and first in able else self._rng.choice(able)
        if not self.resumable and any(choice.seen for choice in self._view):
            self._view, self.last_id = (
                self.oracle.view(self.ask),
                "",
            )  # told that it cannot be resumed: all anew
        self._connections += 1
        call = self.call = ReaderCall(self, gateway)
        gateway.after(0.0, gateway.connect, call, f"{self.ask.request_id}#{self.number}.{self._connections}")

    def later(self) -> None:
        sim = self.oracle.sim
        sim.at(sim.now_s + self._rng.choice((0.02, 0.2, 0.7)), None, self.connect)

    def cut(self) -> None:
        """Its connection breaks; its gateway notices."""
        if self.call is not None:
            call, self.call = self.call, None
            call.open = False
            if call.gateway.alive:
                call.gateway.after(0.0, call.gone)
            self.later()


class ReaderCall(TwinCall):
    """One connection of a reader."""

    def __init__(self, reader: Reader, gateway: GatewayNode) -> None:
        super().__init__(reader.ask, gateway.model, reader.oracle)
        self.reader, self.gateway = reader, gateway
        self.after = reader.last_id
        self.open = True
        self._cursor = Cursor(reader.ask.choices)
        self._prefix = ""

    async def read(self) -> InferenceRequest:
        request = await super().read()
        return msgspec.structs.replace(request, idempotency_key=self.reader.ask.key, last_event_id=self.after)

    def broken(self) -> None:
        if self.open:
            self.open = False
            self.reader.call = None
            self.reader.later()

    def begin(self, head: AnswerHead) -> None:
        reader = self.reader
        if not self.open:
            return
        reader.resumable = bool(head.resumable)
        if not head.resumable:
            self._oracle.requests[reader.ask.request_id].unkept = True
            if self.after:
                raise self._oracle.broken(20, f"{head.request_id} is resumed and called not resumable")
        self._prefix = head.request_id + "/"
        if self.after:
            self._cursor = parse(self.after, reader.ask.choices)

    def delta(self, delta: Delta) -> None:
        if not self.open:
            return
        self._oracle.shown(self._ask, delta, self.reader.view)
        self._cursor.advance(delta)
        if self.reader.resumable:
            self.reader.last_id = self._prefix + self._cursor.text().decode()

    def end(self, tail: AnswerTail) -> None:
        if self.open:
            self._oracle.completed(self._ask, tail.usage, self.reader.view)
            self._finished()
            self._oracle.reader_done(self._ask)

    def fail(self, error: MeshError) -> None:
        if not self.open:
            return
        if error.reason in COME_BACK:
            self.open = False
            self.reader.call = None
            self.reader.later()
            return
        record = self._oracle.requests[self._ask.request_id]
        self._finished()
        if not record.ended:
            self._oracle.failed(self._ask, error)
        record.readers -= 1

    def _finished(self) -> None:
        self.open, self.reader.done, self.reader.call = False, True, None
