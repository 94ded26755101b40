"""Planted bugs: each is one core or shell with one thing wrong, as somebody might break it on a bad day.

The twin must find every one of them within 1,000 seeds (test_mutants.py). A mutant that is not found means that an
invariant is missing, or that no world ever goes there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.experts import stream_table
from services.gateway import flow as flow_module
from services.gateway import migrate
from services.gateway.flow import AskLease, ChoiceFlow, CloseStream, ReturnLease
from services.gateway.migrate import Loss
from services.gateway.mux import EngineMux, EnginePeer
from services.link.messages import Abort
from services.queue import (
    bands,
    client,
    dispatch,
    fleet,
    hand_on,
    leases,
    pools,
    saturation,
    scheduler,
    state,
)
from services.text import stops
from tests.simulation.mutants_kept import JOURNAL_MUTANTS, RELEASE_MUTANTS
from tests.simulation.planting import Mutant, empty, none_due, nothing, without

# The gateway's side ------------------------------------------------------------------------------------------


def accept_without_index(self: ChoiceFlow, frame: Any) -> Any:
    self.emitted.extend(frame.token_ids)
    return frame.token_ids


def resubmission_with_one_too_many(job: Any, emitted: Any, remaining_s: float) -> Any:
    ids = emitted.tobytes()
    return msgspec.structs.replace(job, emitted_ids=ids + ids[-4:], remaining_s=remaining_s)


_ask = ChoiceFlow._ask
_lost = migrate.LossRecord.lost
_register = fleet.Fleet.register
_peer_lose = EnginePeer.lose


def ask_as_newcomer(self: ChoiceFlow, now_s: float) -> AskLease:
    asked = _ask(self, now_s)
    return AskLease(msgspec.structs.replace(asked.acquire, age_s=0.0))


def ask_without_emitted(self: ChoiceFlow, now_s: float) -> AskLease:
    asked = _ask(self, now_s)
    return AskLease(msgspec.structs.replace(asked.acquire, emitted_tokens=0))


def lose_and_forget_streams(self: EnginePeer, why: str, loss: Loss) -> None:
    self.streams = {}
    _peer_lose(self, why, loss)


def abort_locally(self: EnginePeer, stream_id: int) -> None:
    self.streams.pop(stream_id, None)


def abort_only_remotely(self: EnginePeer, stream_id: int) -> None:
    if self.link is not None:
        self.link.send(Abort(stream_id))


def progress_counts_as_none(
    self: migrate.LossRecord, engine_id: str, unit: str, loss: Loss, *, progressed: bool
) -> bool:
    return _lost(self, engine_id, unit, loss, progressed=False)


def register_again_never(self: client.QueueClient, link: Any, rest: list[Any]) -> None:
    rest.clear()


_link_down = client.QueueClient.link_down
_returned = hand_on.HandOn.returned
_match = hand_on.HandOn.match


def link_down_is_a_death(self: client.QueueClient, link: Any, why: str) -> None:
    _link_down(self, link, why)
    self.queue_died()


def returned_whole(self: hand_on.HandOn, grant: Any, last: Any, outcome: str) -> None:
    _returned(self, grant, last, "completed")


def match_and_keep(self: hand_on.HandOn, waiting: Any, now_s: float) -> Any:
    spares = list(self.spares)
    matched = _match(self, waiting, now_s)
    self.spares = spares
    return matched


def release_only_when_linked(self: client.QueueClient, release: Any) -> None:
    """Forgets to take the ticket out of its books."""
    if self._link is not None:
        self._link.send(release)


# The queue's side --------------------------------------------------------------------------------------------


def lease_book_from_zero(self: leases.LeaseBook, ttl_s: float, first_id: int) -> None:
    _lease_book(self, ttl_s, 0)


_lease_book = leases.LeaseBook.__init__


def register_without_new_epoch(self: fleet.Fleet, message: Any, now_s: float) -> Any:
    engine, old = _register(self, message, now_s)
    engine.epoch = 1
    return engine, old


def register_without_fencing(self: fleet.Fleet, message: Any, now_s: float) -> Any:
    engine, _ = _register(self, message, now_s)
    return engine, None


def call_back_without_telling(self: state.QueueState, entry: Any) -> None:
    self.vacate(entry)
    entry.state = 2


def grant_without_unqueueing(self: state.QueueState, entry: Any, engine: Any, now_s: float) -> None:
    entry.state = 1
    self.leases.open(entry, now_s)
    self.attach(entry, engine)
    self.tell_grant(entry)


def attach_without_counting(self: state.QueueState, entry: Any, engine: Any) -> None:
    entry.engine, entry.engine_id, entry.epoch = engine, engine.engine_id, engine.epoch
    engine.leases[entry.seq] = entry


TWICE = property(lambda self: 2 * self.max_num_seqs)


def add_newcomers_only(self: bands.Bands, entry: Any, returning: bool = False) -> None:
    if not returning:
        _add(self, entry)


_add = bands.Bands.add


# The engine's side -------------------------------------------------------------------------------------------


def link_down_without_abort(self: stream_table.StreamTable, link: Any, why: str) -> None:
    for key in self._links.pop(link, {}).values():
        self._streams.pop(key, None)


def abort_without_engine(self: stream_table.StreamTable, link: Any, stream_id: int) -> None:
    key = self._links.get(link, {}).get(stream_id)
    if key is not None:
        self._forget(self._streams[key])


def emit_to_wrong_stream(self: stream_table.StreamTable, stream: Any, item: Any) -> None:
    others = [one for one in self._streams.values() if one.link is stream.link]
    _emit(self, others[0] if others else stream, item)


_emit = stream_table.StreamTable._emit


MUTANTS = (
    Mutant("a repeated frame is taken twice", ((ChoiceFlow, "accept", accept_without_index),)),
    Mutant(
        "a resubmission counts a token twice",
        ((flow_module, "resubmission", resubmission_with_one_too_many),),
    ),
    Mutant(
        "a lost engine's lease is kept", ((ChoiceFlow, "on_lost", without(ChoiceFlow.on_lost, ReturnLease)),)
    ),
    Mutant(
        "a preempted lease is kept",
        ((ChoiceFlow, "on_preempt", without(ChoiceFlow.on_preempt, ReturnLease)),),
    ),
    Mutant(
        "a preempted stream runs on",
        ((ChoiceFlow, "on_preempt", without(ChoiceFlow.on_preempt, CloseStream)),),
    ),
    Mutant("a preemption is ignored", ((ChoiceFlow, "on_preempt", empty),)),
    Mutant(
        "an abandoned choice keeps its lease",
        ((ChoiceFlow, "_abandon", without(ChoiceFlow._abandon, ReturnLease)),),
    ),
    Mutant(
        "an abandoned choice keeps its stream",
        ((ChoiceFlow, "_abandon", without(ChoiceFlow._abandon, CloseStream)),),
    ),
    Mutant(
        "a finished choice keeps its lease",
        ((ChoiceFlow, "on_finish", without(ChoiceFlow.on_finish, ReturnLease)),),
    ),
    Mutant(
        "a lost choice does not ask again", ((ChoiceFlow, "on_lost", without(ChoiceFlow.on_lost, AskLease)),)
    ),
    Mutant("a resumption asks as a newcomer", ((ChoiceFlow, "_ask", ask_as_newcomer),)),
    Mutant("a resumption hides what was emitted", ((ChoiceFlow, "_ask", ask_without_emitted),)),
    Mutant("one death is called poison", ((migrate, "POISON_LOSSES", 1),)),
    Mutant(
        "progress does not clear a request of poison",
        ((migrate.LossRecord, "lost", progress_counts_as_none),),
    ),
    Mutant("the retry budget never ends", ((migrate.RetryBudget, "spend", lambda self, num_tokens: True),)),
    Mutant("a fence is ignored by the gateway", ((EngineMux, "fence", nothing),)),
    Mutant("a lost engine's streams are forgotten", ((EnginePeer, "lose", lose_and_forget_streams),)),
    Mutant("an abort is not sent", ((EnginePeer, "abort", abort_locally),)),
    Mutant("an aborted stream is still listened to", ((EnginePeer, "abort", abort_only_remotely),)),
    Mutant(
        "waiting tickets are not told to a new queue",
        ((client.QueueClient, "_register_again", register_again_never),),
    ),
    Mutant(
        "a returned lease stays in the client's books",
        ((client.QueueClient, "release", release_only_when_linked),),
    ),
    Mutant("leases never expire", ((leases.LeaseBook, "expired", none_due(leases.LeaseBook.expired)),)),
    Mutant(
        "lease numbers begin anew with each queue", ((leases.LeaseBook, "__init__", lease_book_from_zero),)
    ),
    Mutant(
        "an engine that comes back keeps its epoch", ((fleet.Fleet, "register", register_without_new_epoch),)
    ),
    Mutant("an engine that comes back is not fenced", ((fleet.Fleet, "register", register_without_fencing),)),
    Mutant("fenced leases are not ended", ((scheduler.Scheduler, "_abandon", nothing),)),
    Mutant("the reserve is not looked at", ((dispatch, "_below_reserve", nothing),)),
    Mutant("loans are never called back", ((dispatch, "_reclaim", nothing),)),
    Mutant("a loan is called back in silence", ((state.QueueState, "call_back", call_back_without_telling),)),
    Mutant("an engine is believed to have twice its slots", ((saturation.DepthModel, "depth", TWICE),)),
    Mutant("a granted request stays in the queue", ((state.QueueState, "grant", grant_without_unqueueing),)),
    Mutant("a lease takes no room", ((state.QueueState, "attach", attach_without_counting),)),
    Mutant("a returned lease is not heard", ((scheduler.Scheduler, "_release", nothing),)),
    Mutant("who steps aside is forgotten", ((bands.Bands, "add", add_newcomers_only),)),
    Mutant("slots are counted twice when given back", ((pools.Pools, "give", nothing),)),
    Mutant(
        "an engine works on for a gateway that is gone",
        ((stream_table.StreamTable, "link_down", link_down_without_abort),),
    ),
    Mutant("an aborted stream is computed on", ((stream_table.StreamTable, "_abort", abort_without_engine),)),
    Mutant("frames go to the wrong stream", ((stream_table.StreamTable, "_emit", emit_to_wrong_stream),)),
    Mutant("half a stop string is shown", ((stops.StopMatcher, "_held_chars", lambda self, text: 0),)),
    Mutant(
        "a gateway that merely lost sight of the queue hands leases on",
        ((client.QueueClient, "link_down", link_down_is_a_death),),
    ),
    Mutant("a lost engine's lease is handed on", ((hand_on.HandOn, "returned", returned_whole),)),
    Mutant("a lease is handed on to everybody", ((hand_on.HandOn, "match", match_and_keep),)),
    Mutant("a lease is handed on to any band", ((hand_on.Spare, "suits", lambda self, wish: True),)),
    *JOURNAL_MUTANTS,
    *RELEASE_MUTANTS,
)
