"""The priority queue of one model, as a pure core: `decide(event, now_s) -> effects`.

What belongs here: what each event means, in terms of the moves of state.py. What it must not know: sockets, Ray, any
clock but `now_s`, randomness. The same object runs in the authority, in the twin and in the tests; the same events at
the same times give the same effects.

The life of a request here: Acquire → admission.py (if) → bands.py, ordering/ (when) → pools.py, routing/ (where)
→ Grant → Progress … → Release; or Refuse, at once or at its deadline; or Preempt, after which it comes back.

State is mutable inside (a functional copy of 100,000 entries would miss the bound of 200 µs per decision).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import QueueConfig
from ..link.messages import (
    Acquire,
    CancelTicket,
    EngineDrain,
    EngineLoad,
    EngineUp,
    Holding,
    Preempt,
    Progress,
    Refuse,
    Release,
)
from ..outcome import Reason
from .admission import check_fields
from .dispatch import CUT_SHORT, FULL, SETTLED, STEPPED_ASIDE, dispatch, may_favour
from .engine_moves import EngineMoves
from .entry import GONE, LEASED, PREEMPTING, WAITING, Entry
from .events import (
    Effect,
    EngineUnlinked,
    Event,
    FromEngine,
    FromGateway,
    GatewayLost,
    SetLimits,
    Tick,
    ToGateway,
)
from .intake import new_entry, refusal, refuse_late
from .state import QueueState

RECHECK_S = 0.05
TICK_BUDGET = 512
DECISION_BUDGET = 4
"""Timers handled per tick and per other decision: bounds one decision's time, whatever comes due at once."""


