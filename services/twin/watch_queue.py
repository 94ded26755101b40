"""The queue's part of the oracle: invariants 4, 5, 6, 7 and 12 (oracle.py)."""

from __future__ import annotations

from ..link.messages import CancelTicket, Fence, Grant, Holding, Preempt, Refuse, Release
from ..queue.entry import LEASED
from ..queue.routing.picker import suits
from ..queue.scheduler import Scheduler
from .records import Watch

INTEGRITY_EVERY = 8
"""Books that do not balance stay so; looking at every eighth decision finds them at half the cost."""


class QueueWatch(Watch):
    """What the queue hears, says and keeps in its books."""

    def queue_said(self, gateway: str, message: Grant | Refuse | Preempt) -> None:
        if type(message) is Preempt:
            self.called_back[gateway, message.lease_id] = self.sim.now_s
            self._ended(message.lease_id)
        elif type(message) is Grant:
            owner = self.lease_owner.setdefault(message.lease_id, (gateway, message.ticket))
            if owner != (gateway, message.ticket):
                raise self.broken(
                    4, f"lease {message.lease_id} of {owner} is granted to {(gateway, message.ticket)}"
                )
            self.known_in_life[message.lease_id] = self.queue_lives
            live = self.live_leases.setdefault(message.engine_id, {})
            live[message.lease_id] = None
            self.engine_of[message.lease_id] = message.engine_id
            slots = self.slots[message.engine_id]
            if len(live) > slots + max(1, slots // 4) and (
                self.queue_lives == 1 or self.sim.now_s > self.queue_since_s + 6
            ):
                raise self.broken(6, f"{len(live)} leases on {message.engine_id}, which has {slots} slots")

    def queue_heard(self, gateway: str, message: object) -> None:
        if type(message) is Release:
            self._ended(message.lease_id)
        elif type(message) is Holding:
            self.known_in_life[message.lease_id] = self.queue_lives
        elif type(message) is CancelTicket:
            for lease_id, owner in self.lease_owner.items():
                if owner == (gateway, message.ticket):
                    self._ended(lease_id)

    def queue_took_back(self, scheduler: Scheduler, gateway: str, release: Release) -> None:
        """The queue has handled a Release: the lease is over there."""
        entry = scheduler.state.gateways.get(gateway, {}).get(release.ticket)
        if entry is not None and entry.lease_id == release.lease_id:
            raise self.broken(5, f"the queue keeps lease {release.lease_id}, which {gateway} returned")

    def fenced(self, fence: Fence) -> None:
        for lease_id in list(self.live_leases.get(fence.engine_id, ())):
            self._ended(lease_id)

    def _ended(self, lease_id: int) -> None:
        engine_id = self.engine_of.get(lease_id)
        if engine_id is not None:
            self.live_leases.get(engine_id, {}).pop(lease_id, None)

    def gateway_unlinked(self, gateway: str) -> None:
        """The queue lost its link to a gateway, and with it what it had just said."""
        for key in [key for key in self.called_back if key[0] == gateway]:
            del self.called_back[key]

    def queue_died(self) -> None:
        self.called_back.clear()
        self.live_leases.clear()
        self.queue_lives += 1
        self.queue_since_s = self.sim.now_s

    def decided(self, scheduler: Scheduler, *, granting: bool) -> None:
        """After each decision of the queue: invariants 7 and 12."""
        self.num_decisions += 1
        if self.num_decisions % INTEGRITY_EVERY == 0:
            try:
                scheduler.state.check_integrity()
            except AssertionError as error:
                raise self.broken(12, f"queue: {error}") from error
        if granting:
            self._reserve(scheduler)

    def _reserve(self, scheduler: Scheduler) -> None:
        state = scheduler.state
        for band in state.bands.all:
            b = band.index
            head = band.own.peek() if state.pools.used[b] < state.pools.reserve[b] else None
            if head is None:
                continue
            told = f"{head.request_id} waits below its reserve"
            for engine in state.fleet.engines.values():
                if not engine.up or engine.engine_id in head.avoid or not suits(head, engine, state.pool_of):
                    continue
                if engine.has_room(head.wanted_tokens):
                    raise self.broken(7, f"{told}, {engine.engine_id} is free")
                for other in engine.leases.values():
                    if other.state != LEASED or not other.preemptible or other.band <= b:
                        continue
                    kv_after = engine.kv_reserved - other.wanted_tokens + head.wanted_tokens
                    on_loan = state.pools.used[other.band] > state.pools.reserve[other.band]
                    if on_loan and engine.used <= engine.capacity and kv_after <= engine.kv_budget:
                        raise self.broken(7, f"{told}, {other.request_id} holds a loan on {engine.engine_id}")
