"""Ordering policies: who of one lane goes next. One policy, one file; `QueueConfig.ordering` names the file.

Rules: a policy orders waiting entries and learns what was served; it knows no engines or pools and never changes an
entry. A new policy is one module here with a class `Policy` (docs/queue-policies.md shows one of ten lines); the
contract suite and the setting find it by its name.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Protocol

from ...errors import ConfigError
from ..entry import Entry


class Ordering(Protocol):
    """The waiting entries of one lane: those of a band, or (with `level`) aged ones that are treated as of it.

    An entry waits here while `state == WAITING` (and, with a level, has that level); `discard` is told when that
    ended. All methods cost O(log n) amortised or better, except `shed` (rare) and `check_integrity`.
    """

    def add(self, entry: Entry, returning: bool = False) -> None:
        """Wait. `returning`: it left in this very decision and could not be placed."""
        ...

    def peek(self) -> Entry | None:
        """Who goes next; the same until something changes."""
        ...

    def discard(self, entry: Entry) -> None:
        """`entry` waited here and does not any more (its state or level was changed before the call)."""
        ...

    def charge(self, tenant: str, cost: float) -> None:
        """`tenant` received service worth `cost` weighted tokens."""
        ...

    def head_of(self, tenant: str) -> Entry | None:
        """Who goes next of this tenant. None where tenants are not told apart."""
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


METHODS = ("add", "peek", "discard", "charge", "head_of", "counter_of", "shed", "__len__", "check_integrity")


def make_ordering(name: str, level: int | None) -> Ordering:
    """The policy in the module `name` of this package. Raises ConfigError for an unknown one, or one that lacks
    something; an error in its own file comes as it is."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"queue.ordering: {name!r} is no name of an ordering policy")
    module = f"{__name__}.{name}"
    try:
        policy: type[Ordering] | None = getattr(importlib.import_module(module), "Policy", None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        policy = None
    if policy is None:
        raise ConfigError(f"queue.ordering: there is no policy named {name!r}, only {', '.join(names())}")
    missing = [method for method in METHODS if not callable(getattr(policy, method, None))]
    if missing:
        raise ConfigError(f"queue.ordering: {name}.Policy lacks {', '.join(missing)}")
    return policy(level)  # type: ignore[call-arg]  # a Protocol declares no constructor


def names() -> list[str]:
    """The policies that there are: every module here with a class `Policy`."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in found if hasattr(importlib.import_module(f"{__name__}.{name}"), "Policy")]
