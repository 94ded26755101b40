"""One answer in the book: whose it is, its tokens, who follows. Pure: state without decisions (book.py decides)."""

from __future__ import annotations

from typing import Generic

from ..link.journal_messages import LanePart
from .effects import M
from .lane import Lane

ENTRY_BYTES = 512
"""What an answer without tokens costs in memory, roughly."""


class Entry(Generic[M]):
    """One answer. Without an owner and a tail it is paused; `lost_s` is when the owner's link went down."""

    __slots__ = (
        "epoch", "fingerprint", "followers", "head", "key", "lanes", "lost_s", "num_bytes", "owner", "scopes", "tail",
        "touched_s",
    )  # fmt: skip

    def __init__(
        self, key: bytes, fingerprint: bytes, head: bytes, scopes: tuple[bytes, ...], now_s: float
    ) -> None:
        self.key, self.fingerprint, self.head, self.scopes = key, fingerprint, head, scopes
        self.epoch = 0
        self.owner: M | None = None
        self.lost_s: float | None = None
        self.lanes: dict[int, Lane] = {}
        self.tail: bytes | None = None
        self.followers: dict[M, None] = {}
        self.touched_s = now_s
        self.num_bytes = ENTRY_BYTES + len(head)

    def parts(self) -> tuple[LanePart, ...]:
        """All tokens so far."""
        found = (lane.part(choice) for choice, lane in sorted(self.lanes.items()))
        return tuple(part for part in found if part is not None)

    def counts(self) -> tuple[int, ...]:
        """Tokens so far, per choice."""
        last = max(self.lanes, default=-1)
        return tuple(len(self.lanes[i].ids) if i in self.lanes else 0 for i in range(last + 1))
