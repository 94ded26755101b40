"""What the response cache costs and saves: hits, misses, faults, isolation. `make bench-cache` runs it.

Everything that the issue asks a figure for, between two processes (a gateway's client here, the Cache authority
beside) and a real Valkey on loopback. Rounds alternate; medians over rounds are reported with the worst round.
`--out FOLDER` writes a dated result file.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import signal
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import uvloop

from load_tests.bench.bench_cache_http import through_http
from load_tests.bench.cache_rig import ANSWER, KEYS, MODEL, REQUEST, SAMPLING, Rig, config, key_of
from services.cache.question import question_of
from services.cache.redis_store import RedisStore
from services.cache.redis_wire import Command, open_wire
from services.cache.seat import Hit, Leading
from services.cache.value import CachedAnswer
from services.errors import MeshError
from services.link.messages import CachePurge, FeedPart
from services.request import InferenceRequest, pack_ids

Row = tuple[str, str, str]


def quantile(values: list[float], q: float) -> float:
    """The q-quantile of `values`, by rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


async def times_us(num: int, ask: Callable[[int], Awaitable[object]]) -> list[float]:
    """How long each of `num` calls took, one after another."""
    taken: list[float] = []
    for number in range(num):
        begin = time.perf_counter()
        await ask(number)
        taken.append((time.perf_counter() - begin) * 1e6)
    return taken


async def fill(rig: Rig, num: int, tenant: str = "acme", person: str = "") -> None:
    """Have `num` answers kept, however slow this host is at the moment."""
    # Not by what this process remembers: a store that was late has not taken the answer.
    async with rig.client(store_timeout_s=5.0, local_bytes=0) as client:
        for number in range(num):
            while not isinstance(found := await client.lookup(key_of(number, tenant, person)), Hit):
                found.seat.store(ANSWER, 3600.0)
                await asyncio.sleep(0.001)


def spread(rounds: list[list[float]]) -> str:
    """p50 and p99 over rounds: median of rounds (worst round)."""
    p50 = [quantile(each, 0.5) for each in rounds]
    p99 = [quantile(each, 0.99) for each in rounds]
    return (
        f"p50 {statistics.median(p50):.0f} µs (worst round {max(p50):.0f}) · "
        f"p99 {statistics.median(p99):.0f} µs (worst round {max(p99):.0f})"
    )


async def hits_and_misses(rig: Rig, rounds: int, num: int) -> list[Row]:
    """Exact hits through the authority and Valkey, local hits, and what a miss pays."""
    exact: list[list[float]] = []
    store_only: list[list[float]] = []
    local: list[list[float]] = []
    miss: list[list[float]] = []
    unanswered = {"given up by the gateway": 0, "by the Cache": 0, "behind another": 0}
    async with rig.client(local_bytes=0) as far, rig.client() as near:
        await fill(rig, 200)
        store = RedisStore(rig.valkey.url, KEYS.seal_root)
        await store.start()
        for number in range(200):
            while not isinstance(warm := await near.lookup(key_of(number)), Hit):
                warm.seat.leave()  # or `far` would follow it for ever after
        base = random.randrange(1 << 24, 1 << 30)

        async def hit(number: int) -> None:
            found = await far.lookup(key_of(number % 200))
            if isinstance(found, Leading):
                unanswered["given up by the gateway" if found.bypass else "by the Cache"] += 1
                found.seat.leave()
            elif not isinstance(found, Hit):
                unanswered["behind another"] += 1
                found.seat.leave()

        async def lead(number: int) -> None:
            found = await far.lookup(key_of(base + number))
            assert isinstance(found, Leading)
            found.seat.leave()

        for turn in range(rounds):
            exact.append(await times_us(num, hit))
            store_only.append(await times_us(num, lambda number: store.get(key_of(number % 200))))
            base += turn * num
            miss.append(await times_us(num, lead))
            ids = [pack_ids([number, *range(63)]) for number in range(200)]
            took: list[float] = []
            for number in range(num):
                begin = time.perf_counter()
                near.lookup_local(KEYS.key("acme", MODEL, REQUEST, [ids[number % 200]], "p1"))
                took.append((time.perf_counter() - begin) * 1e6)
            local.append(took)
        await store.close()
        found_locally = near.stats().local_hits
    return [
        ("exact hit, gateway → Cache → Valkey → gateway", spread(exact), "p50 ≤ 150 µs, p99 ≤ 1 ms"),
        ("of which Valkey alone (one MGET, unseal)", spread(store_only), ""),
        ("exact hit in the gateway's memory, making the key included", spread(local), "a few µs"),
        ("what a miss adds", spread(miss), "p99 ≤ 0.3 ms"),
        ("hits not answered within 2 ms", f"{sum(unanswered.values())} of {rounds * num} ({unanswered})", ""),
        ("local hits", f"{found_locally} of {rounds * num}", ""),
    ]


