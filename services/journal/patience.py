"""How long a journal that has just begun leaves open what a key means that it does not know. Pure: times in, times out.

Rules: no link, no store, no clock. A journal that was killed has lost what its store had not; the owners of answers
tell the next one what they hold, each when its gateway's link is up again, in any order with those who only ask.

Invariants (tests/properties/journal/test_restart.py):

1. An owner that speaks up is heard at once.
2. A request that may be new waits `restart_grace_s` from the journal's start: long enough for links that broke with
   the old one and found the new one at their first attempt, short enough for whoever has seen nothing yet.
3. Who asks for the rest of an answer, or followed it until now, knows that there was one, and is not told that nothing
   is kept of it before the slowest link can be back (`return_grace_s`: a gateway dials at least once a second).
4. Later than that nobody waits.
"""

from __future__ import annotations

from ..config import JournalConfig
from ..link.journal_messages import JournalOpen


class Patience:
    """Of one life of the journal, which began at `began_s`."""

    def __init__(self, config: JournalConfig, began_s: float) -> None:
        self._new_s = began_s + config.restart_grace_s
        self._known_s = began_s + max(config.restart_grace_s, config.return_grace_s)

    def until_s(self, asked: JournalOpen) -> float:
        """Until then somebody else may still tell of this key; in the past when nobody will."""
        if asked.epoch:
            return float("-inf")
        return self._known_s if asked.resume or asked.follows else self._new_s
