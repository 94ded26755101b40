"""LoRA adapters by name and version, and which of them an engine keeps. Pure.

Rules: knows names and counts; no files (adapter_files.py), no engine. A client asks for `base:adapter`; inside the mesh
an adapter is `name@revision`, so that an answer never changes its adapter on the way, and the response cache and the
engine's prefix cache never take one version for another.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Container
from typing import NamedTuple

SEPARATOR = ":"
"""Between the base model's name and the adapter's, in what a client asks for."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AdapterRef(NamedTuple):
    """One version of one adapter; `revision` is the hash of its files."""

    name: str
    revision: str

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"

    @classmethod
    def parse(cls, text: str) -> AdapterRef:
        """Inverse of `str`."""
        name, _, revision = text.partition("@")
        return cls(name, revision)


def is_name(text: str) -> bool:
    """A name that can be a folder's, and nothing but one folder's."""
    return _NAME.fullmatch(text) is not None


def split_model(asked: str, base: str) -> tuple[str, str] | None:
    """What a client asked for as (model, adapter), adapter "" for the base itself; None: another model."""
    if not asked or asked == base:
        return base, ""
    if asked.startswith(base + SEPARATOR) and (name := asked[len(base) + 1 :]):
        return base, name
    return None


class Kept(NamedTuple):
    """What to do for a stream: `fresh` means load it under `number` first; `dropped` are to be unloaded."""

    number: int
    fresh: bool
    dropped: tuple[int, ...]


class Residents:
    """Which adapters an engine holds, least recently used first. Numbers are never used twice.

    Holds `capacity` of them, and more only while all are in use: an adapter that a stream runs with is never dropped.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("an engine that serves adapters keeps at least one")
        self.capacity = capacity
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._last = 0

    def use(self, adapter: str, in_use: Container[str] = ()) -> Kept:
        """A stream wants `adapter`; those of `in_use` may not be dropped for it."""
        number = self._numbers.get(adapter)
        if number is not None:
            self._numbers.move_to_end(adapter)
            return Kept(number, False, ())
        self._last += 1
        excess = len(self._numbers) + 1 - self.capacity
        idle = [name for name in self._numbers if name not in in_use][: max(0, excess)]
        dropped = tuple(self._numbers.pop(name) for name in idle)
        self._numbers[adapter] = self._last
        return Kept(self._last, True, dropped)

    def forget(self, adapter: str) -> None:
        """It could not be loaded."""
        self._numbers.pop(adapter, None)

    @property
    def held(self) -> tuple[str, ...]:
        """Least recently used first."""
        return tuple(self._numbers)