async def throughput(rig: Rig, seconds: float) -> list[Row]:
    """Hits per second of one gateway process with 8 askers, through the authority."""
    async with rig.client(local_bytes=0) as client:
        await fill(rig, 200)
        done = 0
        end = time.perf_counter() + seconds

        async def ask(number: int) -> None:
            nonlocal done
            while time.perf_counter() < end:
                number += 1
                if isinstance(found := await client.lookup(key_of(number % 200)), Hit):
                    done += 1
                else:
                    found.seat.leave()
                    await asyncio.sleep(0)  # a look-up that joins a flight does not yield by itself

        begin = time.process_time()
        await asyncio.gather(*(ask(7 * number) for number in range(8)))
        cpu_us = (time.process_time() - begin) / max(done, 1) * 1e6
    return [
        ("hits per second, 8 at once, one gateway process", f"{done / seconds:,.0f}", "≥ 5,000"),
        ("CPU of the gateway per hit through the link", f"{cpu_us:.0f} µs", ""),
    ]


class Late:
    """A leader's pipeline, as far as it may be told to follow another gateway."""

    def __init__(self) -> None:
        self.yielded = False

    def cache_parts(self, parts: tuple[FeedPart, ...]) -> None: ...
    def cache_hit(self, answer: CachedAnswer) -> None: ...
    def cache_promoted(self) -> None: ...
    def cache_failed(self, error: MeshError) -> None: ...
    def cache_yield(self) -> None:
        self.yielded = True


async def by_meaning(rig: Rig, rounds: int, num: int) -> list[Row]:
    """What a miss of a tenant that opted in costs its gateway besides: question, namespace, one message out, one at the
    end. Nothing waits for the answer."""
    taken: list[list[float]] = []
    system: dict[str, object] = {"role": "system", "content": "You help."}
    user: dict[str, object] = {"role": "user", "content": "How do I cancel my order?"}
    request = InferenceRequest(kind="chat", model="moe", sampling=SAMPLING, messages=(system, user))
    async with rig.client() as client:
        key = key_of(1)
        for _ in range(rounds):
            took: list[float] = []
            for number in range(num):
                begin = time.perf_counter()
                question = question_of(request)
                assert question is not None
                namespace = KEYS.namespace("acme", MODEL, request, question.context, "p1")
                call = client.semantic.begin(key, namespace, question.text, 0.01, lambda _: False)
                assert call is not None
                call.end(ANSWER, 0.0)
                took.append((time.perf_counter() - begin) * 1e6)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            taken.append(took)
    return [("asking by meaning beside a miss, in the gateway", spread(taken), "nothing visible")]


async def single_flight(rig: Rig, bursts: int) -> list[Row]:
    """1,000 identical concurrent misses over four gateways, again and again."""
    generations: list[int] = []
    yielded, took_ms = 0, []
    async with rig.client() as a, rig.client() as b, rig.client() as c, rig.client() as d:
        for _ in range(bursts):
            key = key_of(random.randrange(1 << 30, 1 << 31))
            begin = time.perf_counter()
            found = await asyncio.gather(*(each.lookup(key) for each in (a, b, c, d) for _ in range(250)))
            took_ms.append((time.perf_counter() - begin) * 1e3)
            leaders = [each.seat for each in found if isinstance(each, Leading)]
            late = [Late() for _ in leaders]
            for seat, watcher in zip(leaders, late, strict=True):
                seat.attach(watcher)
            await asyncio.sleep(0.05)  # what came late has come: a leader without a token yields to another
            generations.append(sum(not watcher.yielded for watcher in late))
            yielded += len(leaders) - generations[-1]
            for each in found:
                if not isinstance(each, Hit):
                    each.seat.leave()
            await asyncio.sleep(0.01)
    text = (
        f"{min(generations)} to {max(generations)} generation(s) in each of {bursts} bursts, {yielded} yielded, "
        f"all seated in {statistics.median(took_ms):.1f} ms"
    )
    return [("1,000 identical concurrent misses, 4 gateways", text, "exactly 1")]


