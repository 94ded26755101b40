"""Machines as a port: what the pool controller and the drain ask of a cloud.

Contract (tests/contracts/test_nodes.py runs over every adapter):
- reads have no side effects; writes may be repeated safely (a second answer to a hook, a second termination of
  the same instance, the same size again are all fine);
- sizes count nodes; an instance is in exactly one of `starting`, `serving`, `leaving`;
- `NodesError.retryable` tells a throttle or an outage from a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.capacity.notices import Hook, Notice


class NodesError(Exception):
    """The cloud did not do it. `retryable`: the same call may succeed later."""

    def __init__(self, message: str, retryable: bool = False) -> None:
        super().__init__(message, retryable)
        self.message = message
        self.retryable = retryable

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an operator allows a group: sizes, and how many of its nodes are on-demand before any spot."""

    min_size: int
    max_size: int
    on_demand_base: int = 0


@dataclass(frozen=True, slots=True)
class PoolView:
    """One group as it is: desired size and instance ids, oldest first."""

    asg: str
    desired: int
    starting: tuple[str, ...] = ()
    serving: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    bounds: Bounds | None = None


class Nodes(Protocol):
    """Groups of machines."""

    def view(self, asgs: tuple[str, ...]) -> dict[str, PoolView]:
        """The groups by name; one that does not exist is left out. Raises NodesError."""
        ...

    def set_desired(self, asg: str, size: int) -> None:
        """Ask for `size` nodes. Raises NodesError outside the group's bounds."""
        ...

    def answer_hook(self, instance_id: str, hook: Hook) -> None:
        """Let the lifecycle action go on (CONTINUE). A hook that no longer waits is fine."""
        ...

    def terminate(self, instance_id: str) -> None:
        """End the machine and lower its group's size by one. One that is already gone is fine."""
        ...


@dataclass(frozen=True, slots=True)
class Received:
    """A notice and the receipt that makes the source forget it. `notice` None: nothing we act on."""

    notice: Notice | None
    receipt: str


class NoticeQueue(Protocol):
    """The head's way to notices."""

    def receive(self, wait_s: float) -> tuple[Received, ...]:
        """Up to ten notices, waiting at most `wait_s` (0-20). They come again until acknowledged. Raises NodesError."""
        ...

    def acknowledge(self, receipt: str) -> None:
        """Forget it. Raises NodesError."""
        ...
