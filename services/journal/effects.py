"""What the book wants done: words for the journal's own members, and for its store. Values only.

Rules: a member is opaque; whoever runs effects (authority.py, tests) knows how to reach it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from ..link.journal_messages import LanePart

M = TypeVar("M", bound=Hashable)


class Follow(NamedTuple, Generic[M]):
    """Tell `member` of an answer that another makes or made: its head, then `parts`."""

    member: M
    head: bytes
    parts: tuple[LanePart, ...]


class Own(NamedTuple, Generic[M]):
    """`member` makes the answer from here on."""

    member: M
    epoch: int
    head: bytes


class Have(NamedTuple, Generic[M]):
    """Tell an owner what is kept of each choice."""

    member: M
    counts: tuple[int, ...]


class Tell(NamedTuple, Generic[M]):
    """Tell a member of a state that ends its call: conflict, gone, failed, off, fenced."""

    member: M
    state: str
    reason: str = ""
    message: str = ""


class Deliver(NamedTuple, Generic[M]):
    """New tokens for a follower."""

    member: M
    parts: tuple[LanePart, ...]


class Done(NamedTuple, Generic[M]):
    """The end, for a follower."""

    member: M
    tail: bytes


class Watch(NamedTuple, Generic[M]):
    """Tell an owner how many follow."""

    member: M
    followers: int


class Keep(NamedTuple):
    """For the store: an answer was opened or taken over ("own"), grew ("parts"), ended ("end") or is dropped
    ("drop")."""

    key: bytes
    epoch: int
    what: str
    parts: tuple[LanePart, ...] = ()
    tail: bytes = b""


Effect = Follow[M] | Own[M] | Have[M] | Tell[M] | Deliver[M] | Done[M] | Watch[M] | Keep
