"""Limits of an API key on a running mesh: refused by name, counted once, what was not used given back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from services.gateway import json_key_store
from services.gateway.quotas import Quotas
from services.quota.allowance import Allowance, Levels
from services.quota.memory_store import MemoryQuotaStore
from tests.mesh.local_mesh import LocalMesh, local_mesh

KEY = "key-of-limited"


def on_a_loop(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """A test of its own event loop."""

    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        asyncio.run(test(tmp_path))

    return run


@contextlib.asynccontextmanager
async def limited_mesh(folder: Path, allowance: Allowance, **parts: Any) -> AsyncIterator[LocalMesh]:
    """A mesh with one more key, of tenant limited."""
    json_key_store.add(folder / "keys.json", KEY, key_id="limited", tenant="limited", allowance=allowance)
    async with local_mesh(folder, engines=1, **parts) as mesh:
        yield mesh


def levels(mesh: LocalMesh) -> Levels:
    """What the only account that was used has left."""
    store = mesh.gateways[0].mesh.quotas._store
    assert isinstance(store, MemoryQuotaStore)
    (found,) = store._levels.values()
    return found


async def ask(mesh: LocalMesh, **more: Any) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Of a prompt of one token."""
    body = {"model": "sim", "prompt": "abcd", "max_tokens": 4} | more
    headers = body.pop("headers", None)
    response = await mesh.post("/v1/completions", body, tenant=KEY, headers=headers)
    return response.status, json.loads(await response.read()), response.headers


async def until_settled(mesh: LocalMesh, today: int) -> None:
    async with asyncio.timeout(20):
        while levels(mesh).day_tokens != today:
            await asyncio.sleep(0.005)


@on_a_loop
async def test_requests_beyond_the_limit_are_refused_with_an_honest_wait(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(requests_per_minute=2)) as mesh:
        begun_s = time.monotonic()
        first, second = await ask(mesh), await ask(mesh, prompt="efgh")
        refusals = [await ask(mesh) for _ in range(3)]
        took_s = time.monotonic() - begun_s
        assert first[0] == second[0] == 200
        assert first[2]["x-ratelimit-limit-requests"] == "2"
        assert first[2]["x-ratelimit-remaining-requests"] == "1"
        assert "x-ratelimit-limit-tokens" not in first[2]
        if took_s < 25:  # else the bucket has had time to fill
            for status, body, headers in refusals:
                assert status == 429
                assert body["error"]["code"] == "rate_limit_exceeded"
                assert "2 requests a minute" in body["error"]["message"]
                assert 1 <= int(headers["retry-after"]) <= 30
        other = await mesh.post("/v1/completions", {"model": "sim", "prompt": "x", "max_tokens": 1})
        assert other.status == 200  # of another key
        await other.read()


@on_a_loop
async def test_a_key_over_its_requests_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(requests_per_minute=1)) as mesh:
        assert (await ask(mesh))[0] == 200
        assert (await ask(mesh))[0] == 429
        broken = await mesh.post("/v1/completions", b"{", tenant=KEY)
        assert broken.status == 429  # and not 400: nobody looked
        assert json.loads(await broken.read())["error"]["code"] == "rate_limit_exceeded"


@on_a_loop
async def test_what_was_not_used_is_given_back(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(tokens_per_day=100)) as mesh:
        status, body, _ = await ask(mesh, max_tokens=90)
        assert status == 200
        used = body["usage"]["total_tokens"]
        await until_settled(mesh, used)


@on_a_loop
async def test_a_kept_answer_costs_no_tokens(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(tokens_per_day=1000)) as mesh:
        _, body, headers = await ask(mesh, temperature=0)
        assert headers["x-cache"] == "miss"
        used = body["usage"]["total_tokens"]
        await until_settled(mesh, used)
        async with asyncio.timeout(20):
            while (await ask(mesh, temperature=0))[2]["x-cache"] != "hit":
                used += body["usage"]["total_tokens"]
        await until_settled(mesh, used)


