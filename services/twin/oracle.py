"""What must hold, whatever fails: numbered invariants, checked by somebody who knows the right answers.

Rules: watches, and changes nothing; it trusts no core, so it counts for itself. Each check names its number.

 1. A request has exactly one outcome, and its client sees nothing after it.
 2. The client's text is at every moment a prefix of the right text, and all of it at the end; the reason why it
    ended is the right one. (Token i is a function of the prompt and i, so a lost or doubled token shows.)
 3. Usage is exact: the tokens billed are those of the answer.
 4. A lease is granted to one ticket only, and never again under the same number, over all lives of the queue.
 5. A gateway returns every lease that it accepted exactly once, and runs a choice on one lease at a time; the
    queue takes it back at once.
 6. No engine gets more leases than the slots it has, with the look-ahead that keeps its batch full.
 7. The reserve is kept: nobody waits below its band's reserve while a slot that suits it is free or on loan.
 8. Nobody waits for ever: when all faults are over, every request comes to its end.
 9. No failure without a cause: a deadline that passed, a client that left, two engines that died under the request.
10. The deadline holds: no outcome later than it, and no engine is given a request after it.
11. No dead work: streams of requests that ended are gone from every engine that can still be reached.
12. The books balance inside each core (`check_integrity`).
13. An engine that is fenced moves no token any more: nothing from a fenced epoch is accepted.
14. Nothing is left behind: at the end no lease, no ticket and no stream remains.
15. Extra work is bounded: tokens computed again stay within the retry budget.
16. A choice takes tokens only from the stream that it has open.
17. A request keeps its place: each registration tells its true age and what was emitted already.
18. What is called back comes back: a preempted lease is returned.
19. A cache hit is an answer to what the same tenant asked before, in the same words and settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ..answer import AnswerHead, Delta
from ..errors import MeshError
from ..experts.sim_answers import Answer
from ..link.messages import Acquire, CancelTicket, Fence, Grant, Preempt, Refuse, Release, Submit
from ..outcome import Reason
from ..queue.entry import LEASED
from ..queue.routing.picker import suits
from ..queue.scheduler import Scheduler
from ..request import SamplingParams, TokenFrame, Usage
from ..sim_tokenizer import decode
from .kernel import Simulation
from .workload import Ask

LATE_S = 0.05
INTEGRITY_EVERY = 8
"""Books that do not balance stay so; looking at every eighth decision finds them at half the cost."""
DEAD_WORK_S = 1.6
"""How long a stream may outlive its request: a silent link's death (1 s), and some."""
CALL_BACK_S = 4.5
"""How long a lease that was called back may take to return: the longest partition drawn, a link's death, and some."""
LONG_PATIENCE_S = 30.0
"""Requests this patient must never hear of their deadline in worlds that heal after seconds."""


class Violation(AssertionError):
    """An invariant does not hold. `number` is its number above."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"invariant {number}: {message}")
        self.number = number


@dataclass
class ChoiceRecord:
    """What one choice's client must see, and has seen."""

    text: str
    finish: str
    num_tokens: int
    seen: str = ""
    tokens_seen: int = 0
    ended: str = ""
    lease: int = 0
    lost: int = 0
    fruitless: int = 0
    again: bool = False
    emitted_at_open: int = 0


@dataclass
class RequestRecord:
    """One request's life."""

    ask: Ask
    arrived_s: float
    choices: list[ChoiceRecord]
    ended: bool = False
    reason: Reason | None = None
    ended_s: float = 0.0
    first_token_s: float | None = None
    lost_with_gateway: bool = False
    verdict: str = ""


def seeded(sampling: SamplingParams, index: int) -> SamplingParams:
    """Sampling of choice `index`: seeds count up."""
    if not index or sampling.seed is None:
        return sampling
    return msgspec.structs.replace(sampling, seed=sampling.seed + index)


