"""The journal's writer behind a store that fails: nobody waits for ever, and no answer is half kept."""

from __future__ import annotations

import asyncio

import pytest

from services.cache.key import CacheKey
from services.journal import writer as writer_module
from services.journal.memory_store import MemoryJournalStore
from services.journal.writer import Writer

ONE, TWO = CacheKey(b"1" * 48), CacheKey(b"2" * 48)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_store_that_fails_leaves_nothing_in_half(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(writer_module, "RETRY_S", 0.0)
        store, told, usurped = MemoryJournalStore(), list[str](), list[bytes]()
        writer = Writer(store, usurped.append)
        writer.keep(ONE, 1, b"own", 9.0, lambda: told.append("own"))
        await turns()
        assert told == ["own"]
        store.out = True
        writer.keep(ONE, 1, b"lost", 9.0, lambda: told.append("lost"))
        await turns()
        writer.keep(ONE, 1, b"behind it", 9.0, lambda: told.append("behind"))
        await turns()
        assert told == ["own", "lost", "behind"]
        assert writer.num_failures == 1
        store.out = False
        await asyncio.sleep(0.01)
        assert await store.load(ONE) == []  # dropped: it lacks a record in the middle
        writer.keep(TWO, 1, b"own", 9.0)
        writer.keep(ONE, 2, b"own again", 9.0)
        await turns()
        assert [kept.record for kept in await store.load(ONE)] == [b"own again"]
        assert len(await store.load(TWO)) == 1
        assert usurped == []
        await writer.close()

    asyncio.run(main())


def test_a_later_owner_elsewhere_is_noticed() -> None:
    async def main() -> None:
        store, usurped = MemoryJournalStore(), list[bytes]()
        first, second = Writer(store, usurped.append), Writer(store, lambda _: None)
        first.keep(ONE, 1, b"own", 9.0)
        await turns()
        second.loaded(ONE, (1, 1))
        second.keep(ONE, 2, b"taken over", 9.0)
        await turns()
        first.keep(ONE, 1, b"late", 9.0)
        await turns()
        assert usurped == [ONE.wire]
        assert [kept.record for kept in await store.load(ONE)] == [b"own", b"taken over"]
        await first.close()
        await second.close()

    asyncio.run(main())
