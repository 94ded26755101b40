"""Which engine's prefix cache probably holds the beginning of a prompt, learnt from what was sent where.

Rules: hashes and engine bits; a guess, never a promise. The hashes are cumulative (block i's hash covers blocks
0..i), so the longest match is found from the end, and one table serves all engines: hash → set of engines as bits.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import repeat
from operator import and_


class PrefixIndex:
    """Least recently used hashes are forgotten; `capacity` follows the engines' own KV blocks."""

    def __init__(self, capacity: int = 4096) -> None:
        self.capacity = capacity
        self._holders: OrderedDict[int, int] = OrderedDict()  # a dict would scan its deleted front

    def matched_blocks(self, prefix: tuple[int, ...], bits: int) -> dict[int, int]:
        """Engine bit → number of leading blocks it probably holds, for the engines in `bits`."""
        found: dict[int, int] = {}
        holders = self._holders
        for i in range(len(prefix) - 1, -1, -1):
            mask = holders.get(prefix[i], 0) & bits
            while mask:
                bit = mask & -mask
                found[bit] = i + 1
                mask ^= bit
                bits ^= bit
            if not bits:
                break
        return found

    def learn(self, prefix: tuple[int, ...], bit: int) -> None:
        """A prompt with this prefix went to the engine `bit`."""
        holders = self._holders
        if not all(map(and_, map(holders.get, prefix, repeat(0)), repeat(bit))):
            for value in prefix:
                holders[value] = holders.get(value, 0) | bit
        any(map(holders.move_to_end, prefix))  # all of them: it returns None
        while len(holders) > self.capacity:
            holders.popitem(last=False)

    def forget(self, bit: int) -> None:
        """An engine is gone, its cache with it. O(capacity), rare."""
        for value in [value for value, mask in self._holders.items() if mask & bit]:
            mask = self._holders[value] & ~bit
            if mask:
                self._holders[value] = mask
            else:
                del self._holders[value]

    def __len__(self) -> int:
        return len(self._holders)
