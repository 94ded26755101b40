"""Which texts are embedded next, and which requests are refused. Pure.

Rules: knows tickets, token counts and times that it is given; no model, no threads. One desk per embedding model,
however many gateways there are.

1. A request is admitted whole or refused whole, before anything is computed: too much waits (the lowest band that
   waits is shed first), or it would not be done by its deadline at the pace that was measured.
2. Next comes the lowest band rank, less one for each AGEING_S that a request waited; inside a rank the tenant with the
   fewest tokens served; then who came first. A tenant that was away gets no credit for it.
3. A batch holds rows of several requests, up to a number of padded tokens: what a step costs. What is past its
   deadline is never part of one.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ..outcome import Reason
from ..request import count_ids

AGEING_S = 30.0
PACE_WEIGHT = 0.2
"""Of the newest batch in the measured pace."""


class Wish(msgspec.Struct, frozen=True):
    """One request: rows of packed token ids; `band_rank` 0 is the highest; `remaining_s` until its deadline."""

    rows: tuple[bytes, ...]
    tenant: str = ""
    band_rank: int = 0
    remaining_s: float = 600.0


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Not done, and why. `retry_after_s` < 0: no estimate."""

    reason: Reason
    message: str
    retry_after_s: float = -1.0


class Row(msgspec.Struct, frozen=True):
    """A text of a batch: the ticket's row of that number."""

    ticket: int
    number: int
    ids: bytes


class _Entry(msgspec.Struct, gc=False):
    ticket: int
    tenant: str
    rank: int
    arrived_s: float
    deadline_s: float
    rows: deque[tuple[int, bytes]]
    tokens: int
    begun: bool = False


