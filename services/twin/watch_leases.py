"""The gateways' and engines' part of the oracle: invariants 5, 10, 11, 13, 15, 16, 17, 18 and 26 (oracle.py)."""

from __future__ import annotations

from ..link.messages import Acquire, Grant, Release, Submit
from ..outcome import Outcome
from ..request import TokenFrame
from .records import LATE_S, Watch, WorkRecord

DEAD_WORK_S = 1.6
"""How long a stream may outlive its request: a silent link's death (1 s), and some."""
CALL_BACK_S = 4.5
"""How long a lease that was called back may take to return: the longest partition drawn, a link's death, and some."""


class LeaseWatch(Watch):
    """What gateways do with leases and streams, and what engines work on."""

    def opened(self, gateway: str, index: int, grant: Grant, submit: Submit, who: int) -> None:
        """A choice is submitted to an engine; `who` tells several that answer one request apart."""
        record = self.requests[submit.job.request_id]
        place = (gateway, index, who if record.ask.key else 0)
        choice = record.work.setdefault(place, WorkRecord())
        key = (gateway, grant.lease_id)
        if choice.lease:
            raise self.broken(
                5, f"{record.ask.request_id}.{index} runs on lease {choice.lease} and {grant.lease_id}"
            )
        if key in self.accepted:
            raise self.broken(5, f"{gateway} accepts lease {grant.lease_id} twice")
        choice.lease = grant.lease_id
        choice.emitted_at_open = len(submit.job.emitted_ids) // 4
        if choice.again:
            choice.again = False
            self.repeated_tokens += len(record.ask.prompt) // 4 + choice.emitted_at_open
        self.accepted[key] = (grant.engine_id, grant.epoch)
        self.in_request[key] = (record, place)
        self.bands[key] = record.ask.band
        if submit.job.remaining_s < -LATE_S:
            raise self.broken(10, f"{record.ask.request_id} is submitted after its deadline")

    def closed(self, gateway: str, stream_id: int) -> None:
        """A gateway has no use for a stream any more."""
        self.closed_since_s[gateway, stream_id] = self.sim.now_s

    def released(self, gateway: str, release: Release) -> None:
        """A gateway returns a lease."""
        key = (gateway, release.lease_id)
        self.loose[key] = release.outcome
        known = self.in_request.get(key)
        if known is None:
            return  # a grant that came too late for its request
        if key in self.returned:
            raise self.broken(5, f"{gateway} returns lease {release.lease_id} twice")
        self.returned.add(key)
        record, place = known
        choice = record.work[place]
        if choice.lease != release.lease_id:
            raise self.broken(5, f"{gateway} returns lease {release.lease_id}, {choice.lease} is in use")
        choice.lease = 0
        if release.outcome == "lost":
            choice.lost += 1

    def handed_on(self, gateway: str, grant: Grant, acquire: Acquire) -> None:
        """A gateway without a queue gives a lease that came back to another of its requests."""
        key = (gateway, grant.lease_id)
        told = f"{gateway} hands lease {grant.lease_id} on"
        outcome = self.loose.pop(key, "")
        if outcome not in (Outcome.COMPLETED, Outcome.CANCELLED, Outcome.EVICTED):
            raise self.broken(26, f"{told}, which is {outcome or 'in use'}")
        if self.known_in_life.get(grant.lease_id) == self.queue_lives:
            raise self.broken(26, f"{told}, and the queue that counts it lives")
        if self.bands.get(key, acquire.band) != acquire.band:
            raise self.broken(26, f"{told} from band {self.bands[key]} to {acquire.band}")
        self.num_handed_on += 1
        self.returned.discard(key)
        self.accepted.pop(key, None)
        self.in_request.pop(key, None)

    def lost(self, gateway: str, lease_id: int, emitted: int, *, drained: bool) -> None:
        """An engine that worked on this choice is lost (or `drained`, which nobody died of): work is done again."""
        if drained:
            return
        record, place = self.in_request[gateway, lease_id]
        choice = record.work[place]
        choice.fruitless = choice.fruitless + 1 if emitted == choice.emitted_at_open else 0
        choice.again = True

    def asked(self, acquire: Acquire, emitted: int) -> None:
        """A choice registers with the queue, first or again."""
        record = self.requests[acquire.request_id]
        age_s = (
            self.sim.now_s - record.arrived_s if not record.ask.key else acquire.age_s
        )  # its call's, not its
        if abs(acquire.age_s - age_s) > LATE_S or acquire.emitted_tokens != emitted:
            told = (
                f"{acquire.age_s:.3f} s and {acquire.emitted_tokens} tokens, not {age_s:.3f} s and {emitted}"
            )
            raise self.broken(17, f"{acquire.request_id} tells the queue {told}")

    def frame(self, gateway: str, grant: Grant, frame: TokenFrame, open_stream: int) -> None:
        """A frame reaches a choice that runs on `grant` and has `open_stream` open (0: none)."""
        if frame.stream_id != open_stream:
            raise self.broken(
                16, f"{gateway} takes a token of stream {frame.stream_id}, {open_stream} is open"
            )
        if grant.epoch <= self.fenced_epochs.get((gateway, grant.engine_id), 0):
            raise self.broken(
                13, f"{gateway} takes a token of {grant.engine_id} in fenced epoch {grant.epoch}"
            )
        self.served_tokens += len(frame.token_ids)

    def heard_fence(self, gateway: str, engine_id: str, epoch: int) -> None:
        """A gateway is told that an engine is out up to `epoch`."""
        self.fenced_epochs[gateway, engine_id] = max(epoch, self.fenced_epochs.get((gateway, engine_id), 0))

    def sweep_gateways(self, able: set[str]) -> None:
        """`able`: gateways (link names) that are alive and not stopped."""
        for key, since_s in self.called_back.items():
            known = self.in_request.get(key)
            if known is None or key in self.returned or key[0] not in able:
                continue
            if self.sim.now_s - since_s > CALL_BACK_S:
                raise self.broken(18, f"{key[0]} keeps lease {key[1]}, called back at {since_s:.3f} s")

    def sweep(self, engine_id: str, streams: list[tuple[str, int]], num_computing: int) -> None:
        """Streams (gateway, stream id) that run on an engine now, and how many it computes."""
        if num_computing > len(streams):
            raise self.broken(11, f"{engine_id} computes {num_computing} streams, {len(streams)} are wanted")
        for key in streams:
            closed_s = self.closed_since_s.get(key)
            if closed_s is not None and self.sim.now_s - closed_s > DEAD_WORK_S:
                raise self.broken(11, f"{engine_id} still works on stream {key}, closed at {closed_s:.3f} s")

    def check_budget(self, burst_tokens: float, share: float) -> None:
        """Invariant 15, over all gateways together."""
        allowed = burst_tokens + share * (
            self.served_tokens + sum(len(r.ask.prompt) // 4 for r in self.requests.values())
        )
        if self.repeated_tokens > allowed:
            raise self.broken(15, f"{self.repeated_tokens} tokens computed again, {allowed:.0f} allowed")
