"""Which LoRA adapters this gateway knows, as the model store has them now. They come and go while everything runs.

Rules: a shell over experts/adapter_files.py; remembers what it read as long as the files stay as they were. Files are
read in a thread, looked at once a second at most. Decides nothing about requests but whether an adapter is there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from ..clock import Clock
from ..errors import RequestError
from ..experts import adapter_files
from ..experts.adapter_files import Adapter, Base
from ..outcome import Reason

LOOK_EVERY_S = 1.0
MAX_REMEMBERED = 4096
"""Names that were asked for, missing ones too; a client may ask for any."""


class _Seen(NamedTuple):
    at_s: float
    stamp: tuple[int, ...]
    adapter: Adapter | None
    error: str
    tenants: frozenset[str] | None


class AdapterShelf:
    """One per gateway and model."""

    def __init__(self, folder: str, base: Base, clock: Clock) -> None:
        self._folder = Path(folder)
        self._base, self._clock = base, clock
        self._seen: dict[str, _Seen] = {}

    async def find(self, name: str, tenant: str) -> Adapter:
        """The adapter, checked. Raises RequestError (MODEL_NOT_FOUND) that says why it cannot be served; that it is
        another tenant's is not told."""
        now_s = self._clock.now_s()
        seen = self._seen.get(name)
        if seen is None or now_s - seen.at_s >= LOOK_EVERY_S:
            seen = await asyncio.to_thread(self._look, self._folder, name, seen, now_s)
            if name not in self._seen and len(self._seen) >= MAX_REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._seen[name] = seen
        if seen.tenants is not None and tenant not in seen.tenants:
            raise adapter_files.missing(name)
        if seen.adapter is None:
            raise RequestError(Reason.MODEL_NOT_FOUND, seen.error, param="model")
        return seen.adapter

    async def names_for(self, tenant: str) -> tuple[str, ...]:
        """What can be served to that tenant, sorted."""
        sound: list[str] = []
        for name in await asyncio.to_thread(adapter_files.names, self._folder):
            try:
                await self.find(name, tenant)
                sound.append(name)
            except RequestError:  # whoever asks for it is told what is wrong with it
                continue
        return tuple(sound)

    def _look(self, folder: Path, name: str, seen: _Seen | None, now_s: float) -> _Seen:
        try:
            stamp = adapter_files.stamp(folder / name) if adapter_files.is_name(name) else ()
        except OSError:
            stamp = ()
        if seen is not None and stamp and stamp == seen.stamp:
            return seen._replace(at_s=now_s)
        tenants = adapter_files.tenants_of(folder / name) if stamp else None
        try:
            return _Seen(now_s, stamp, adapter_files.find(folder, name, self._base), "", tenants)
        except RequestError as error:
            return _Seen(now_s, stamp, None, error.message, tenants)
