"""Who makes which answer, and how far it is: every journalled answer of a mesh. Pure: calls in, effects out.

Rules: no link, no store, no clock (times come in as `now_s`), no randomness. Members are opaque: one call of one
gateway. Heads and tails are bytes that only gateways read.

           open, nobody has it                    end
    (none) ───────────────────► OWNED ──────────────────────────► DONE ── keep_s ──► (none)
                                 ▲  │ release, or link down for owner_grace_s
              open, or a follower│  ▼
                                PAUSED ── keep_s ──► (none)

Invariants (tests/properties/journal/test_book.py):

 1. An answer has at most one owner; only its appends are taken, only its end counts, and it ends once.
 2. A new owner's epoch is higher than every earlier one's; whoever says it owns an older one is fenced.
 3. A follower is told every token of every choice, in order, each once, from the first on, and then the end.
 4. An owner that is gone is replaced by the follower that waited longest, which was told all that is kept.
 5. A key belongs to the request that opened it first: another fingerprint is refused and changes nothing.
 6. Kept bytes stay below `max_bytes`: finished answers go first, oldest first; what is being made is never dropped
    for room, new ones are turned away instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from ..config import JournalConfig
from ..link.journal_messages import LanePart
from .effects import Deliver, Done, Effect, Follow, Have, Keep, M, Own, Tell, Watch
from .entry import ENTRY_BYTES, Entry
from .lane import Gap, Lane, size_bytes

SWEEP_EVERY_S = 1.0


class Book(Generic[M]):
    """All answers of one mesh."""

    def __init__(self, config: JournalConfig) -> None:
        self._config = config
        self._entries: dict[bytes, Entry[M]] = {}
        self._lost: dict[bytes, None] = {}
        self._sweep_s = 0.0
        self.num_bytes = 0

        self.get = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def open(
        self,
        key: bytes,
        member: M,
        fingerprint: bytes,
        head: bytes,
        scopes: tuple[bytes, ...],
        now_s: float,
        *,
        resume: bool = False,
    ) -> list[Effect[M]]:
        """A request asks for its answer. The first effect for `member` says what becomes of it."""
        entry = self._entries.get(key)
        if entry is None:
            if resume:
                return [Tell(member, "gone")]
            effects: list[Effect[M]] = [*self._make_room(ENTRY_BYTES + len(head))]
            if self.num_bytes + ENTRY_BYTES + len(head) > self._config.max_bytes:
                return [*effects, Tell(member, "off")]
            entry = self._add(Entry(key, fingerprint, head, scopes, now_s))
            return [*effects, *self._take(entry, member, now_s)]
        if entry.fingerprint != fingerprint:
            return [Tell(member, "conflict")]
        entry.touched_s = now_s
        effects = [Follow(member, entry.head, entry.parts())]
        if entry.tail is not None:
            return [*effects, Done(member, entry.tail)]
        if entry.owner is None and entry.lost_s is None:
            return [*effects, *self._take(entry, member, now_s)]
        entry.followers[member] = None
        return [*effects, *self._watch(entry)]

    def hold(
        self,
        key: bytes,
        member: M,
        fingerprint: bytes,
        head: bytes,
        scopes: tuple[bytes, ...],
        epoch: int,
        now_s: float,
    ) -> list[Effect[M]]:
        """An owner is back after its link was down, or after this book was lost."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._add(Entry(key, fingerprint, head, scopes, now_s))
        if entry.tail is not None and entry.epoch == epoch:
            return [Tell(member, "ended")]  # it is this owner's, who did not hear that its end was taken
        taken = entry.owner is not None and entry.lost_s is None
        if entry.fingerprint != fingerprint or entry.epoch > epoch or entry.tail is not None or taken:
            return [Tell(member, "fenced")]
        entry.owner, entry.lost_s, entry.touched_s = member, None, now_s
        effects: list[Effect[M]] = []
        if entry.epoch < epoch:
            entry.epoch = epoch
            effects.append(Keep(key, epoch, "own"))
        return [*effects, Have(member, entry.counts()), *self._watch(entry)]

    def restore(self, entry: Entry[M], now_s: float) -> None:
        """What a store kept. Its owner may still be there and has the grace to say so."""
        self._add(entry)
        if entry.tail is None:
            entry.lost_s = now_s
            self._lost[entry.key] = None

    def append(self, key: bytes, member: M, parts: Iterable[LanePart], now_s: float) -> list[Effect[M]]:
        """The owner's new tokens."""
        entry = self._owned(key, member)
        if entry is None:
            return [Tell(member, "fenced")]
        entry.touched_s = now_s
        new: list[LanePart] = []
        effects: list[Effect[M]] = []
        for part in parts:
            try:
                fresh = entry.lanes.setdefault(part.choice, Lane()).accept(part)
            except Gap:
                effects = [Have(member, entry.counts())]
                break
            if fresh is not None:
                new.append(fresh)
        if new:
            added = sum(map(size_bytes, new))
            entry.num_bytes += added
            self.num_bytes += added
            given = tuple(new)
            effects += [Deliver(follower, given) for follower in entry.followers]
            effects.append(Keep(key, entry.epoch, "parts", given))
        return effects

    def end(self, key: bytes, member: M, tail: bytes, now_s: float) -> list[Effect[M]]:
        """The owner has the whole answer."""
        entry = self._owned(key, member)
        if entry is None:
            return [Tell(member, "fenced")]
        entry.tail, entry.owner, entry.lost_s, entry.touched_s = tail, None, None, now_s
        entry.num_bytes += len(tail)
        self.num_bytes += len(tail)
        del self._entries[key]  # to the young end: the oldest finished one goes first
        self._entries[key] = entry
        done: list[Effect[M]] = [Done(follower, tail) for follower in entry.followers]
        entry.followers.clear()
        return [*done, Keep(key, entry.epoch, "end", tail=tail)]

    def fail(self, key: bytes, member: M, reason: str, message: str) -> list[Effect[M]]:
        """The owner found the request itself at fault: nothing is kept of it."""
        entry = self._owned(key, member)
        return [] if entry is None else self._drop(entry, "failed", reason, message)

    def leave(self, key: bytes, member: M, now_s: float) -> list[Effect[M]]:
        """`member` has no part in it any more. An owner is replaced, or the answer pauses."""
        entry = self._entries.get(key)
        if entry is None:
            return []
        if entry.owner == member:
            entry.owner, entry.lost_s, entry.touched_s = None, None, now_s
            return self._promote(entry, now_s)
        if member not in entry.followers:
            return []
        del entry.followers[member]
        return self._watch(entry)

    def unlinked(self, key: bytes, member: M, now_s: float) -> list[Effect[M]]:
        """`member`'s link went down. An owner may come back within the grace."""
        entry = self._entries.get(key)
        if entry is None or entry.owner != member:
            return self.leave(key, member, now_s)
        entry.lost_s = entry.touched_s = now_s
        self._lost[key] = None
        return []

    def tick(self, now_s: float) -> list[Effect[M]]:
        """Call every now and then: replaces owners that stayed away, drops what is too old."""
        effects: list[Effect[M]] = []
        for key in list(self._lost):
            entry = self._entries.get(key)
            if entry is None or entry.lost_s is None:
                del self._lost[key]
            elif now_s - entry.lost_s >= self._config.owner_grace_s:
                del self._lost[key]
                entry.owner, entry.lost_s = None, None
                effects += self._promote(entry, now_s)
        if now_s >= self._sweep_s:
            self._sweep_s = now_s + SWEEP_EVERY_S
            old_s = now_s - self._config.keep_s
            for entry in [one for one in self._entries.values() if one.touched_s <= old_s]:
                if entry.owner is None and entry.lost_s is None:
                    effects += self._drop(entry, "gone")
        return effects

    def purge(self, scope: bytes) -> list[Effect[M]]:
        """Forget every answer under a purge scope, also those being made: their owners go on without us."""
        found = [entry for entry in self._entries.values() if scope in entry.scopes]
        return [effect for entry in found for effect in self._drop(entry, "gone")]

    def held(self, scope: bytes) -> int:
        """Answers under a purge scope."""
        return sum(scope in entry.scopes for entry in self._entries.values())

    def usurped(self, key: bytes) -> list[Effect[M]]:
        """Somebody else owns this answer, in a book that we cannot see."""
        if (entry := self._entries.get(key)) is None:
            return []
        told: list[Effect[M]] = [] if entry.owner is None else [Tell(entry.owner, "fenced")]
        entry.owner = None
        return told + [one for one in self._drop(entry, "gone") if not isinstance(one, Keep)]

    def check_integrity(self) -> None:
        """Raises AssertionError when sums or roles are wrong."""
        assert self.num_bytes == sum(entry.num_bytes for entry in self._entries.values())
        for key, entry in self._entries.items():
            assert entry.key == key
            assert entry.owner not in entry.followers
            assert entry.tail is None or (entry.owner is None and not entry.followers)
            assert not entry.followers or entry.owner is not None or entry.lost_s is not None

    # ---------------------------------------------------------------------------------------------------

    def _owned(self, key: bytes, member: M) -> Entry[M] | None:
        entry = self._entries.get(key)
        return entry if entry is not None and entry.owner == member and entry.lost_s is None else None

    def _add(self, entry: Entry[M]) -> Entry[M]:
        self._entries[entry.key] = entry
        self.num_bytes += entry.num_bytes
        return entry

    def _take(self, entry: Entry[M], member: M, now_s: float) -> list[Effect[M]]:
        entry.epoch += 1
        entry.owner, entry.lost_s, entry.touched_s = member, None, now_s
        return [
            Keep(entry.key, entry.epoch, "own"),
            Own(member, entry.epoch, entry.head),
            *self._watch(entry),
        ]

    def _promote(self, entry: Entry[M], now_s: float) -> list[Effect[M]]:
        if not entry.followers:
            return []
        heir = next(iter(entry.followers))
        del entry.followers[heir]
        return self._take(entry, heir, now_s)

    def _watch(self, entry: Entry[M]) -> list[Effect[M]]:
        if entry.owner is None or entry.lost_s is not None:
            return []
        return [Watch(entry.owner, len(entry.followers))]

    def _make_room(self, wanted_bytes: int) -> list[Effect[M]]:
        effects: list[Effect[M]] = []
        if self.num_bytes + wanted_bytes > self._config.max_bytes:
            for entry in [one for one in self._entries.values() if one.tail is not None]:
                effects += self._drop(entry, "gone")
                if self.num_bytes + wanted_bytes <= self._config.max_bytes:
                    break
        return effects

    def _drop(self, entry: Entry[M], state: str, reason: str = "", message: str = "") -> list[Effect[M]]:
        del self._entries[entry.key]
        self.num_bytes -= entry.num_bytes
        effects: list[Effect[M]] = [Tell(member, state, reason, message) for member in entry.followers]
        if entry.owner is not None and state != "failed" and entry.lost_s is None:
            effects.append(Tell(entry.owner, "off"))
        return [*effects, Keep(entry.key, entry.epoch, "drop")]
