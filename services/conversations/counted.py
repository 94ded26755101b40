"""A shelf that tells what became of each piece of work, how long it took and how many bytes it kept. Knows no metrics.

Rules: nothing is decided here. Work that is cancelled is nobody's failure, and is not told.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from ..cache.key import CacheKey
from ..errors import RequestError
from .record import Earlier, Turn
from .shelf import Chain, Place, Shelf

Became = Literal["done", "refused", "unavailable", "lost"]
"""refused: the client's to mend; unavailable: the store did not answer; lost: answered, but not kept."""


def _nobody(*told: object) -> None:
    """Who is told, before somebody is."""


class CountedShelf(Shelf):
    """What is to be told of is set before the first call; neither may raise."""

    on_done: Callable[[str, Became, float], None] = staticmethod(_nobody)
    """Operation, what became of it, seconds."""
    on_bytes: Callable[[int], None] = staticmethod(_nobody)
    """So many were kept; negative: deleted."""

    async def reserve(self, tenant: str, person: str, name: str) -> Place:
        with self._told("reserve"):
            return await super().reserve(tenant, person, name)

    async def begin(
        self,
        place: Place,
        items: Sequence[Mapping[str, Any]],
        before: Sequence[Earlier],
        shown: Mapping[str, object],
        life_s: float,
    ) -> Place:
        with self._told("begin"):
            return await super().begin(place, items, before, shown, life_s)

    async def finish(self, place: Place, response: Mapping[str, object]) -> bool:
        with self._told("finish") as ended:
            kept = await super().finish(place, response)
            if not kept:
                ended.append("lost")
            return kept

    async def get(self, tenant: str, response_id: str) -> Turn:
        with self._told("get"):
            return await super().get(tenant, response_id)

    async def chain(self, tenant: str, response_id: str, *, cut: bool) -> Chain:
        with self._told("continue"):
            return await super().chain(tenant, response_id, cut=cut)

    async def delete(self, tenant: str, response_id: str) -> None:
        with self._told("delete"):
            await super().delete(tenant, response_id)

    async def purge(self, tenant: str, person: str = "") -> bool:
        with self._told("purge") as ended:
            confirmed = await super().purge(tenant, person)
            if not confirmed:
                ended.append("unavailable")
            return confirmed

    async def _count(self, key: CacheKey, at_s: float, num_bytes: int) -> None:
        self.on_bytes(num_bytes)
        await super()._count(key, at_s, num_bytes)

    @contextmanager
    def _told(self, operation: str) -> Generator[list[Became]]:
        """Tells when the block ends; it may say how, otherwise it ended well."""
        ended, begun_s = list[Became](), self._clock.now_s()
        try:
            yield ended
        except Exception as error:
            self.on_done(
                operation,
                "refused" if isinstance(error, RequestError) else "unavailable",
                self._clock.now_s() - begun_s,
            )
            raise
        self.on_done(operation, ended[0] if ended else "done", self._clock.now_s() - begun_s)
