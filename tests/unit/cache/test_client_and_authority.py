"""The Cache over gateways: hits, flights, promotion, purges, death. Real links on loopback, no sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from services.cache.seat import Following, Hit, Leading
from services.cache.store import Found
from services.config import CacheConfig
from services.errors import RequestError
from services.outcome import Reason
from tests.unit.cache.mesh_of_caches import (
    ANSWER,
    CONFIG,
    KEYS,
    AwaitedStore,
    Mesh,
    Watcher,
    key_of,
    mesh,
    part,
)


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(work)


def test_what_one_gateway_stored_another_finds_and_then_has_itself() -> None:
    async def go() -> None:
        async with mesh() as m:
            key = key_of()
            assert m.gateways[0].lookup_local(key) is None
            seat = await m.lead(0, key)
            assert seat.store(ANSWER, 100.0)
            assert m.gateways[0].lookup_local(key) == ANSWER
            await m.settled(1)
            assert m.gateways[1].lookup_local(key) is None
            found = await m.gateways[1].lookup(key)
            assert isinstance(found, Hit)
            assert found.answer == ANSWER
            assert 0 < found.ttl_s <= 100
            assert m.gateways[1].lookup_local(key) == ANSWER
            m.clock.advance(101)
            assert m.gateways[1].lookup_local(key) is None
            assert isinstance(await m.gateways[1].lookup(key), Leading)
            stats = m.gateways[1].stats()
            assert (stats.remote_hits, stats.local_hits, stats.saved_tokens, stats.saved_s) == (1, 1, 14, 1.0)

    run(go())


def test_a_thousand_identical_misses_are_one_generation() -> None:
    async def go() -> None:
        async with mesh(gateways=4) as m:
            key = key_of()
            asks = [gateway.lookup(key) for gateway in m.gateways for _ in range(250)]
            found = await asyncio.gather(*asks)
            leaders = [each.seat for each in found if isinstance(each, Leading)]
            followers = [each.seat for each in found if isinstance(each, Following)]
            assert (len(leaders), len(followers)) == (1, 999)
            watchers = [Watcher() for _ in followers]
            for seat, watcher in zip(followers, watchers, strict=True):
                seat.attach(watcher)
            parts = [part(number) for number in range(5)]
            for each in parts:
                leaders[0].feed(each)
                await asyncio.sleep(0)
            await m.until(lambda: all(watcher.parts == parts for watcher in watchers))
            for seat in followers:
                seat.leave()
            assert leaders[0].store(ANSWER, 100.0)
            assert sum(gateway.stats().generations for gateway in m.gateways) == 1
            assert m.authority.stats().generations == 1

    run(go())


def test_a_follower_that_comes_late_gets_everything_live() -> None:
    async def go() -> None:
        async with mesh() as m:
            key = key_of()
            leader = await m.lead(0, key)
            leader.feed(part(1))
            leader.feed(part(2))
            _, near = await m.follow(0, key)
            assert near.parts == [part(1), part(2)]
            far_seat, far = await m.follow(1, key)
            await m.until(lambda: len(far.parts) == 2)
            leader.feed(part(3))
            _, later = await m.follow(1, key)
            await m.until(lambda: len(far.parts) == len(later.parts) == len(near.parts) == 3)
            far_seat.leave()
            leader.store(ANSWER, 100.0)
            await m.until(lambda: later.promoted and near.promoted)  # parts without an end: go on, alone
            assert not far.promoted

    run(go())


@pytest.mark.parametrize("death", ["abandon", "gateway"])
def test_the_leaders_death_promotes_a_follower_that_continues(death: str) -> None:
    async def go() -> None:
        async with mesh(gateways=3) as m:
            key = key_of()
            leader = await m.lead(0, key)
            seats = [await m.follow(gateway, key) for gateway in (1, 2)]
            leader.feed(part(1))
            await m.until(lambda: all(len(watcher.parts) == 1 for _, watcher in seats))
            if death == "abandon":
                leader.abandon()
            else:
                await m.gateways[0].stop()
            await m.until(lambda: sum(watcher.promoted for _, watcher in seats) == 1)
            (heir, led), (_, follower) = sorted(seats, key=lambda each: not each[1].promoted)
            heir.feed(part(2))
            await m.until(lambda: follower.parts == [part(1), part(2)])
            assert led.parts == [part(1)]
            assert not follower.promoted
            assert heir.store(ANSWER, 100.0)
            await m.settled(1)

    run(go())


def test_a_local_follower_inherits_the_right_to_store() -> None:
    async def go() -> None:
        async with mesh(gateways=1) as m:
            leader = await m.lead(0, key_of())
            heir, watcher = await m.follow(0, key_of())
            leader.abandon()
            assert watcher.promoted
            assert heir.store(ANSWER, 100.0)
            await m.settled(1)

    run(go())


def test_an_answer_that_ends_before_any_part_comes_whole() -> None:
    async def go() -> None:
        async with mesh() as m:
            leader = await m.lead(0, key_of())
            _, near = await m.follow(0, key_of())
            _, far = await m.follow(1, key_of())
            leader.store(ANSWER, 100.0)
            await m.until(lambda: far.hit is not None)
            assert near.hit == far.hit == ANSWER

    run(go())


def test_a_request_at_fault_fails_for_everybody_once() -> None:
    async def go() -> None:
        async with mesh() as m:
            leader = await m.lead(0, key_of())
            _, near = await m.follow(0, key_of())
            _, far = await m.follow(1, key_of())
            leader.fail(RequestError(Reason.POISON_REQUEST, "two engines died"))
            await m.until(lambda: far.error is not None)
            assert near.error is not None
            assert far.error is not None
            assert near.error.reason == far.error.reason == Reason.POISON_REQUEST
            assert not near.promoted
            assert not far.promoted
            assert isinstance(await m.gateways[1].lookup(key_of()), Leading)

    run(go())


@pytest.mark.parametrize("what", ["tenant", "person", "model"])
def test_a_purge_reaches_every_tier_and_work_under_way(what: str) -> None:
    async def go() -> None:
        async with mesh() as m:
            key, other = key_of(1, person="bob"), key_of(2, tenant="umbrella", model="n")
            for each in (key, other):
                (await m.lead(0, each)).store(ANSWER, 100.0)
            await m.settled(2)
            for each in (key, other):
                assert isinstance(await m.gateways[1].lookup(each), Hit)
            under_way = await m.lead(0, key_of(3, person="bob"))
            scope = {
                "tenant": KEYS.tenant_scope("acme"),
                "person": KEYS.person_scope("acme", "bob"),
                "model": KEYS.model_scope("m"),
            }[what]
            assert await m.authority.purge(scope)
            await m.until(lambda: all(g.lookup_local(key) is None for g in m.gateways))
            assert not under_way.store(ANSWER, 100.0)
            for prompt in (1, 3):
                assert isinstance(await m.gateways[1].lookup(key_of(prompt, person="bob")), Leading)
            assert m.gateways[1].lookup_local(other) == ANSWER
            assert isinstance(await m.gateways[0].lookup(other), Hit)

    run(go())


def test_an_answer_that_passes_a_purge_on_its_way_is_not_resurrected() -> None:
    """Rule 2 of store.py across the link: the store was read before the purge, its answer comes after it."""

    class Slow(AwaitedStore):
        gate: asyncio.Event | None = None

        async def get(self, key):  # type: ignore[no-untyped-def]
            found: Found = await super().get(key)
            if self.gate is not None:
                await self.gate.wait()
            return found

    async def go() -> None:
        store = Slow()
        async with mesh(store=store) as m:
            mine, theirs = key_of(person="bob"), key_of(person="eve")
            (await m.lead(0, mine)).store(ANSWER, 100.0)
            await m.settled(1)
            store.gate = asyncio.Event()
            asked = asyncio.create_task(m.gateways[1].lookup(theirs))
            await m.until(lambda: m.authority.stats().flights == 1)
            await m.authority.purge(KEYS.person_scope("acme", "bob"))
            store.gate.set()
            assert isinstance(await asked, Leading)
            assert m.gateways[1].lookup_local(theirs) is None

    run(go())


def test_without_a_link_nothing_waits_and_nothing_is_served_from_memory() -> None:
    async def go() -> None:
        async with mesh(gateways=1) as m:
            (await m.lead(0, key_of())).store(ANSWER, 100.0)
            await m.settled(1)
            leader = await m.lead(0, key_of(2))
            await m.replace_authority()
            assert m.gateways[0].lookup_local(key_of()) is None
            found = await m.gateways[0].lookup(key_of(3))
            assert isinstance(found, Leading)
            assert found.bypass
            _, watcher = await m.follow(0, key_of(3))  # flights inside a gateway go on without the Cache
            found.seat.feed(part(1))
            assert watcher.parts == [part(1)]
            assert not leader.store(ANSWER, 100.0)  # nobody knows any more that it was not purged meanwhile
            await m.linked()
            assert m.gateways[0].lookup_local(key_of()) is None  # another Cache: what it purged is unknown
            assert isinstance(await m.gateways[0].lookup(key_of()), Hit)
            assert isinstance(await m.gateways[0].lookup(key_of(2)), Leading)

    run(go())


def test_followers_of_another_gateway_go_on_when_the_cache_dies() -> None:
    async def go() -> None:
        async with mesh() as m:
            leader = await m.lead(0, key_of())
            leader.feed(part(1))
            seat, watcher = await m.follow(1, key_of())
            await m.until(lambda: watcher.parts)
            await m.replace_authority()
            await m.until(lambda: watcher.promoted)
            assert not seat.store(ANSWER, 100.0)

    run(go())


def test_a_slow_cache_is_passed_by_and_its_late_answer_still_counts() -> None:
    class Slow(AwaitedStore):
        gate: asyncio.Event

        async def get(self, key):  # type: ignore[no-untyped-def]
            await self.gate.wait()
            return await super().get(key)

    async def go() -> None:
        store = Slow()
        store.gate = asyncio.Event()
        async with mesh(store=store, config=CacheConfig(store_timeout_s=0.001)) as m:
            found = await m.gateways[0].lookup(key_of())
            assert isinstance(found, Leading)
            assert found.bypass
            store.gate.set()
            await m.until(lambda: m.authority.stats().generations == 1)
            await m.until(lambda: m.gateways[0]._by_wire[key_of().wire].state == "leading")  # pyright: ignore
            assert found.seat.store(ANSWER, 100.0)
            await m.settled(1)

    run(go())


def test_the_more_urgent_does_not_wait_behind_a_leader_without_tokens() -> None:
    async def go() -> None:
        async with mesh() as m:
            slow = await m.gateways[0].lookup(key_of(), rank=2)
            vip = await m.gateways[1].lookup(key_of(), rank=0)
            assert isinstance(slow, Leading)
            assert isinstance(vip, Leading)
            slow.seat.feed(part(9))
            assert vip.seat.store(ANSWER, 100.0)
            await m.settled(1)
            slow.seat.store(ANSWER, 50.0)
            await m.until(lambda: m.authority.stats().refused == 1)
            local_slow = await m.gateways[0].lookup(key_of(5), rank=2)
            local_vip = await m.gateways[0].lookup(key_of(5), rank=0)
            assert isinstance(local_slow, Leading)
            assert isinstance(local_vip, Leading)
            assert local_slow.seat.alone
            assert not local_vip.seat.alone

    run(go())


def test_refreshing_asks_anew_and_replaces() -> None:
    async def go() -> None:
        async with mesh() as m:
            (await m.lead(0, key_of())).store(ANSWER, 100.0)
            await m.settled(1)
            found = await m.gateways[1].lookup(key_of(), refresh=True)
            assert isinstance(found, Leading)
            assert not found.bypass
            beside = await m.gateways[0].lookup(key_of(), refresh=True)
            assert isinstance(beside, Leading)  # may not follow an answer that is older than the question
            beside.seat.store(ANSWER, 10.0)
            await m.until(lambda: m.authority.stats().refused == 1)
            assert found.seat.store(ANSWER, 55.0)
            await m.settled(2)
            again = await m.gateways[0].lookup(key_of())
            assert isinstance(again, Hit)

    run(go())


def test_too_large_an_answer_ends_the_flight_and_is_not_kept() -> None:
    async def go() -> None:
        async with mesh(config=CacheConfig(store_timeout_s=5.0, max_value_bytes=10)) as m:
            leader = await m.lead(0, key_of())
            _, far = await m.follow(1, key_of())
            assert not leader.store(ANSWER, 100.0)
            await m.until(lambda: far.promoted)
            assert m.authority.stats().flights == 0
            assert m.gateways[0].lookup_local(key_of()) is None

    run(go())


def test_a_failing_follower_does_not_stop_the_leader() -> None:
    class Broken:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    async def go() -> None:
        async with mesh(gateways=1) as m:
            leader = await m.lead(0, key_of())
            found = await m.gateways[0].lookup(key_of())
            assert isinstance(found, Following)
            found.seat.attach(Broken())  # type: ignore[arg-type]
            leader.feed(part(1))
            assert leader.store(ANSWER, 100.0)

    run(go())


def test_a_cancelled_lookup_leaves_its_flight() -> None:
    class Stuck(AwaitedStore):
        async def get(self, key):  # type: ignore[no-untyped-def]
            await asyncio.get_running_loop().create_future()

    async def go() -> None:
        async with mesh(store=Stuck(), gateways=1, config=CONFIG) as m:
            task = asyncio.create_task(m.gateways[0].lookup(key_of()))
            await m.until(lambda: m.authority.stats().flights)
            task.cancel()
            await m.until(lambda: m.authority.stats().flights == 0)
            assert isinstance(m, Mesh)

    run(go())
