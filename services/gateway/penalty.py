"""Which addresses are not let in for a while. Pure: addresses and times in, verdicts out.

Rules: knows no socket and no protocol. Off while `max_offences` is 0.

1. An offence is a connection that had to be cut, or that ended without a request that had a key. More than
   `max_offences` of one address within `WINDOW_S` shut it out for `FIRST_S`; each further time within `FORGET_S` for
   twice as long, `LONGEST_S` at most.
2. An address that had a request served, with a key, within `TRUST_S` is not shut out, whatever else comes from it: a
   load balancer, or many people behind one address, are not shut out for one of them.
3. What is kept is bounded: `MAX_KNOWN` addresses, those heard of longest ago are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict

WINDOW_S, TRUST_S, FORGET_S = 30.0, 60.0, 600.0
FIRST_S, LONGEST_S = 30.0, 480.0
MAX_KNOWN = 10_000


class _Record:
    """Of one address."""

    __slots__ = ("num_offences", "num_times", "out_until_s", "served_s", "window_s")

    def __init__(self) -> None:
        self.num_offences, self.num_times = 0, 0
        self.out_until_s = self.served_s = self.window_s = float("-inf")


class PenaltyBox:
    """See the module. Times are of any one clock."""

    def __init__(self, max_offences: int) -> None:
        self.max_offences = max_offences
        self._known: OrderedDict[str, _Record] = OrderedDict()

    def _record(self, address: str) -> _Record:
        record = self._known.get(address)
        if record is None:
            record = self._known[address] = _Record()
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(address)
        return record

    def offended(self, address: str, now_s: float) -> bool:
        """One offence more. True: from now on the address is shut out."""
        if not self.max_offences:
            return False
        record = self._record(address)
        if now_s - record.window_s > WINDOW_S:
            record.num_offences, record.window_s = 0, now_s
        record.num_offences += 1
        out = now_s < record.out_until_s
        if out or record.num_offences <= self.max_offences or now_s - record.served_s <= TRUST_S:
            return False
        if now_s - record.out_until_s > FORGET_S:
            record.num_times = 0
        record.out_until_s = now_s + min(FIRST_S * 2**record.num_times, LONGEST_S)
        record.num_times += 1
        record.num_offences, record.window_s = 0, now_s
        return True

    def served(self, address: str, now_s: float) -> None:
        """A request of this address had a key."""
        if self.max_offences:
            record = self._record(address)
            record.served_s, record.out_until_s = now_s, float("-inf")

    def is_out(self, address: str, now_s: float) -> bool:
        """Is the address shut out?"""
        record = self._known.get(address)
        return record is not None and now_s < record.out_until_s

    def all_out(self, now_s: float) -> frozenset[str]:
        """All that are shut out."""
        return frozenset(address for address, record in self._known.items() if now_s < record.out_until_s)
