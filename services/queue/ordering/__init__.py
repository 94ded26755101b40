"""Ordering policies: who of one lane goes next. One policy, one file; `QueueConfig.ordering` names the file.

Rules: a policy orders waiting entries and learns what was served; it knows no engines, pools or bands, and never
changes an entry except its `lane`. A new policy is one module here with a class `Policy`, one row in
tests/contracts/test_ordering.py, one line of configuration.
"""

from __future__ import annotations

import importlib
import re
from typing import Protocol

from ...errors import ConfigError
from ..entry import Entry


class Ordering(Protocol):
    """The waiting entries of one lane.

    An entry waits here while `state == WAITING` and `lane == lane_id`; `discard` is told when that ended otherwise
    than by `take`. All methods cost O(log n) amortised or better, except `shed` (rare) and `check_integrity`.
    """

    lane_id: int

    def add(self, entry: Entry, returning: bool = False) -> None:
        """Wait. Sets `entry.lane`. `returning`: it was taken in this decision and could not be placed."""
        ...

    def peek(self) -> Entry | None:
        """Who goes next; the same until something changes."""
        ...

    def take(self, entry: Entry) -> None:
        """Remove the entry that `peek` or `head_of` returned last."""
        ...

    def discard(self, entry: Entry) -> None:
        """`entry` waited here and does not any more (its state or lane was changed before the call)."""
        ...

    def charge(self, tenant: str, cost: float) -> None:
        """`tenant` received service worth `cost` weighted tokens."""
        ...

    def head_of(self, tenant: str) -> Entry | None:
        """Who goes next of this tenant; `take` may follow. None where tenants are not told apart."""
        ...

    def counter_of(self, tenant: str) -> float:
        """Weighted service on the tenant's account (0 where there are no accounts)."""
        ...

    def shed(self) -> Entry | None:
        """Who leaves when there is too much: an unprotected entry that would have gone late, still waiting here."""
        ...

    def __len__(self) -> int:
        """Entries that wait here."""
        ...

    def check_integrity(self) -> None:
        """Raise AssertionError when counts and contents disagree. O(n)."""
        ...


def make_ordering(name: str, lane_id: int) -> Ordering:
    """The policy in the module `name` of this package. Raises ConfigError for an unknown one."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"queue.ordering: {name!r} is no name of an ordering policy")
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"queue.ordering: there is no policy named {name!r}") from error
    policy: type[Ordering] = module.Policy
    return policy(lane_id)  # type: ignore[call-arg]  # a Protocol declares no constructor