@on_a_loop
async def test_the_days_tokens_are_a_quota(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(tokens_per_day=17)) as mesh:
        status, body, _ = await ask(mesh, max_tokens=16, ignore_eos=True)
        assert (status, body["usage"]["total_tokens"]) == (200, 17)
        status, body, headers = await ask(mesh, prompt="other")
        assert (status, body["error"]["code"]) == (429, "insufficient_quota")
        assert 1 <= int(headers["retry-after"]) <= 86_400


@on_a_loop
async def test_what_a_key_may_never_use_is_not_429(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(tokens_per_minute=20)) as mesh:
        status, body, _ = await ask(mesh, max_tokens=20)
        assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid_field", "max_tokens")
        assert "20 in a minute" in body["error"]["message"]
        assert (await ask(mesh, max_tokens=9, n=2))[0] == 200  # 1 + 2 × 9
        assert (await ask(mesh, max_tokens=10, n=2))[0] == 400


@on_a_loop
async def test_a_client_that_leaves_pays_for_what_was_made(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(tokens_per_day=4000), experts={"sim_step_s": 0.02}) as mesh:
        body = {"model": "sim", "prompt": "abcd", "max_tokens": 3000, "stream": True, "ignore_eos": True}
        response = await mesh.post("/v1/completions", body, tenant=KEY)
        events = response.events()
        for _ in range(3):
            await anext(events)
        assert levels(mesh).day_tokens == 3001
        response.hang_up()
        async with asyncio.timeout(20):
            while levels(mesh).day_tokens == 3001:
                await asyncio.sleep(0.01)
        assert 1 + 3 <= levels(mesh).day_tokens < 3001


@on_a_loop
async def test_who_comes_back_pays_once(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(tokens_per_day=1000)) as mesh:
        headers = {"idempotency-key": "once"}
        _, body, _ = await ask(mesh, headers=headers)
        used = body["usage"]["total_tokens"]
        await until_settled(mesh, used)
        _, again, replayed = await ask(mesh, headers=headers)
        assert again["choices"] == body["choices"] and replayed["idempotent-replayed"] == "true"
        await until_settled(mesh, used)


@on_a_loop
async def test_limits_change_while_everything_runs(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(requests_per_minute=1)) as mesh:
        assert [(await ask(mesh))[0] for _ in range(2)] == [200, 429]
        json_key_store.add(tmp_path / "keys.json", KEY, key_id="limited", tenant="limited")
        async with asyncio.timeout(20):
            while (await ask(mesh))[0] != 200:
                await asyncio.sleep(0.05)


@on_a_loop
async def test_a_store_that_is_away_fails_no_request_and_still_counts(tmp_path: Path) -> None:
    cache = {"redis_url": "redis://127.0.0.1:1"}
    async with limited_mesh(tmp_path, Allowance(requests_per_minute=2), cache=cache) as mesh:
        quotas = mesh.gateways[0].mesh.quotas
        assert isinstance(quotas, Quotas) and not isinstance(quotas._store, MemoryQuotaStore)
        assert [(await ask(mesh))[0] for _ in range(3)] == [200, 200, 429]


@on_a_loop
async def test_openais_sdk_does_not_ask_again_for_what_is_used_up_today(tmp_path: Path) -> None:
    async with limited_mesh(tmp_path, Allowance(tokens_per_day=17)) as mesh:
        await ask(mesh, max_tokens=16, ignore_eos=True)
        url = f"http://127.0.0.1:{mesh.port()}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=5) as client:
            with pytest.raises(openai.RateLimitError) as refused:
                await client.completions.create(model="sim", prompt="other", max_tokens=4)
        assert refused.value.code == "insufficient_quota"
        page = (await mesh.get("/metrics"))[1]
        (line,) = [line for line in page.splitlines() if 'reason="quota_exceeded"' in line]
        assert line.endswith(" 1.0")  # asked once