class EmbedDesk:
    """`max_waiting_tokens` over all requests, `max_waiting` requests; a batch is at most `max_batch_tokens` padded
    tokens in `max_batch_rows` rows, or one row."""

    def __init__(
        self, *, max_waiting: int, max_waiting_tokens: int, max_batch_tokens: int, max_batch_rows: int
    ) -> None:
        self._max_waiting, self._max_waiting_tokens = max_waiting, max_waiting_tokens
        self._max_batch_tokens, self._max_batch_rows = max_batch_tokens, max_batch_rows
        self._waiting: dict[int, _Entry] = {}
        self._lines: dict[tuple[int, str], deque[_Entry]] = {}
        self._served: dict[str, float] = {}
        self._last_ticket = 0
        self.waiting_tokens = 0
        self.tokens_per_s = 0.0
        """As measured; 0 while it was never full."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, wish: Wish, now_s: float) -> tuple[int | Refused, list[tuple[int, Refused]]]:
        """The ticket, or why not; and whom it displaces (requests of lower bands of which nothing was begun)."""
        tokens = sum(map(count_ids, wish.rows))
        ahead = sum(e.tokens for e in self._waiting.values() if e.rank <= wish.band_rank)
        wait_s = (ahead + tokens) / self.tokens_per_s if self.tokens_per_s else 0.0
        if wait_s > wish.remaining_s:
            message = f"it would take {wait_s:.1f} s, and its deadline is in {wish.remaining_s:.1f}"
            return Refused(Reason.DEADLINE_UNREACHABLE, message, max(0.0, wait_s - wish.remaining_s)), []
        shed = self._shed_for(tokens, wish.band_rank)
        if shed is None:
            over = max(0, self.waiting_tokens + tokens - self._max_waiting_tokens)
            retry_s = over / self.tokens_per_s if self.tokens_per_s else -1.0
            return Refused(Reason.QUEUE_FULL, "too many texts wait to be embedded", retry_s), []
        self._last_ticket += 1
        entry = _Entry(
            self._last_ticket, wish.tenant, wish.band_rank, now_s, now_s + wish.remaining_s,
            deque(enumerate(wish.rows)), tokens,
        )  # fmt: skip
        if all(e.tenant != wish.tenant for e in self._waiting.values()):
            active = [self._served[e.tenant] for e in self._waiting.values()]
            self._served[wish.tenant] = max(self._served.get(wish.tenant, 0.0), min(active, default=0.0))
        self._waiting[entry.ticket] = entry
        self._lines.setdefault((entry.rank, entry.tenant), deque()).append(entry)
        self.waiting_tokens += tokens
        return entry.ticket, shed

    def _shed_for(self, tokens: int, rank: int) -> list[tuple[int, Refused]] | None:
        """Who goes so that it fits: the newest of the lowest bands first; None when that would not do. A request larger
        than the bound fits where nothing waits."""
        room = self._max_waiting_tokens - self.waiting_tokens
        places = self._max_waiting - len(self._waiting)
        if not self._waiting or (tokens <= room and places > 0):
            return []
        goes: list[_Entry] = []
        below = [e for e in self._waiting.values() if e.rank > rank and not e.begun]
        for entry in sorted(below, key=lambda e: (-e.rank, -e.ticket)):
            goes.append(entry)
            room, places = room + entry.tokens, places + 1
            if tokens <= room and places > 0:
                break
        else:
            return None
        for entry in goes:
            self.drop(entry.ticket)
        told = Refused(Reason.SHED, "it made way for a higher band", self._drain_s())
        return [(entry.ticket, told) for entry in goes]

    def _drain_s(self) -> float:
        return self.waiting_tokens / self.tokens_per_s if self.tokens_per_s else -1.0

    def drop(self, ticket: int) -> None:
        """Nobody waits for it any more. Unknown tickets are ignored."""
        entry = self._waiting.pop(ticket, None)
        if entry is None:
            return
        self.waiting_tokens -= entry.tokens
        line = self._lines[entry.rank, entry.tenant]
        line.remove(entry)
        if not line:
            del self._lines[entry.rank, entry.tenant]
        if not self._waiting:
            self._served.clear()  # nobody has an advantage where nobody waits

    def expire(self, now_s: float) -> list[tuple[int, Refused]]:
        """Those past their deadline, taken out."""
        late = [entry.ticket for entry in self._waiting.values() if now_s >= entry.deadline_s]
        for ticket in late:
            self.drop(ticket)
        return [(t, Refused(Reason.DEADLINE_EXCEEDED, "its deadline passed while it waited")) for t in late]

    def take(self, now_s: float) -> list[Row]:
        """The next batch; empty where nothing waits. Call `expire` before. A request whose last row is taken waits no
        longer."""
        batch: list[Row] = []
        longest = 0
        while self._lines and len(batch) < self._max_batch_rows:
            entry = min((line[0] for line in self._lines.values()), key=lambda e: self._order(e, now_s))
            number, ids = entry.rows[0]
            num = count_ids(ids)
            if batch and max(longest, num) * (len(batch) + 1) > self._max_batch_tokens:
                break
            longest = max(longest, num)
            batch.append(Row(entry.ticket, number, ids))
            entry.rows.popleft()
            entry.begun = True
            entry.tokens -= num
            self.waiting_tokens -= num
            self._served[entry.tenant] = self._served.get(entry.tenant, 0.0) + num
            if not entry.rows:
                self.drop(entry.ticket)
        return batch

    def _order(self, entry: _Entry, now_s: float) -> tuple[float, float, int]:
        aged = max(0, entry.rank - int((now_s - entry.arrived_s) / AGEING_S))
        return aged, self._served.get(entry.tenant, 0.0), entry.ticket

    def done(self, num_tokens: int, took_s: float, *, full: bool = True) -> None:
        """A batch of so many tokens was computed: how fast it goes. One that was not `full` (nothing waited after it
        was taken) costs what a batch costs by itself, and says at most that it goes faster than was known."""
        if took_s <= 0:
            return
        pace, known = num_tokens / took_s, self.tokens_per_s
        if full and not known:
            self.tokens_per_s = pace
        elif full or pace > known > 0:
            self.tokens_per_s = known + PACE_WEIGHT * (pace - known)