async def purge(rig: Rig, num: int) -> list[Row]:
    """One person's answers among others', in every tier."""
    async with rig.client(store_timeout_s=5.0) as one, rig.client(store_timeout_s=5.0) as two:
        await fill(rig, num, "purged", "bob")
        for number in range(num):
            for each in (one, two):
                warm = await each.lookup(key_of(number, "purged", "bob"))
                if not isinstance(warm, Hit):  # Valkey was late: nobody may find a flight here afterwards
                    warm.seat.leave()
        link = one._link  # pyright: ignore[reportPrivateUsage]
        assert link is not None
        begin = time.perf_counter()
        link.send(CachePurge(KEYS.person_scope("purged", "bob").hex()))
        async with asyncio.timeout(10):
            while any(each.stats().local_entries for each in (one, two)):
                await asyncio.sleep(0)
        found = await two.lookup(key_of(num - 1, "purged", "bob"))
        took_ms = (time.perf_counter() - begin) * 1e3
        gone = not isinstance(found, Hit) and all(
            each.lookup_local(key_of(number, "purged", "bob")) is None
            for each in (one, two)
            for number in range(num)
        )
    return [
        (f"purge of a person with {num:,} answers, all tiers", f"{took_ms:.1f} ms, gone: {gone}", "≤ 1 s")
    ]


