"""Whether an answer can still be complete by its deadline, as far as the queue can know.

Rules: puts lengths (lengths.py), paces (finish.py) and pauses together; refuses nobody itself. The answer is "too late"
only for what cannot make it even if it begins now, is short for its kind, and runs at the best pace of the moment:

    now + prefill + least tokens left × seconds per token  >  deadline

An engine that idles makes every estimate 0: trying costs nobody anything, and is how wrong knowledge is put right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .entry import Entry
from .finish import PrefillPace
from .fleet import Fleet
from .lengths import LengthBook

KEEP = 0.9
FRESH_S = 60.0
FIRST_PAUSE_S = 0.25
PAUSES_GRANTED = 2.0
"""Work that may be paused is granted with room for so many pauses, and paused while it has room for one. With one
measure for both, an engine that was a little slower than told left nobody who could afford the pause."""
MOST_OF_PATIENCE = 0.25
"""Room for a pause takes at most this part of the time that a request has in all."""
ROUNDING_S = 1e-6
LONGEST_OF_S = 60.0
"""The longest pause of this minute and of the one before is remembered: bursts of higher bands are rare, and an outage
of all engines should be forgotten."""


class Pauses:
    """How long preempted work waits to go on: mean and mean deviation, as TCP does it for round trips (RFC 6298), and
    the longest lately, since pauses are long together, when a burst comes."""

    def __init__(self) -> None:
        self._mean_s = FIRST_PAUSE_S
        self._deviation_s = FIRST_PAUSE_S / 4
        self._since_s = 0.0
        self._longest_s = self._longest_before_s = 0.0
        self._seen_s = float("-inf")

    def seen(self, pause_s: float, now_s: float) -> None:
        """One ended, or was waited for in vain."""
        self._deviation_s = KEEP * self._deviation_s + (1.0 - KEEP) * abs(pause_s - self._mean_s)
        self._mean_s = KEEP * self._mean_s + (1.0 - KEEP) * pause_s
        if now_s - self._since_s > LONGEST_OF_S:
            just_over = now_s - self._since_s < 2 * LONGEST_OF_S
            self._longest_before_s = self._longest_s if just_over else 0.0
            self._since_s, self._longest_s = now_s, 0.0
        self._longest_s = max(pause_s, self._longest_s)
        self._seen_s = now_s

    def room_s(self, now_s: float) -> float:
        """What a pause takes at worst, nearly; 0 where nobody was paused lately."""
        if now_s - self._seen_s >= FRESH_S:
            return 0.0
        return max(self._mean_s + 4.0 * self._deviation_s, self._longest_s, self._longest_before_s)


class Outlook:
    """See the module."""

    def __init__(self, fleet: Fleet, num_bands: int) -> None:
        self._fleet = fleet
        self.lengths = LengthBook(num_bands)
        self.prefill = PrefillPace()
        self.pauses = Pauses()
        self._token_s = 0.0

    def look(self, now_s: float) -> None:
        """Call on every tick: what engines make of a token now."""
        self._token_s = self._fleet.token_s(now_s)

    def least_s(self, entry: Entry, token_s: float, now_s: float) -> float:
        """Seconds that the rest of the answer takes at least once it begins, or goes on."""
        if token_s <= 0.0:
            return 0.0
        done = entry.emitted_tokens + entry.output_tokens
        left = self.lengths.bound(entry.tenant, entry.band, entry.max_tokens, now_s) - done
        return (left if left > 1 else 1) * token_s + self.prefill.token_s * (entry.prompt_tokens + done)

    def slack_s(self, entry: Entry, now_s: float) -> float:
        """Seconds that the answer may wait before it must begin, or go on, as can be told; negative: too late."""
        return entry.deadline_s - now_s - self.least_s(entry, self._token_s, now_s)

    def has_slack(self, entry: Entry, now_s: float, wait_s: float) -> bool:
        """Whether `slack_s` is `wait_s` or more. Most have so much that it need not be known how long answers are."""
        at_most_s = entry.max_tokens * self._token_s
        if self.prefill.token_s:
            at_most_s += self.prefill.token_s * (
                entry.prompt_tokens + entry.emitted_tokens + entry.output_tokens
            )
        return (
            entry.deadline_s - now_s - at_most_s > wait_s + ROUNDING_S or self.slack_s(entry, now_s) >= wait_s
        )

    def too_late(self, entry: Entry, now_s: float, slack_s: float, wait_s: float = 0.0) -> bool:
        """Whether it cannot be complete in time any more if it begins `wait_s` from now. `slack_s` as told above."""
        if slack_s >= wait_s:
            return False
        token_s = self._fleet.token_s(now_s)  # the last look may be a tick old, and this refuses somebody
        return now_s + wait_s + self.least_s(entry, token_s, now_s) > entry.deadline_s

    def pause_room_s(self, entry: Entry, now_s: float) -> float:
        """How much more time than it needs an answer should have, so that a pause does not kill it; 0 for what cannot
        be paused, and for who was paused before (even before the first token): it gets its end if it can have one."""
        if not entry.preemptible or entry.protected:
            return 0.0
        room_s = PAUSES_GRANTED * self.pauses.room_s(now_s)
        if not room_s:
            return 0.0
        most_s = MOST_OF_PATIENCE * (entry.deadline_s - entry.arrived_s)
        return room_s if room_s < most_s else most_s

    def survivors(self, entries: Iterable[Entry], now_s: float, others_too: bool = False) -> Iterator[Entry]:
        """Those of these running answers that, paused now, would still be complete in time, then perhaps the others."""
        room_s = self.pauses.room_s(now_s) or FIRST_PAUSE_S
        late: list[Entry] = []
        for entry in entries:
            if self.has_slack(entry, now_s, room_s):
                yield entry
            elif others_too:
                late.append(entry)
        yield from late
