"""Which revision a session gets. A pure function of the weights and of the session's name, the same in the queue and
in every gateway, so that a session sticks without anybody keeping a table of sessions.

Rules: knows names and numbers; no engines, no time.

A session has a place in [0, 1), by hash; revisions lie on that line one after another, the newest first. While the
newest one's share grows, sessions change once, from an old one to it, and never back; when it is taken back, they
return to where they were. Requests without a session are sessions of their own.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec


class Table(msgspec.Struct, frozen=True):
    """Shares by revision, newest first; they add up to 1 (or there are none). `salt` names the release: another one
    takes other sessions first."""

    shares: tuple[tuple[str, float], ...] = ()
    salt: str = ""

    def share(self, revision: str) -> float:
        """Of all sessions; 0 for a revision that gets none."""
        return next((share for name, share in self.shares if name == revision), 0.0)

    @property
    def revisions(self) -> tuple[str, ...]:
        """Those that get sessions."""
        return tuple(name for name, share in self.shares if share > 0.0)


def place(session: str, salt: str) -> float:
    """Where a session lies in [0, 1)."""
    digest = blake2b(session.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


def choose(table: Table, session: str) -> str:
    """The session's revision; "" when the table is empty: any."""
    shares = table.shares
    if not shares:
        return ""
    if len(shares) == 1:
        return shares[0][0]
    here, end = place(session, table.salt), 0.0
    for name, share in shares:
        end += share
        if here < end:
            return name
    return next(
        name for name, share in reversed(shares) if share > 0.0
    )  # the sum of shares fell short by rounding


def normal(shares: list[tuple[str, float]], salt: str = "") -> Table:
    """A table whose shares add up to 1. No revision gets anything when all have nothing."""
    total = sum(share for _, share in shares)
    if total <= 0.0:
        return Table((), salt)
    return Table(tuple((name, share / total) for name, share in shares), salt)
