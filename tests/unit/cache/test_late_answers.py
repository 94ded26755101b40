"""What the Cache says after a look-up stopped waiting for it: nothing is generated twice if it comes before a token."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from services.cache.calls import PATIENCE
from services.cache.key import CacheKey
from services.cache.seat import Following, Leading, Seat
from services.cache.store import Found
from services.config import CacheConfig
from tests.unit.cache.mesh_of_caches import ANSWER, AwaitedStore, Mesh, Watcher, key_of, mesh, part

QUICK = CacheConfig(store_timeout_s=0.001)


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(work)


class Gated(AwaitedStore):
    """A store whose look-ups wait for `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def get(self, key: CacheKey) -> Found:
        await self.gate.wait()
        return await super().get(key)


async def late_leader(m: Mesh, gateway: int, number: int = 1) -> tuple[Seat, Watcher]:
    """A request that stopped waiting and generates."""
    found = await m.gateways[gateway].lookup(key_of(number))
    assert isinstance(found, Leading)
    assert found.bypass
    watcher = Watcher()
    found.seat.attach(watcher)
    return found.seat, watcher


def hold(m: Mesh, *gateways: int) -> list[tuple[object, object]]:
    """What the Cache says to these gateways stays on the way, in order."""
    held: list[tuple[object, object]] = []
    for number in gateways:
        client = m.gateways[number]
        link = client._link  # pyright: ignore[reportPrivateUsage]

        def keep(_: object, message: object, client: object = client) -> None:
            held.append((client, message))

        assert link is not None
        client.link_message = keep  # type: ignore[method-assign]
    return held


def let_go(m: Mesh, held: list[tuple[object, object]]) -> None:
    for client in m.gateways:
        client.__dict__.pop("link_message", None)
    for client, message in held:
        client.link_message(None, message)  # type: ignore[attr-defined]


def test_two_gateways_that_both_stopped_waiting_still_generate_once() -> None:
    """The race behind "2 generations": the answers "lead" and "follow" came after both bounds had passed."""

    async def go() -> None:
        async with mesh(gateways=2, config=QUICK) as m:
            held = hold(m, 0, 1)
            one, first = await late_leader(m, 0)
            two, second = await late_leader(m, 1)
            await m.until(lambda: len(held) >= 2)
            let_go(m, held)
            assert (first.yielded, second.yielded) == (False, True), "whoever came second follows"
            one.feed(part(1))
            await m.until(lambda: second.parts == [part(1)])
            assert one.store(ANSWER, 100.0)
            await m.settled(1)
            two.leave()
            assert sum(gateway.stats().yielded for gateway in m.gateways) == 1

    run(go())


def test_who_has_a_token_already_does_not_yield() -> None:
    async def go() -> None:
        async with mesh(gateways=2, config=QUICK) as m:
            held = hold(m, 0, 1)
            _, first = await late_leader(m, 0)
            two, second = await late_leader(m, 1)
            two.feed(part(7))
            await m.until(lambda: len(held) >= 2)
            let_go(m, held)
            assert not first.yielded
            assert not second.yielded
            assert not two.store(ANSWER, 100.0), "the other one has the right to store"

    run(go())


def test_the_leader_dies_after_a_late_gateway_yielded_to_it() -> None:
    async def go() -> None:
        async with mesh(gateways=2, config=QUICK) as m:
            held = hold(m, 0, 1)
            one, _ = await late_leader(m, 0)
            two, second = await late_leader(m, 1)
            await m.until(lambda: len(held) >= 2)
            let_go(m, held)
            one.feed(part(1))
            await m.until(lambda: second.parts)
            one.leave()
            await m.until(lambda: second.promoted)
            two.feed(part(2))
            assert two.store(ANSWER, 100.0), "it inherits the right to store"

    run(go())


def test_requests_that_follow_a_late_leader_here_follow_the_other_gateway_with_it() -> None:
    async def go() -> None:
        async with mesh(gateways=2, config=QUICK) as m:
            held = hold(m, 0, 1)
            one, _ = await late_leader(m, 0)
            _, second = await late_leader(m, 1)
            beside = await m.gateways[1].lookup(key_of())
            assert isinstance(beside, Following)
            third = Watcher()
            beside.seat.attach(third)
            await m.until(lambda: len(held) >= 2)
            let_go(m, held)
            one.feed(part(1))
            await m.until(lambda: second.parts == third.parts == [part(1)])

    run(go())


@pytest.mark.parametrize("fed", [False, True])
def test_a_kept_answer_that_comes_late_still_serves_before_the_first_token(fed: bool) -> None:
    async def go() -> None:
        async with mesh(gateways=2, config=QUICK) as m:
            while True:  # on a busy host a bound of 1 ms may pass here too; then it is asked again
                found = await m.gateways[0].lookup(key_of())
                if isinstance(found, Leading) and not found.bypass:
                    break
                found.seat.leave()  # type: ignore[union-attr]
                await asyncio.sleep(0)
            assert found.seat.store(ANSWER, 100.0)
            await m.settled(1)
            held = hold(m, 1)
            seat, watcher = await late_leader(m, 1)
            if fed:
                seat.feed(part(1))
            await m.until(lambda: held)
            let_go(m, held)
            assert watcher.hit == (None if fed else ANSWER)
            assert m.gateways[1].lookup_local(key_of()) == ANSWER

    run(go())


def test_a_cache_that_says_nothing_is_soon_not_waited_for_until_it_answers_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.cache.client.SILENT_S", 0.0)

    async def go() -> None:
        store = Gated()
        async with mesh(gateways=1, store=store, config=QUICK) as m:
            client = m.gateways[0]
            for number in range(PATIENCE):
                assert not client._asks_again_s  # pyright: ignore[reportPrivateUsage]
                await late_leader(m, 0, number)
            assert client._asks_again_s  # pyright: ignore[reportPrivateUsage]
            client._asks_again_s = float("inf")  # pyright: ignore[reportPrivateUsage]
            asked = client.lookup(key_of(100))
            with pytest.raises(StopIteration) as done:  # not one turn of the loop is waited
                asked.send(None)
            assert isinstance(done.value.value, Leading)
            assert done.value.value.bypass
            client._asks_again_s = 0.0  # pyright: ignore[reportPrivateUsage]
            await late_leader(m, 0, 102)  # the pause is over: one waits again
            client._config = CacheConfig(store_timeout_s=5.0)  # pyright: ignore[reportPrivateUsage]
            store.gate.set()
            await m.until(lambda: client._in_vain == 0)  # pyright: ignore[reportPrivateUsage]
            found = await client.lookup(key_of(101))
            assert isinstance(found, Leading)
            assert not found.bypass

    run(go())


def test_a_time_in_which_it_was_not_asked_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.cache.client.SILENT_S", 3600.0)

    async def go() -> None:
        async with mesh(gateways=1, store=Gated(), config=QUICK) as m:
            client = m.gateways[0]
            client._heard_s = float("-inf")  # pyright: ignore[reportPrivateUsage]
            for number in range(2 * PATIENCE):
                await late_leader(m, 0, number)
            assert not client._asks_again_s  # pyright: ignore[reportPrivateUsage]

    run(go())
