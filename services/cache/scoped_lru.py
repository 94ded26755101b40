"""A bounded map with lives and scopes: what both in-process tiers are made of. Pure: times come in.

Rules: least recently used entries go first when `max_bytes` is passed; an entry is gone when its time is up;
`purge` touches only what it drops (an index by scope), so that forgetting one person among 100,000 entries
does not stop the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")

OVERHEAD_BYTES = 400
"""An entry's keys, index and objects, roughly; so that a million tiny answers are not free."""


class Entry(Generic[V]):
    """One value, when it ends, and whose it is."""

    __slots__ = ("expires_s", "person", "scopes", "size", "value")

    def __init__(
        self, value: V, size: int, expires_s: float, person: bytes, scopes: tuple[bytes, ...]
    ) -> None:
        self.value = value
        self.size = size
        self.expires_s = expires_s
        self.person = person
        self.scopes = scopes


class ScopedLru(Generic[V]):
    """See the module."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[bytes, Entry[V]] = OrderedDict()
        self._by_scope: dict[bytes, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, wire: bytes, now_s: float) -> Entry[V] | None:
        """The live entry under `wire`, which becomes the most recently used one. Under a µs."""
        entry = self._entries.get(wire)
        if entry is None:
            return None
        if entry.expires_s <= now_s:
            self.drop(wire)
            return None
        self._entries.move_to_end(wire)
        return entry

    def put(
        self, wire: bytes, value: V, size: int, expires_s: float, person: bytes, scopes: tuple[bytes, ...]
    ) -> bool:
        """Keep `value`, of `size` bytes, until `expires_s`. False when it is larger than everything
        allowed."""
        size += OVERHEAD_BYTES
        if size > self.max_bytes:
            return False
        self.drop(wire)
        self._entries[wire] = Entry(value, size, expires_s, person, scopes)
        self.num_bytes += size
        for scope in scopes:
            self._by_scope.setdefault(scope, set()).add(wire)
        while self.num_bytes > self.max_bytes:
            self.drop(next(iter(self._entries)))
        return True

    def drop(self, wire: bytes) -> None:
        """Forget one entry, if it is there."""
        entry = self._entries.pop(wire, None)
        if entry is None:
            return
        self.num_bytes -= entry.size
        for scope in entry.scopes:
            wires = self._by_scope[scope]
            wires.discard(wire)
            if not wires:
                del self._by_scope[scope]

    def purge(self, scope: bytes) -> int:
        """Forget everything under `scope`. Returns how many entries went."""
        wires = list(self._by_scope.get(scope, ()))
        for wire in wires:
            self.drop(wire)
        return len(wires)

    def held(self, scope: bytes) -> int:
        """Entries under `scope`."""
        return len(self._by_scope.get(scope, ()))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._by_scope.clear()
        self.num_bytes = 0

    def check_integrity(self) -> None:
        """Raises AssertionError when the byte count or the index does not match the entries."""
        assert self.num_bytes == sum(entry.size for entry in self._entries.values()) <= self.max_bytes
        indexed = {(scope, wire) for scope, wires in self._by_scope.items() for wire in wires}
        assert indexed == {(scope, wire) for wire, entry in self._entries.items() for scope in entry.scopes}
