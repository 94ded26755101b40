"""Releases and renewed workers under load: no failed request, every answer whole and of one revision.

The simulated model answers otherwise in every revision (like other weights), so that an answer which two revisions
wrote is seen at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from services.experts.engine import Sink, StreamError
from services.experts.rank import Rank
from services.experts.sim_answers import expected_ids
from services.experts.sim_engine import SimEngine
from services.queue.rollout.operations import Drain, Start, Steer, Wish
from services.queue.rollout.plan import Phase, Plan
from services.queue.rollout.verdict import Limits
from services.request import GenerateJob, SamplingParams
from services.sim_tokenizer import decode, encode
from tests.mesh.local_mesh import LocalMesh, local_mesh

OLD, NEW = "v1", "v2"
QUICK = Plan(
    NEW,
    steps=(0.3, 0.6, 1.0),
    hold_s=0.0,
    bake_s=0.0,
    patience_s=30.0,
    floor_share=0.4,
    limits=Limits(12, ttft_s=30.0),
)
ROLLOUT = {"look_every_s": 0.02}
PATIENT = {"engine_silent_s": 600.0, "lease_ttl_s": 600.0}
"""The host may be busy with other things: nobody is dead because of that."""


def said_by(revision: str, prompt: str, num_tokens: int) -> str:
    params = SamplingParams(max_tokens=num_tokens, temperature=0.0)
    return decode(expected_ids(encode(prompt), num_tokens, params, adapter=revision)).decode()


class FailingEngine(SimEngine):
    """Gives every stream up as soon as it gets it, as an engine with broken kernels does."""

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> None:
        if job.request_id.startswith("probe"):
            super().submit(stream_id, job, sink)
        else:
            error = StreamError(stream_id, "engine_lost", "broken weights", retryable=True)
            asyncio.get_running_loop().call_soon(sink, error)


class Crowd:
    """Clients that ask again and again. `seen`: revisions in the order in which each person met them."""

    def __init__(self, mesh: LocalMesh, persons: int = 12, num_tokens: int = 16) -> None:
        self.mesh, self.num_tokens = mesh, num_tokens
        self.seen: dict[str, list[str]] = {f"person {i}": [] for i in range(persons)}
        self.answers = 0
        self._numbers = count()
        self._stopping = False

    async def ask(self, person: str = "", num_tokens: int = 0) -> str:
        """One answer; returns the revision that gave it, all of it."""
        prompt, wanted = f"question {next(self._numbers)}", num_tokens or self.num_tokens
        body: dict[str, Any] = {
            "model": "sim",
            "prompt": prompt,
            "max_tokens": wanted,
            "temperature": 0,
            "stream": True,
        }
        if person:
            body["user"] = person
        response = await self.mesh.post(
            "/v1/completions", body, gateway=len(prompt) % len(self.mesh.gateways)
        )
        assert response.status == 200, await response.read()
        text = ""
        async for event in response.events():
            assert "error" not in event, event
            text += event["choices"][0]["text"]
        whole = [name for name in (OLD, NEW) if text == said_by(name, prompt, wanted)]
        assert whole, f"{prompt!r} was answered {text!r}"
        self.answers += 1
        return whole[0]

    async def _person(self, name: str) -> None:
        while not self._stopping:
            revision = await self.ask(name)
            if self.seen[name][-1:] != [revision]:
                self.seen[name].append(revision)

    async def during(self, what: Awaitable[None]) -> None:
        """They ask while `what` happens, and finish what they began."""
        persons = [asyncio.create_task(self._person(name)) for name in self.seen]
        try:
            await what
            self._stopping = True
            await asyncio.gather(*persons)
        finally:
            for person in persons:
                person.cancel()


def operate(mesh: LocalMesh, wish: Wish) -> dict[str, Any]:
    return mesh.queue.operate(wish)


def phase(mesh: LocalMesh) -> Phase | None:
    desk = mesh.queue._lanes.desks["sim"]
    return desk.release.phase if desk.release is not None else None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(110):
        while not condition():
            await asyncio.sleep(0.005)


async def add(
    mesh: LocalMesh, revision: str = NEW, kind: type[SimEngine] = SimEngine, slow: float = 1.0
) -> Rank:
    """An engine of a revision; it ends when it has retired, and is replaced, as Serve does it."""
    engine = kind.from_config(mesh.config.experts.model_copy(update={"revision": revision}))
    engine.slow = slow

    async def renew() -> None:
        await rank.stop()
        mesh.ranks.remove(rank)
        await add(mesh, revision, kind, slow)

    def retired() -> None:
        renewals.append(asyncio.create_task(renew()))

    renewals: list[asyncio.Task[None]] = []
    rank = Rank(engine, resolve_queue=mesh._queue, on_retired=retired)
    await rank.start()
    mesh.ranks.append(rank)
    await until(lambda: rank.epoch > 0)
    return rank


def release_mesh(tmp_path: Path, **more: Any) -> Any:
    queue = PATIENT | {"rollout": ROLLOUT | more.pop("rollout", {})}
    parts = {"queue": queue, "experts": {"revision": OLD, "stuck_after_s": 600.0}} | more
    return local_mesh(tmp_path, **parts)


def test_a_canary_takes_over_step_by_step(tmp_path: Path) -> None:
    async def main() -> None:
        async with release_mesh(tmp_path, gateways=2) as mesh:
            crowd = Crowd(mesh)

            async def release() -> None:
                operate(mesh, Start(QUICK))
                long = asyncio.create_task(
                    crowd.ask(num_tokens=600)
                )  # begun with the old one, and ended by it
                await until(lambda: crowd.answers > 20)
                assert phase(mesh) is Phase.AWAITING
                await add(mesh)
                await until(lambda: phase(mesh) is Phase.DONE)
                assert await long == OLD
                await until(lambda: all(seen[-1:] == [NEW] for seen in crowd.seen.values()))

            await crowd.during(release())
            assert all(seen in ([OLD, NEW], [NEW]) for seen in crowd.seen.values()), crowd.seen

    asyncio.run(main())


def test_a_failing_canary_is_taken_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with release_mesh(tmp_path) as mesh:
            crowd = Crowd(mesh)

            async def release() -> None:
                operate(mesh, Start(QUICK))
                await add(mesh, kind=FailingEngine)
                await until(lambda: phase(mesh) is Phase.BACK)
                before = crowd.answers
                await until(lambda: crowd.answers > before + 50)

            await crowd.during(release())
            assert all(seen == [OLD] for seen in crowd.seen.values()), crowd.seen

    asyncio.run(main())


def test_a_slow_canary_is_taken_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with release_mesh(tmp_path) as mesh:
            crowd = Crowd(mesh, num_tokens=3)

            async def release() -> None:
                await until(lambda: crowd.answers > 60)
                plan = msgspec.structs.replace(QUICK, steps=(0.6, 1.0), limits=Limits(12, ttft_s=0.25))
                operate(mesh, Start(plan))
                await add(mesh, slow=200.0)
                await until(lambda: phase(mesh) in (Phase.RETURNING, Phase.BACK))
                for rank in mesh.ranks:
                    rank.engine.slow = 1.0  # what runs there may end
                await until(lambda: phase(mesh) is Phase.BACK)
                await until(lambda: all(seen[-1:] == [OLD] for seen in crowd.seen.values()))

            await crowd.during(release())
            assert all(seen in ([OLD], [OLD, NEW, OLD]) for seen in crowd.seen.values()), crowd.seen

    asyncio.run(main())


def test_blue_and_green_change_places_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with release_mesh(tmp_path) as mesh:
            crowd = Crowd(mesh)
            plan = msgspec.structs.replace(QUICK, strategy="blue_green", bake_s=600.0, floor_share=1.0)

            async def release() -> None:
                operate(mesh, Start(plan))
                long = asyncio.create_task(crowd.ask(num_tokens=500))
                await until(lambda: crowd.answers > 20)
                await add(mesh)
                before = crowd.answers
                await until(lambda: crowd.answers > before + 30)
                assert phase(mesh) is Phase.AWAITING  # half the slots are not enough
                await add(mesh)
                await until(lambda: phase(mesh) is Phase.BAKING)
                operate(mesh, Steer("promote"))
                await until(lambda: phase(mesh) is Phase.DONE)
                assert await long == OLD
                for rank in [rank for rank in mesh.ranks if rank.info.revision == OLD]:
                    mesh.ranks.remove(rank)
                    await rank.drain(0.0)
                    await rank.stop()
                await until(lambda: all(seen[-1:] == [NEW] for seen in crowd.seen.values()))

            await crowd.during(release())

    asyncio.run(main())


def test_engines_are_replaced_one_by_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with release_mesh(tmp_path, engines=3) as mesh:
            crowd = Crowd(mesh)

            async def release() -> None:
                operate(mesh, Start(msgspec.structs.replace(QUICK, strategy="rolling")))
                for rank in list(mesh.ranks):
                    await add(mesh)
                    last = sum(1 for other in mesh.ranks if other.info.revision == OLD) == 1
                    await rank.drain(30.0 if last else 0.0)  # the last one has nobody to hand its streams to
                    mesh.ranks.remove(rank)
                    await rank.stop()
                await until(lambda: phase(mesh) is Phase.DONE)
                await until(lambda: all(seen[-1:] == [NEW] for seen in crowd.seen.values()))

            await crowd.during(release())
            assert all(seen in ([OLD, NEW], [NEW]) for seen in crowd.seen.values()), crowd.seen

    asyncio.run(main())


def test_workers_are_renewed_one_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        recycle = {"recycle_after_s": 0.5, "recycle_within_s": 0.0}
        async with release_mesh(tmp_path, engines=1, rollout=recycle) as mesh:
            for _ in range(3):
                await add(mesh, OLD)
            spare = mesh.ranks.pop(0)  # nobody would bring this one back
            await spare.drain(0.0)
            await spare.stop()
            first = {rank.engine_id for rank in mesh.ranks}
            crowd = Crowd(mesh, num_tokens=40)
            fences: list[str] = []
            mesh.gateways[0].mesh.queue._on_fence = lambda engine_id, epoch: fences.append(engine_id)

            def away() -> int:
                units = [unit for _, unit in mesh.queue._lanes.units(0.0).values()]
                return max(0, 3 - sum(unit.serves for unit in units))

            async def renewals() -> None:
                most = 0
                async with asyncio.timeout(110):
                    while first & {rank.engine_id for rank in mesh.ranks}:
                        most = max(most, away())
                        await asyncio.sleep(0.002)
                assert most == 1

            await crowd.during(renewals())
            assert not fences, "what is planned needs no fence"

    asyncio.run(main())


def test_a_release_outlives_the_queue(tmp_path: Path) -> None:
    async def main() -> None:
        async with release_mesh(tmp_path) as mesh:
            crowd = Crowd(mesh)
            plan = msgspec.structs.replace(QUICK, hold_s=600.0)

            async def release() -> None:
                operate(mesh, Start(plan))
                await add(mesh)
                await until(lambda: phase(mesh) is Phase.STEPPING)
                await until(lambda: any(NEW in seen for seen in crowd.seen.values()))
                await mesh.restart_queue()
                await until(lambda: "sim" in mesh.queue._lanes.desks and phase(mesh) is Phase.STEPPING)
                before = crowd.answers
                await until(lambda: crowd.answers > before + 60)
                operate(mesh, Steer("abort"))
                await until(lambda: phase(mesh) is Phase.BACK)
                await until(lambda: all(seen[-1:] == [OLD] for seen in crowd.seen.values()))

            await crowd.during(release())
            assert all(seen in ([OLD], [OLD, NEW, OLD], [NEW, OLD]) for seen in crowd.seen.values()), (
                crowd.seen
            )

    asyncio.run(main())


def test_operators_ask_over_http(tmp_path: Path) -> None:
    async def main() -> None:
        async with release_mesh(tmp_path) as mesh:

            async def ask_queue(wish: Wish) -> dict[str, Any]:
                return operate(mesh, wish)

            mesh.gateways[0].mesh.queue_operate = ask_queue
            asked = msgspec.to_builtins(Start(QUICK))
            told = await mesh.json("/admin/queue", asked)
            assert told["sim"]["release"]["phase"] == "awaiting"
            again = await mesh.post("/admin/queue", asked)
            assert again.status == 400 and b"promote or abort it first" in await again.read()
            unit = mesh.ranks[0].engine_id
            drained = await mesh.json("/admin/queue", msgspec.to_builtins(Drain(unit, 0.0)))
            assert drained == {"drains": [unit]}
            nobody = await mesh.post("/admin/queue", json.dumps({"type": "drain", "unit": "x"}).encode())
            assert nobody.status == 400 and b"there is no worker" in await nobody.read()

    asyncio.run(main())
