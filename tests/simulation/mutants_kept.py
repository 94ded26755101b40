"""Planted bugs of answers that outlive their gateway, and of releases (see mutants.py, which lists them)."""

from __future__ import annotations

from typing import Any

import msgspec

from services.api import event_ids
from services.cache.client import CacheClient
from services.gateway import journal_part
from services.gateway.flow import AskLease, ChoiceFlow
from services.gateway.generation import Generation
from services.gateway.viewer import Viewer
from services.journal import book
from services.journal.client import JournalCall
from services.journal.effects import Deliver, Done
from services.queue import client, lanes, scheduler
from services.queue.rollout import desk, plan, recycle
from tests.simulation.planting import Mutant, empty, nothing, without

_ask = ChoiceFlow._ask
_skips = event_ids.Rest.skips
_new_entry = scheduler.new_entry
_share = plan.share


def skip_one_more(self: event_ids.Rest, delta: Any) -> bool:
    """Counts a delta that just begins beyond the client's place as one that it has."""
    mine, seen = self._at.counts[delta.choice], self._seen.counts[delta.choice]
    if mine == seen and delta.finish is None and mine:
        self._behind.discard(delta.choice)
        self._at.advance(delta)
        return True
    return _skips(self, delta)


def skip_nothing(self: event_ids.Rest, delta: Any) -> bool:
    self._behind.clear()
    return False


def open_for_everybody(self: book.Book[Any], key: bytes, member: Any, *rest: Any, **more: Any) -> list[Any]:
    """Whoever asks for an answer in the making makes it, too."""
    entry = self.get(key)
    if entry is not None and entry.tail is None and entry.owner is not None:
        return [book.Own(member, entry.epoch, entry.head)]
    return _open(self, key, member, *rest, **more)


_open = book.Book.open
_told = JournalCall.told
_lost = journal_part.Part.journal_lost


def told_but_owning(self: JournalCall, message: Any) -> None:
    if message.state != "fenced" or self.state != "own":
        _told(self, message)


def lost_but_going_on(self: journal_part.Part, state: str, error: Any) -> None:
    if state != "fenced":
        _lost(self, state, error)


def feed_from_where_it_is(self: CacheClient, call: Any, have: int) -> None:
    """Believes that nothing is on its way to the Cache."""
    call.wanted = False
    _want(self, call, have)


_want = CacheClient._want


def catches_up_from_here(self: Viewer, head: Any, delta: Any) -> bool:
    """Shows what comes from now on, whatever the client has."""
    if self.done.done():
        return False
    self._begin(head)
    self._live = True
    return True


def ask_without_revision(self: ChoiceFlow, now_s: float) -> AskLease:
    return AskLease(msgspec.structs.replace(_ask(self, now_s).acquire, revision=""))


def route_by_shares(self: desk.Desk, wish: str, pinned: bool, request_id: str) -> str:
    """An answer that has begun goes wherever its session would go now."""
    return wish if self.table.share(wish) > 0.0 else desk.choose(self.table, request_id)


def choose_the_newest(table: Any, session: str) -> str:
    return table.shares[0][0] if table.shares else ""


def new_entry_free(*args: Any) -> Any:
    entry = _new_entry(*args)
    entry.pinned = False
    return entry


def share_kept(release: Any, new: Any, old: Any) -> float:
    """What is rolled back keeps half."""
    taken_back = release.phase in (plan.Phase.RETURNING, plan.Phase.BACK)
    return 0.5 if taken_back and new.engines and old.engines else _share(release, new, old)


def renew_the_oldest(units: Any, memory: Any, now_s: float, *, after_s: float, back_within_s: float) -> Any:
    old = [unit for unit in units if after_s and unit.serves and unit.age_s >= after_s]
    return memory, (max(old, key=lambda unit: unit.age_s).name if old else "")


def renew_beside_one_that_leaves(units: Any, memory: Any, now_s: float, **settings: Any) -> Any:
    return _next_unit([u for u in units if not u.leaving], recycle.Recycling(), now_s, **settings)


_next_unit = recycle.next_unit

JOURNAL_MUTANTS = (
    Mutant("who comes back gets everything again", ((event_ids.Rest, "skips", skip_nothing),), "journal"),
    Mutant("who comes back misses a piece", ((event_ids.Rest, "skips", skip_one_more),), "journal"),
    Mutant("who comes back is shown what is new only", ((Viewer, "_catches_up", catches_up_from_here),), "journal"),
    Mutant("two gateways make one answer", ((book.Book, "open", open_for_everybody),), "journal"),
    Mutant("an owner does not hear that it is fenced", ((JournalCall, "told", told_but_owning),), "journal"),
    Mutant("a fenced owner goes on", ((journal_part.Part, "journal_lost", lost_but_going_on),), "journal"),
    Mutant("a leader feeds again what is on its way", ((CacheClient, "_want", feed_from_where_it_is),), "crowd"),
    Mutant("a dead owner is never replaced", ((book.Book, "tick", empty),), "journal"),
    Mutant("tokens are not told to who follows",
           ((book.Book, "append", without(book.Book.append, Deliver)),), "journal"),
    Mutant("an answer's end is not told to who follows",
           ((book.Book, "end", without(book.Book.end, Done)),), "journal"),
)  # fmt: skip

RELEASE_MUTANTS = (
    Mutant("a resumption forgets its revision", ((ChoiceFlow, "_ask", ask_without_revision),), "releases"),
    Mutant("the queue sends an answer on to another revision", ((desk.Desk, "route", route_by_shares),), "releases"),
    Mutant("what waits to go on moves with the others", ((scheduler, "new_entry", new_entry_free),), "releases"),
    Mutant("followers get another revision's tokens", ((Generation, "leave_flight", nothing),), "releases"),
    Mutant("shares are not looked at",
           ((desk, "choose", choose_the_newest), (client, "choose", choose_the_newest)), "releases"),
    Mutant("what waits without a share stays there", ((lanes.Lanes, "strays", empty),), "releases"),
    Mutant("a release is forgotten with the queue", ((desk.Desk, "adopt", nothing),), "releases"),
    Mutant("what is rolled back keeps a share", ((plan, "share", share_kept),), "releases"),
    Mutant("the last worker of a revision is renewed", ((lanes, "next_unit", renew_the_oldest),), "releases"),
    Mutant("two workers are renewed at once", ((lanes, "next_unit", renew_beside_one_that_leaves),), "releases"),
)  # fmt: skip