def right_answer(ask: Ask, index: int) -> ChoiceRecord:
    """The answer of choice `index`, computed from the prompt alone: text, finish reason and billed tokens."""
    sampling = ask.sampling
    answer = Answer(ask.prompt, seeded(sampling, index))
    packed = answer.packed(sampling.max_tokens)
    text = decode(packed).decode("utf-8", "replace")
    ends = sorted((text.find(stop) + len(stop), -len(stop)) for stop in sampling.stop if stop in text)
    if not ends:
        return ChoiceRecord(text, answer.finish, len(packed) // 4)
    end, minus_length = ends[0]
    return ChoiceRecord(text[: end + minus_length], "stop", -(-end // 4))


class Oracle:
    """Watches one world. Raises Violation."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.requests: dict[str, RequestRecord] = {}
        self.num_faults = 0
        self.first: Violation | None = None
        self.small_budget = False
        self.gateways_stopped = False
        self.slots: dict[str, int] = {}
        self.repeated_tokens = 0
        self.served_tokens = 0
        self.longest_gap_s = 0.0
        self._lease_owner: dict[int, tuple[str, int]] = {}
        self._live: dict[str, dict[int, None]] = {}
        self._engine_of: dict[int, str] = {}
        self._queue_since_s = 0.0
        self._queue_lives = 1
        self._called_back: dict[tuple[str, int], float] = {}
        self._decisions = 0
        self._returned: set[tuple[str, int]] = set()
        self._accepted: dict[tuple[str, int], tuple[str, int]] = {}
        self._closed_s: dict[tuple[str, int], float] = {}
        self._fenced: dict[tuple[str, str], int] = {}
        self._in_request: dict[tuple[str, int], tuple[RequestRecord, int]] = {}

    def broken(self, number: int, message: str) -> Violation:
        violation = Violation(number, f"{message} (at {self.sim.now_s:.4f} s)")
        self.first = self.first or violation  # a shell may swallow what is raised through it
        return violation

    # the client's side ------------------------------------------------------------------------------------

    def arrived(self, ask: Ask) -> None:
        choices = [right_answer(ask, index) for index in range(ask.choices)]
        self.requests[ask.request_id] = RequestRecord(ask, self.sim.now_s, choices)

    def shown(self, ask: Ask, delta: Delta) -> None:
        """A piece of an answer reaches its client."""
        record = self.requests[ask.request_id]
        choice = record.choices[delta.choice]
        if record.ended or choice.ended:
            raise self.broken(1, f"{ask.request_id} gets {delta} after its end")
        if not choice.text.startswith(delta.text, len(choice.seen)):
            right = choice.text[len(choice.seen) : len(choice.seen) + len(delta.text)]
            raise self.broken(2, f"{ask.request_id} gets {delta.text!r} after {choice.seen!r}, not {right!r}")
        choice.seen += delta.text
        choice.tokens_seen += delta.num_tokens
        if record.first_token_s is None:
            record.first_token_s = self.sim.now_s
        if delta.finish is not None:
            choice.ended = delta.finish
            if choice.seen != choice.text or delta.finish != choice.finish:
                told = f"ends by {delta.finish!r} after {choice.seen!r}, not by {choice.finish!r}"
                raise self.broken(2, f"{ask.request_id} {told} after {choice.text!r}")

    def began(self, ask: Ask, head: AnswerHead) -> None:
        """The answer begins; `head.cache` says where it comes from."""
        record = self.requests[ask.request_id]
        if record.verdict:
            raise self.broken(1, f"{ask.request_id} begins twice")
        record.verdict = head.cache
        if head.cache == "hit" and not self._same(record):
            raise self.broken(19, f"{ask.request_id} of tenant {ask.tenant} hits what its tenant never asked")

    def _same(self, record: RequestRecord) -> list[RequestRecord]:
        """The other requests that may share its answer."""
        mine = (record.ask.tenant, record.ask.prompt, record.ask.sampling, record.ask.choices)
        return [
            other
            for other in self.requests.values()
            if other is not record
            and (other.ask.tenant, other.ask.prompt, other.ask.sampling, other.ask.choices) == mine
        ]

    def _looks_poisonous(self, record: RequestRecord) -> bool:
        """Two engines died under it, or under whoever generates its answer, without a token."""
        return any(choice.fruitless >= 2 for one in (record, *self._same(record)) for choice in one.choices)

    def completed(self, ask: Ask, usage: Usage) -> None:
        """The request is complete; `usage` is its bill."""
        record = self.requests[ask.request_id]
        for choice in record.choices:
            if not choice.ended:
                raise self.broken(1, f"{ask.request_id} completed without telling its client")
        shown = sum(choice.tokens_seen for choice in record.choices)
        right = sum(choice.num_tokens for choice in record.choices)
        if not usage.completion_tokens == right == shown:
            told = f"{usage.completion_tokens} tokens billed, {shown} shown, {right} answered"
            raise self.broken(3, f"{ask.request_id}: {told}")
        if usage.prompt_tokens != len(ask.prompt) // 4 or usage.cached_tokens > usage.prompt_tokens:
            raise self.broken(3, f"{ask.request_id}: {usage} for {len(ask.prompt) // 4} prompt tokens")
        self._outcome(record, None)

    def failed(self, ask: Ask, error: MeshError) -> None:
        """The request ends with an error."""
        record = self.requests[ask.request_id]
        self._outcome(record, error.reason)
        impatient = ask.patience_s < LONG_PATIENCE_S
        caused = {
            Reason.CLIENT_CANCELLED: ask.cancel_s is not None,
            Reason.DEADLINE_EXCEEDED: impatient
            and self.sim.now_s >= record.arrived_s + ask.patience_s - LATE_S,
            Reason.DEADLINE_UNREACHABLE: impatient,
            Reason.POISON_REQUEST: self.num_faults >= 2 and self._looks_poisonous(record),
            Reason.ENGINE_LOST: self.small_budget and self.num_faults >= 1,
        }
        if not caused.get(error.reason, False):
            raise self.broken(9, f"{ask.request_id} failed without a cause: {error.reason} ({error.message})")

    def _outcome(self, record: RequestRecord, reason: Reason | None) -> None:
        if record.ended:
            raise self.broken(
                1, f"{record.ask.request_id}: {reason or 'completed'} after {record.reason or 'completed'}"
            )
        record.ended, record.reason, record.ended_s = True, reason, self.sim.now_s
        self.sim.note("client", f"{record.ask.request_id} {reason or 'completed'}")
        late_s = self.sim.now_s - record.arrived_s - record.ask.patience_s
        if late_s > LATE_S and not self.gateways_stopped:
            raise self.broken(10, f"{record.ask.request_id} ends {late_s:.3f} s after its deadline")

    def gateway_died(self, gateway: str) -> None:
        """Its clients lost their connections, and with them their requests."""
        for record in self.requests.values():
            if not record.ended and f"g{record.ask.gateway}" == gateway:
                record.ended = record.lost_with_gateway = True

    # gateways ---------------------------------------------------------------------------------------------

    def opened(self, gateway: str, index: int, grant: Grant, submit: Submit) -> None:
        """A choice is submitted to an engine."""
        record = self.requests[submit.job.request_id]
        choice = record.choices[index]
        key = (gateway, grant.lease_id)
        if choice.lease:
            raise self.broken(
                5, f"{record.ask.request_id}.{index} runs on lease {choice.lease} and {grant.lease_id}"
            )
        if key in self._accepted:
            raise self.broken(5, f"{gateway} accepts lease {grant.lease_id} twice")
        choice.lease = grant.lease_id
        choice.emitted_at_open = len(submit.job.emitted_ids) // 4
        if choice.again:
            choice.again = False
            self.repeated_tokens += len(record.ask.prompt) // 4 + choice.emitted_at_open
        self._accepted[key] = (grant.engine_id, grant.epoch)
        self._in_request[key] = (record, index)
        if submit.job.remaining_s < -LATE_S:
            raise self.broken(10, f"{record.ask.request_id} is submitted after its deadline")

    def closed(self, gateway: str, stream_id: int) -> None:
        """A gateway has no use for a stream any more."""
        self._closed_s[gateway, stream_id] = self.sim.now_s

    def released(self, gateway: str, release: Release) -> None:
        """A gateway returns a lease."""
        key = (gateway, release.lease_id)
        known = self._in_request.get(key)
        if known is None:
            return  # a grant that came too late for its request
        if key in self._returned:
            raise self.broken(5, f"{gateway} returns lease {release.lease_id} twice")
        self._returned.add(key)
        record, index = known
        choice = record.choices[index]
        if choice.lease != release.lease_id:
            raise self.broken(5, f"{gateway} returns lease {release.lease_id}, {choice.lease} is in use")
        choice.lease = 0
        if release.outcome == "lost":
            choice.lost += 1

    def lost(self, request_id: str, index: int, emitted: int, *, drained: bool) -> None:
        """An engine that worked on this choice is lost (or `drained`, which nobody died of): work is done again."""
        record = self.requests[request_id]
        choice = record.choices[index]
        if drained:
            return
        choice.fruitless = choice.fruitless + 1 if emitted == choice.emitted_at_open else 0
        choice.again = True

    def asked(self, acquire: Acquire, emitted: int) -> None:
        """A choice registers with the queue, first or again."""
        record = self.requests[acquire.request_id]
        age_s = self.sim.now_s - record.arrived_s
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
        if grant.epoch <= self._fenced.get((gateway, grant.engine_id), 0):
            raise self.broken(
                13, f"{gateway} takes a token of {grant.engine_id} in fenced epoch {grant.epoch}"
            )
        self.served_tokens += len(frame.token_ids)

    def heard_fence(self, gateway: str, engine_id: str, epoch: int) -> None:
        """A gateway is told that an engine is out up to `epoch`."""
        self._fenced[gateway, engine_id] = max(epoch, self._fenced.get((gateway, engine_id), 0))

    # the queue --------------------------------------------------------------------------------------------

    def queue_said(self, gateway: str, message: Grant | Refuse | Preempt) -> None:
        if type(message) is Preempt:
            self._called_back[gateway, message.lease_id] = self.sim.now_s
            self._ended(message.lease_id)
        elif type(message) is Grant:
            owner = self._lease_owner.setdefault(message.lease_id, (gateway, message.ticket))
            if owner != (gateway, message.ticket):
                raise self.broken(
                    4, f"lease {message.lease_id} of {owner} is granted to {(gateway, message.ticket)}"
                )
            live = self._live.setdefault(message.engine_id, {})
            live[message.lease_id] = None
            self._engine_of[message.lease_id] = message.engine_id
            slots = self.slots[message.engine_id]
            if len(live) > slots + max(1, slots // 4) and (
                self._queue_lives == 1 or self.sim.now_s > self._queue_since_s + 6
            ):
                raise self.broken(6, f"{len(live)} leases on {message.engine_id}, which has {slots} slots")

    def queue_heard(self, gateway: str, message: object) -> None:
        if type(message) is Release:
            self._ended(message.lease_id)
        elif type(message) is CancelTicket:
            for lease_id, owner in self._lease_owner.items():
                if owner == (gateway, message.ticket):
                    self._ended(lease_id)

    def queue_took_back(self, scheduler: Scheduler, gateway: str, release: Release) -> None:
        """The queue has handled a Release: the lease is over there."""
        entry = scheduler.state.gateways.get(gateway, {}).get(release.ticket)
        if entry is not None and entry.lease_id == release.lease_id:
            raise self.broken(5, f"the queue keeps lease {release.lease_id}, which {gateway} returned")

    def fenced(self, fence: Fence) -> None:
        for lease_id in list(self._live.get(fence.engine_id, ())):
            self._ended(lease_id)

    def _ended(self, lease_id: int) -> None:
        engine_id = self._engine_of.get(lease_id)
        if engine_id is not None:
            self._live.get(engine_id, {}).pop(lease_id, None)

    def gateway_unlinked(self, gateway: str) -> None:
        """The queue lost its link to a gateway, and with it what it had just said."""
        for key in [key for key in self._called_back if key[0] == gateway]:
            del self._called_back[key]

    def queue_died(self) -> None:
        self._called_back.clear()
        self._live.clear()
        self._queue_lives += 1
        self._queue_since_s = self.sim.now_s

    def decided(self, scheduler: Scheduler, *, granting: bool) -> None:
        """After each decision of the queue: invariants 7 and 12."""
        self._decisions += 1
        if self._decisions % INTEGRITY_EVERY == 0:
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

    # engines ----------------------------------------------------------------------------------------------

    def sweep_gateways(self, able: set[str]) -> None:
        """`able`: gateways (link names) that are alive and not stopped."""
        for key, since_s in self._called_back.items():
            known = self._in_request.get(key)
            if known is None or key in self._returned or key[0] not in able:
                continue
            if self.sim.now_s - since_s > CALL_BACK_S:
                raise self.broken(18, f"{key[0]} keeps lease {key[1]}, called back at {since_s:.3f} s")

    def sweep(self, engine_id: str, streams: list[tuple[str, int]], num_computing: int) -> None:
        """Streams (gateway, stream id) that run on an engine now, and how many it computes."""
        if num_computing > len(streams):
            raise self.broken(11, f"{engine_id} computes {num_computing} streams, {len(streams)} are wanted")
        for key in streams:
            closed_s = self._closed_s.get(key)
            if closed_s is not None and self.sim.now_s - closed_s > DEAD_WORK_S:
                raise self.broken(11, f"{engine_id} still works on stream {key}, closed at {closed_s:.3f} s")

    def unfinished(self) -> list[str]:
        """Requests without an outcome."""
        return [request_id for request_id, record in self.requests.items() if not record.ended]

    def check_budget(self, burst_tokens: float, share: float) -> None:
        """Invariant 15, over all gateways together."""
        allowed = burst_tokens + share * (
            self.served_tokens + sum(len(r.ask.prompt) // 4 for r in self.requests.values())
        )
        if self.repeated_tokens > allowed:
            raise self.broken(15, f"{self.repeated_tokens} tokens computed again, {allowed:.0f} allowed")
