"""A flight that had a follower, lost it and gets another: every part reaches it once, whatever is on its way just then
(found by the digital twin, seed 397)."""

from __future__ import annotations

import asyncio

from tests.unit.cache.mesh_of_caches import key_of, mesh, part


def test_a_second_follower_gets_no_part_twice() -> None:
    async def main() -> None:
        async with mesh(gateways=3) as made:
            for turns in range(8):
                key = key_of(turns)
                leader = await made.lead(0, key)
                leader.feed(part(0))
                first, watcher = await made.follow(1, key)
                await made.until(lambda: len(watcher.parts) == 1)  # noqa: B023  # awaited before it changes
                first.leave()
                for _ in range(20):
                    await asyncio.sleep(0)
                joining = asyncio.create_task(made.follow(2, key))
                for _ in range(turns):
                    await asyncio.sleep(0)
                leader.feed(part(1))
                _, late = await joining
                leader.feed(part(2))
                await made.until(lambda: len(late.parts) >= 3)  # noqa: B023  # likewise
                for _ in range(20):
                    await asyncio.sleep(0)
                assert [one.token_ids for one in late.parts] == [(0,), (1,), (2,)], turns
                leader.leave()

    asyncio.run(main())
