"""Authority, client and a rank with the simulated engine over real loopback links, in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from services.config import QueueConfig
from services.errors import ConfigError
from services.experts.rank import Rank
from services.experts.sim_engine import SimEngine
from services.link.messages import Acquire, Grant, Refuse, Release
from services.queue.authority import QueueAuthority
from services.queue.client import QueueClient
from services.queue.limits import ChangeLimits
from tests.unit.queue.making import asking


class Waiter:
    """Records what happens to a ticket."""

    def __init__(self) -> None:
        self.grants: list[Grant] = []
        self.refusals: list[Refuse] = []
        self.preempted: list[int] = []

    def on_grant(self, grant: Grant) -> None:
        self.grants.append(grant)

    def on_refuse(self, refuse: Refuse) -> None:
        self.refusals.append(refuse)

    def on_preempt(self, lease_id: int) -> None:
        self.preempted.append(lease_id)


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until `condition` holds."""
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0.002)


def wish(ticket: int, band: str = "standard", **more: object) -> Acquire:
    """For the simulated engine's model."""
    return asking(ticket, band, model="sim", prompt_tokens=8, max_tokens=8, **more)


class Stage:
    """One queue (which may be replaced), one rank, one client."""

    def __init__(self, config: QueueConfig | None = None) -> None:
        self.config = config or QueueConfig(restart_grace_s=0.05)
        self.fences: list[tuple[str, int]] = []
        self.authority: QueueAuthority | None = None

    async def __aenter__(self) -> Stage:
        await self.begin()
        self.rank = Rank(SimEngine(), engine_id="e0", resolve_queue=self.resolve)
        await self.rank.start()
        self.client = QueueClient(self.resolve, "g", on_fence=lambda e, n: self.fences.append((e, n)))
        self.client.start()
        await until(lambda: self.client.connected and self.rank.epoch > 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.stop()
        await self.rank.stop()
        self.kill()

    async def begin(self) -> None:
        self.authority = QueueAuthority(self.config)
        await self.authority.start()

    def kill(self) -> None:
        if self.authority is not None:
            self.authority.close()
            self.authority = None

    async def resolve(self) -> tuple[str, bytes]:
        if self.authority is None:
            raise OSError("no queue")
        return self.authority.address, self.authority.key


def staged(test: Callable[[Stage], Awaitable[None]], config: QueueConfig | None = None) -> None:
    async def body() -> None:
        async with Stage(config) as stage:
            await test(stage)

    asyncio.run(body())


def test_a_grant_names_the_rank_and_its_key() -> None:
    async def body(stage: Stage) -> None:
        waiter = Waiter()
        stage.client.acquire(wish(1), waiter)
        await until(lambda: bool(waiter.grants))
        grant = waiter.grants[0]
        assert (grant.engine_id, grant.address, grant.key) == ("e0", stage.rank.address, stage.rank.key)
        assert grant.epoch == stage.rank.epoch
        stage.client.release(Release(1, grant.lease_id, 8, 8, "completed"))
        await until(
            lambda: stage.authority is not None and stage.authority.snapshot()[0].bands[1].completed == 1
        )

    staged(body)


def test_an_unknown_band_is_refused_with_a_reason() -> None:
    async def body(stage: Stage) -> None:
        waiter = Waiter()
        stage.client.acquire(wish(1, band="royal"), waiter)
        await until(lambda: bool(waiter.refusals))
        assert waiter.refusals[0].reason == "invalid_field"
        assert stage.client.num_waiting == 0

    staged(body)


def test_after_a_crash_of_the_queue_holdings_stay_and_waiting_goes_on() -> None:
    async def body(stage: Stage) -> None:
        holders = [Waiter() for _ in range(300)]
        for ticket, waiter in enumerate(holders, 1):
            stage.client.acquire(wish(ticket), waiter)
        await until(lambda: sum(len(w.grants) for w in holders) >= 8)
        before = {t: w.grants[0] for t, w in enumerate(holders, 1) if w.grants}
        stage.kill()
        await until(lambda: not stage.client.connected)
        late = Waiter()
        stage.client.acquire(wish(1000), late)  # asked while there is no queue
        await stage.begin()
        await until(lambda: stage.client.connected and stage.authority is not None)
        await until(lambda: bool(stage.authority and stage.authority.snapshot()))
        for ticket, grant in before.items():
            stage.client.release(Release(ticket, grant.lease_id, 8, 8, "completed"))

        def give_back() -> bool:
            for ticket, waiter in enumerate(holders, 1):
                if waiter.grants and ticket not in before:
                    before[ticket] = waiter.grants[0]
                    stage.client.release(Release(ticket, waiter.grants[0].lease_id, 8, 8, "completed"))
            return len(before) == len(holders) and bool(late.grants)

        await until(give_back)
        assert all(len(w.grants) == 1 and not w.refusals for w in holders), "lost or doubled"
        lease_ids = [w.grants[0].lease_id for w in holders]
        assert len(set(lease_ids)) == len(lease_ids)
        assert not stage.fences

    staged(body)


def test_a_dead_engine_is_fenced_for_every_gateway() -> None:
    async def body(stage: Stage) -> None:
        waiter = Waiter()
        stage.client.acquire(wish(1), waiter)
        await until(lambda: bool(waiter.grants))
        epoch = stage.rank.epoch
        await stage.rank.stop()
        await until(lambda: stage.fences == [("e0", epoch)])

    staged(body, QueueConfig(restart_grace_s=0.05, engine_silent_s=0.2))


def test_without_a_queue_deadlines_are_kept_by_the_client() -> None:
    async def body(stage: Stage) -> None:
        stage.kill()
        await until(lambda: not stage.client.connected)
        waiter = Waiter()
        stage.client.acquire(wish(1, remaining_s=0.01), waiter)
        await until(lambda: bool(waiter.refusals))
        assert waiter.refusals[0].reason == "deadline_exceeded"

    staged(body)


def test_changed_limits_outlive_the_queue() -> None:
    async def body(stage: Stage) -> None:
        assert stage.authority is not None
        stage.authority.operate(ChangeLimits({"max_tenant_queued": 7}))
        with pytest.raises(ConfigError, match="max_queued"):
            stage.authority.operate(ChangeLimits({"max_queued": -1}))
        await until(lambda: stage.client._limits is not None)
        for _ in range(2):  # also a queue after the next
            stage.kill()
            await until(lambda: not stage.client.connected)
            await stage.begin()
            await until(lambda: stage.authority is not None and stage.authority.config.max_tenant_queued == 7)
            assert stage.authority.operate(ChangeLimits())["changed"] == {"max_tenant_queued": 7}
        assert stage.authority.operate(ChangeLimits(reset=True))["changed"] == {}
        assert stage.authority.config == stage.config

    staged(body)


def test_limits_change_without_a_restart() -> None:
    async def body(stage: Stage) -> None:
        assert stage.authority is not None
        shown = stage.authority.operate(ChangeLimits({"bands": {"batch": {"max_queued": 1}}}))
        assert shown["changed"] == {"bands": {"batch": {"max_queued": 1}}}
        waiters = [Waiter() for _ in range(64)]
        for ticket, waiter in enumerate(waiters, 1):
            stage.client.acquire(wish(ticket, band="batch"), waiter)
        await until(lambda: any(w.refusals for w in waiters))
        assert {r.reason for w in waiters for r in w.refusals} == {"queue_full"}

    staged(body)


def test_without_a_queue_a_lease_that_came_back_goes_to_the_next() -> None:
    async def body(stage: Stage) -> None:
        first, second, third = Waiter(), Waiter(), Waiter()
        stage.client.acquire(wish(1), first)
        await until(lambda: bool(first.grants))
        stage.kill()
        await until(lambda: not stage.client.connected)
        stage.client.acquire(wish(2), second)
        await until(lambda: stage.client._hand_on.open(time.monotonic()))
        assert not second.grants
        stage.client.release(Release(1, first.grants[0].lease_id, 8, 8, "completed"))
        await until(lambda: bool(second.grants))
        assert second.grants[0].lease_id == first.grants[0].lease_id
        assert second.grants[0].ticket == 2
        await stage.begin()  # the next queue is told, and counts it
        await until(lambda: stage.client.connected)
        await until(lambda: stage.authority is not None and stage.authority.snapshot() != ())
        stage.client.acquire(wish(3), third)
        await until(lambda: bool(third.grants))
        assert third.grants[0].lease_id != second.grants[0].lease_id
        stage.client.release(Release(2, second.grants[0].lease_id, 8, 8, "completed"))
        await until(
            lambda: stage.authority is not None and stage.authority.snapshot()[0].bands[1].completed == 1
        )

    staged(body)


def test_a_queue_that_was_dying_when_it_was_dialled_is_dialled_there_again() -> None:
    async def body(stage: Stage) -> None:
        dialled = 0

        def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal dialled
            dialled += 1
            writer.transport.abort()

        assert stage.authority is not None
        host, port = stage.authority.address.rsplit(":", 1)
        stage.kill()
        dying = await asyncio.start_server(hang_up, host, int(port))
        await until(lambda: dialled > 0)
        assert not stage.client._hand_on.open(time.monotonic())
        dying.close()
        await until(lambda: stage.client._hand_on.open(time.monotonic()))

    staged(body)