class Sabotage:
    """What is done to a Valkey that lives: it is paused again and again, filled up, or its entries overwritten."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._task: asyncio.Task[None] | None = None

    def slow(self) -> None:
        self._task = asyncio.create_task(self._again(0.025, (b"CLIENT", b"PAUSE", 20, b"ALL")))

    def full(self) -> None:
        self._task = asyncio.create_task(self._again(10.0, (b"CONFIG", b"SET", b"maxmemory", 1)))

    def not_full(self) -> None:
        self.stop()
        self._task = asyncio.create_task(self._again(10.0, (b"CONFIG", b"SET", b"maxmemory", 0)))

    def garbage(self) -> None:
        self._task = asyncio.create_task(self._overwrite())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _again(self, every_s: float, command: Command) -> None:
        wire = await open_wire(self._url, 5.0)
        while True:
            await wire.call([command], 5.0)
            await asyncio.sleep(every_s)

    async def _overwrite(self) -> None:
        wire = await open_wire(self._url, 5.0)
        while True:
            (names,) = await wire.call([(b"KEYS", b"em:v1:*")], 5.0)
            assert isinstance(names, list)
            kept = cast("list[bytes]", names)
            if kept:
                await wire.call([(b"SET", name, os.urandom(200), b"KEEPTTL") for name in kept], 5.0)
            await asyncio.sleep(0.05)


async def faults(rig: Rig, seconds: float) -> list[Row]:
    """Valkey stopped, killed and brought back, slow, full, overwritten; the authority stopped: what look-ups cost
    meanwhile."""
    rows: list[Row] = []
    async with rig.client(local_bytes=0) as client:

        async def outage(name: str, begin: Callable[[], object], end: Callable[[], object]) -> None:
            await fill(rig, 50)
            begin()
            taken: list[float] = []
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                start = time.perf_counter()
                found = await client.lookup(key_of(len(taken) % 50))
                taken.append((time.perf_counter() - start) * 1e6)
                if not isinstance(found, Hit):
                    found.seat.leave()
                await asyncio.sleep(0.001)
            end()
            back = time.perf_counter()
            while (
                True
            ):  # a killed store comes back empty: what counts is that it is asked and takes answers again
                found = await client.lookup(key_of(0))
                if isinstance(found, Hit):
                    break
                found.seat.store(ANSWER, 3600.0)
                await asyncio.sleep(0.005)
            text = f"look-up p99 {quantile(taken, 0.99) / 1e3:.2f} ms (max {max(taken) / 1e3:.2f})"
            rows.append(
                (name, f"{text}; hits back after {time.perf_counter() - back:.2f} s", "≤ 2 ms, ≤ 5 s")
            )

        valkey = rig.valkey
        await outage(
            "Valkey hung", lambda: valkey.signal(signal.SIGSTOP), lambda: valkey.signal(signal.SIGCONT)
        )
        await outage("Valkey killed", lambda: valkey.signal(signal.SIGKILL), valkey.again)
        sabotage = Sabotage(valkey.url)
        await outage("Valkey slow (paused for 20 of every 45 ms)", sabotage.slow, sabotage.stop)
        await outage("Valkey full", sabotage.full, sabotage.not_full)
        await outage("every entry overwritten with noise, again and again", sabotage.garbage, sabotage.stop)
        sabotage.stop()
        process = rig.process
        assert process is not None

        def stop() -> None:
            process.send_signal(signal.SIGSTOP)

        def go() -> None:
            process.send_signal(signal.SIGCONT)

        await outage("Cache authority hung", stop, go)
    return rows


async def timing(rig: Rig, num: int) -> list[Row]:
    """Can a tenant tell from the time of its own miss whether another tenant's answer is kept?"""
    async with rig.client(local_bytes=0) as client:
        await fill(rig, num, tenant="victim")
        warm, cold = list(range(num)), list(range(10_000_000, 10_000_000 + num))
        taken: dict[bool, list[float]] = {True: [], False: []}
        probes = [(True, number) for number in warm] + [(False, number) for number in cold]
        random.Random(7).shuffle(probes)
        hits = 0
        for is_warm, number in probes:
            key = key_of(number, "attacker")
            start = time.perf_counter()
            found = await client.lookup(key)
            taken[is_warm].append(time.perf_counter() - start)
            if isinstance(found, Hit):
                hits += 1
            else:
                found.seat.leave()
    ranked = sorted([(value, 1) for value in taken[True]] + [(value, 0) for value in taken[False]])
    ranks = sum(rank for rank, (_, label) in enumerate(ranked, 1) if label)
    auc = (ranks - num * (num + 1) / 2) / (num * num)
    return [
        (f"{2 * num:,} probes of another tenant's prompts", f"{hits} hits", "0"),
        ("timing of those probes, AUC kept / not kept", f"{max(auc, 1 - auc):.3f}", "≤ 0.55"),
    ]


def report(rows: list[Row]) -> str:
    """The rows as a Markdown page."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    host = (
        f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    )
    lines = [
        "# Response cache",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {host} · command: `make bench-cache`",
        "",
        "| what | measured | asked |",
        "| --- | --- | --- |",
        *(f"| {name} | {value} | {asked} |" for name, value, asked in rows),
        "",
    ]
    return "\n".join(lines)


async def main(arguments: argparse.Namespace) -> str:
    rig = Rig()
    await rig.start()
    rows: list[Row] = []
    try:
        assert config(rig.valkey.url).store_timeout_s == 0.002
        rows += await hits_and_misses(rig, arguments.rounds, arguments.num)
        rows += await throughput(rig, 3.0)
        rows += await single_flight(rig, 20)
        rows += await by_meaning(rig, arguments.rounds, arguments.num)
        rows += await purge(rig, 2000)
        rows += await timing(rig, 2000)
        rows += await faults(rig, 3.0)
        rows += await through_http(arguments.num // 2, arguments.rounds, 3.0)
    finally:
        await rig.stop()
    return report(rows)


def save(folder: Path, page: str) -> None:
    """Write the dated result file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{datetime.now(UTC):%Y-%m-%d}-cache.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--out", default="docs/benchmarks")
    wishes = parser.parse_args()
    result = uvloop.run(main(wishes))
    print(result)
    if wishes.out:
        save(Path(wishes.out), result)