class Scheduler(EngineMoves):
    """See the module. `incarnation` is greater in every start of the queue; `grace_s` follows the first event: no
    grants until then, so that gateways can say what they hold after a restart."""

    def __init__(self, config: QueueConfig, *, incarnation: int = 0, grace_s: float = 0.0) -> None:
        self.state = QueueState(config, incarnation)
        self._grace_s = grace_s
        self._grants_from_s: float | None = None
        self._ended = CUT_SHORT
        self._timers_behind = False
        self._gateway_moves: dict[type, Callable[[str, Any, float], None]] = {
            Acquire: self._acquire, Release: self._release, Progress: self._progress,
            CancelTicket: self._cancel, Holding: self._holding,
        }  # fmt: skip
        self._engine_moves: dict[type, Callable[[Any, float], None]] = {
            EngineUp: self._engine_up, EngineLoad: self._engine_load, EngineDrain: self._engine_drain,
        }  # fmt: skip

    def decide(self, event: Event, now_s: float) -> list[Effect]:
        """Take one event in and return what is to be done, in order."""
        state = self.state
        state.effects = effects = []
        state.now_s = now_s
        if self._grants_from_s is None:
            self._grants_from_s = now_s + self._grace_s
        asked: Acquire | None = None
        if isinstance(event, FromGateway):
            message = event.message
            if type(message) is Acquire:
                asked = message
            self._gateway_moves[type(message)](event.gateway, message, now_s)
        elif type(event) is FromEngine:
            self._engine_moves[type(event.message)](event.message, now_s)
        else:
            self._happened(event, now_s)
        if self._timers_behind:
            self._timers_behind = self._timers(now_s, TICK_BUDGET if type(event) is Tick else DECISION_BUDGET)
        if asked is not None and self._changes_nothing(asked.band):
            return effects
        if state.bands.waiting and now_s >= self._grants_from_s:
            self._ended = dispatch(state, now_s)
        elif self._ended == FULL:
            self._ended = SETTLED  # as it was; since then something may have fallen free
        return effects

    def _happened(self, event: Event, now_s: float) -> None:
        """What nobody said."""
        if isinstance(event, Tick):
            self._tick(now_s)
            self._timers_behind = True
        elif isinstance(event, GatewayLost):
            self._gateway_lost(event.gateway, now_s)
        elif isinstance(event, EngineUnlinked):
            self._engine_unlinked(event.engine_id)
        elif isinstance(event, SetLimits):
            self.state.reconfigure(event.config)

    def _changes_nothing(self, band_name: str) -> bool:
        """Whether one more request of this band cannot lead to a grant: nothing is free, or what is free does not suit
        those who step aside, and it may not call a loan back."""
        state, ended = self.state, self._ended
        band = state.bands.index_of.get(band_name)
        if ended == FULL and band is not None and not state.effects:  # nobody was refused: only this came
            slots = state.slots[band]
            still = not slots.light or not slots.heavy
        elif ended in (FULL, SETTLED):
            still = not state.fleet.with_room and not may_favour(state)
        else:
            still = ended == STEPPED_ASIDE
        return still and (band is None or not state.pools.may_call_back(band))

    # gateways ------------------------------------------------------------------------------------------

    def _acquire(self, gateway: str, message: Acquire, now_s: float) -> None:
        state = self.state
        table = state.gateways.get(gateway)
        if table is None:
            table = state.gateways[gateway] = {}
        known = table.get(message.ticket)
        if known is not None:  # sent again after a lost link: never a second lease
            if known.state == LEASED:
                known.renewed_s = now_s
                state.tell_grant(known)
            elif known.state == PREEMPTING:
                state.end_lease(known)  # it asks again without having heard of the preemption
            if known.state != GONE:
                return
        band = state.bands.index_of.get(message.band)
        verdict = check_fields(message)
        if band is None:
            verdict = Reason.INVALID_FIELD, f"there is no band named {message.band[:64]!r}"
        if (
            verdict is None
            and message.prompt_tokens + message.max_tokens > (longest := state.fleet.longest_tokens) > 0
        ):
            verdict = Reason.CONTEXT_TOO_LONG, f"prompt and answer pass {longest} tokens"
        if verdict is not None or band is None:
            assert verdict is not None
            state.counts[band if band is not None else -1].refuse(verdict[0])
            state.effects.append(ToGateway(gateway, Refuse(message.ticket, verdict[0], verdict[1])))
            return
        entry = new_entry(state, gateway, message, band, now_s)
        if band in state.calm.slowdowns:
            state.calm.asked(band, now_s)
        state.counts[band].registered += 1
        entry.counts.registered += 1
        slack_s = state.outlook.slack_s(entry, now_s)
        if (why_not := refusal(state, entry, now_s, slack_s)) is not None:
            reason, text, cost = why_not
            state.count_refusal(entry, reason)
            state.tell(entry, Refuse(entry.ticket, reason, text, state.rate.retry_after_s(cost)))
            return
        state.enqueue(entry, now_s + slack_s)

    def _cancel(self, gateway: str, message: CancelTicket, now_s: float) -> None:
        entry = self.state.gateways.get(gateway, {}).get(message.ticket)
        if entry is None:
            return
        self.state.counts[entry.band].cancelled += 1
        if entry.state == WAITING:
            self.state.drop(entry)
        else:  # granted while the cancel was under way
            self.state.end_lease(entry)

    def _release(self, gateway: str, message: Release, now_s: float) -> None:
        state = self.state
        table = state.gateways.get(gateway)
        entry = table.get(message.ticket) if table is not None else None
        if entry is None or entry.lease_id != message.lease_id or entry.state == WAITING:
            return
        self._count_output(entry, message.output_tokens - entry.output_tokens, now_s)
        outcome, band, engine = message.outcome, entry.band, entry.engine
        state.ends.end(outcome)
        tokens = entry.emitted_tokens + entry.output_tokens
        if outcome == "completed":
            state.counts[band].completed += 1
            state.learn_output(tokens)
            state.outlook.lengths.learn(entry.tenant, band, tokens, entry.max_tokens, True, now_s)
        elif outcome in ("cancelled", "evicted"):
            state.outlook.lengths.learn(entry.tenant, band, tokens, entry.max_tokens, False, now_s)
            if outcome == "cancelled":
                state.counts[band].cancelled += 1
        if engine is not None and entry.state == LEASED:
            engine.model.lease_ended(now_s - entry.granted_s)
        state.end_lease(entry)
        if engine is not None and engine.draining:
            self._dismiss(engine)

    def _count_output(self, entry: Entry, tokens: int, now_s: float) -> None:
        if tokens > 0:
            if not entry.output_tokens and not entry.emitted_tokens:
                self.state.ends.token(now_s - entry.granted_s)
                self.state.outlook.prefill.first_token(now_s - entry.granted_s, entry.prompt_tokens)
            entry.output_tokens += tokens
            self.state.charge(entry, self.state.prices.output_token * tokens)

    def _progress(self, gateway: str, message: Progress, now_s: float) -> None:
        table = self.state.gateways.get(gateway)
        if table is None:
            return
        for ticket, tokens in zip(message.tickets, message.output_tokens, strict=False):
            entry = table.get(ticket)
            if entry is not None and entry.lease_id:
                entry.renewed_s = now_s
                self._count_output(entry, min(tokens, entry.max_tokens), now_s)

    def _holding(self, gateway: str, message: Holding, now_s: float) -> None:
        """After our restart (or a lost link): a lease that is in use. It is taken over if its engine still is."""
        state, told = self.state, message.acquire
        table = state.gateways.setdefault(gateway, {})
        known = table.get(told.ticket)
        if known is not None and known.lease_id == message.lease_id:
            known.renewed_s = now_s
            if known.state == PREEMPTING:
                state.tell(known, Preempt(known.ticket, known.lease_id))
            return
        if known is not None:
            state.drop(known) if known.state == WAITING else state.end_lease(known)
        engine = state.fleet.engines.get(message.engine_id)
        band = state.bands.index_of.get(told.band)
        stale = engine is not None and engine.epoch != message.epoch
        verdict = check_fields(told)
        nonsense = band is None or (verdict is not None and verdict[0] is Reason.INVALID_FIELD)
        if band is None or nonsense or stale or state.fleet.is_fenced(message.engine_id, message.epoch):
            state.effects.append(ToGateway(gateway, Preempt(told.ticket, message.lease_id)))
            return
        entry = new_entry(state, gateway, told, band, now_s)
        entry.state, entry.lease_id, entry.output_tokens = LEASED, message.lease_id, message.output_tokens
        entry.granted_s, entry.engine_id, entry.epoch = now_s, message.engine_id, message.epoch
        table[entry.ticket] = entry
        state.leases.watch(entry, now_s)
        if engine is not None:
            state.attach(entry, engine)
        else:
            state.fleet.limbo.setdefault(message.engine_id, []).append(entry)

    def _gateway_lost(self, gateway: str, now_s: float) -> None:
        table = self.state.gateways.get(gateway, {})
        for entry in list(table.values()):
            if entry.state == WAITING:
                self.state.drop(entry)
            elif entry.state in (LEASED, PREEMPTING):
                self.state.leases.hurry(entry, now_s)
        if not table:
            self.state.gateways.pop(gateway, None)

    # time ----------------------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> None:
        state = self.state
        state.costs.tick(state.fleet.engines.values(), now_s)
        for engine, _ in state.fleet.dead(now_s, state.config.engine_silent_s):
            state.fleet.remove(engine)
            self._abandon(engine)
            state.resize()
        told_per_s = state.prices.output_token * state.fleet.tokens_per_s()
        state.rate.tick(now_s, state.bands.waiting > 0, state.pools.capacity, told_per_s)
        state.tenants.look(state.slots, now_s)
        state.outlook.look(now_s)
        limbo = state.fleet.limbo
        for engine_id in [name for name, entries in limbo.items() if all(e.state != LEASED for e in entries)]:
            del limbo[engine_id]

    def _timers(self, now_s: float, budget: int) -> bool:
        """Handle what came due; True when the budget did not suffice and the next decision should go on."""
        state = self.state
        late = state.deadlines.expired(now_s, budget)
        for entry in late:
            # Where it is not: engines are faster, or answers shorter, than when it came.
            if not refuse_late(state, entry, now_s):
                state.deadlines.add(entry, now_s + max(RECHECK_S, state.outlook.slack_s(entry, now_s)))
        num_aged = state.bands.age(now_s, budget)
        num_due, over = state.leases.expired(now_s, budget)
        for entry in over:
            # Its gateway forgot it, or is gone. If it is still there, it must stop the stream and ask again.
            state.tell(entry, Preempt(entry.ticket, entry.lease_id))
            state.end_lease(entry)
            table = state.gateways.get(entry.gateway)
            if table is not None and not table:
                state.gateways.pop(entry.gateway, None)
        return max(len(late), num_aged, num_due) >= budget
