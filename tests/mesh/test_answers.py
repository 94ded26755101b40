"""What a client gets: shapes, cache, single flight, tenants, bands, policy, refusals."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from services.postprocess.policy import Policy
from tests.mesh.local_mesh import LocalMesh, local_mesh, said

CHAT = {"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12}


def engine_calls(mesh: LocalMesh) -> int:
    """Tokens that the engines made so far."""
    return sum(rank.engine.sample_load().tokens_total for rank in mesh.ranks)


def test_every_answer_names_its_request(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            response = await mesh.post("/v1/chat/completions", CHAT, headers={"x-request-id": "mine-1"})
            assert response.headers["x-request-id"] == "mine-1"
            assert (await response.read()).count(b"mine-1") == 1
            refused = await mesh.post("/v1/chat/completions", {**CHAT, "model": "gpt-9"})
            assert refused.status == 404 and refused.headers["x-request-id"].startswith("req-")

    asyncio.run(main())


def test_generate_is_as_plain_as_promised(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            assert await mesh.json("/generate", {"prompt": "Hi you", "max_tokens": 9}) == {
                "response": said("Hi you", 9)
            }

    asyncio.run(main())


def test_a_hit_says_the_same_in_both_forms_and_costs_no_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {**CHAT, "temperature": 0}
            first = await mesh.post("/v1/chat/completions", body)
            answer = json.loads(await first.read())
            made = engine_calls(mesh)
            again = await mesh.post("/v1/chat/completions", body)
            repeated = json.loads(await again.read())
            assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
            assert repeated["choices"] == answer["choices"]
            assert repeated["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"]
            streamed = await mesh.post("/v1/chat/completions", {**body, "stream": True})
            events = [event async for event in streamed.events()]
            text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events)
            assert text == answer["choices"][0]["message"]["content"]
            assert events[-1]["choices"][0]["finish_reason"] == "length"
            assert engine_calls(mesh) == made
            fresh = await mesh.post("/v1/chat/completions", body, headers={"cache-control": "no-store"})
            assert fresh.headers["x-cache"] == "bypass"
            assert engine_calls(mesh) > made

    asyncio.run(main())


def test_sampled_answers_are_not_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            for _ in range(2):
                response = await mesh.post("/v1/chat/completions", {**CHAT, "temperature": 0.9})
                assert response.headers["x-cache"] == "bypass"
                await response.read()

    asyncio.run(main())


def test_another_tenant_never_sees_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {**CHAT, "temperature": 0}
            await (await mesh.post("/v1/chat/completions", body, tenant="acme")).read()
            other = await mesh.post("/v1/chat/completions", body, tenant="rival")
            assert other.headers["x-cache"] == "miss"
            await other.read()

    asyncio.run(main())


@pytest.mark.parametrize("gateways", [1, 2])
def test_identical_requests_share_one_generation(tmp_path: Path, gateways: int) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=gateways) as mesh:
            made = engine_calls(mesh)
            body = {"model": "sim", "prompt": "All ask this", "max_tokens": 50, "temperature": 0}

            async def ask(number: int) -> str:
                answer = await mesh.json("/v1/completions", body, gateway=number % gateways)
                return answer["choices"][0]["text"]

            texts = await asyncio.gather(*(ask(number) for number in range(60)))
            assert set(texts) == {said("All ask this", 50, temperature=0.0)}
            assert engine_calls(mesh) - made <= 50 + 2 * gateways, (
                "one generation, and at most a canary per gateway"
            )

    asyncio.run(main())


def test_followers_go_on_when_their_leader_leaves(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {"model": "sim", "prompt": "Lead me", "max_tokens": 80, "temperature": 0, "stream": True}
            leader = await mesh.post("/v1/completions", body)
            seen = 0
            followers = [asyncio.create_task(mesh.post("/v1/completions", body)) for _ in range(5)]
            async for _ in leader.events():
                seen += 1
                if seen == 20:
                    break
            leader.hang_up()
            for task in followers:
                text = "".join([event["choices"][0]["text"] async for event in (await task).events()])
                assert text == said("Lead me", 80, temperature=0.0)

    asyncio.run(main())


def test_a_sensitive_word_is_masked_however_it_is_cut_and_the_policy_can_change(tmp_path: Path) -> None:
    word = said("Mask me", 30)[22:29]

    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {"model": "sim", "prompt": "Mask me", "max_tokens": 30, "temperature": 0}
            before = await mesh.json("/v1/completions", body)
            assert word in before["choices"][0]["text"]
            version = mesh.gateways[0].mesh.policy.version
            await mesh.policies.put(Policy(words=(word,), whole_words=False))
            async with asyncio.timeout(5):
                while mesh.gateways[0].mesh.policy.version == version:
                    await asyncio.sleep(0.005)
            after = await mesh.json("/v1/completions", body)
            assert word not in after["choices"][0]["text"]
            assert "*" in after["choices"][0]["text"]
            asked = await mesh.post("/v1/completions", {**body, "prompt": f"say {word} now"})
            assert asked.status == 400
            assert json.loads(await asked.read())["error"]["code"] == "content_filter"

    asyncio.run(main())


def test_what_is_masked_does_not_show_in_log_probabilities_nor_come_in_as_token_ids(tmp_path: Path) -> None:
    text = said("Mask me", 30)
    word, ids = text[21:31], list(memoryview(f"say {text[21:31]} it..".ljust(20)[:20].encode()).cast("I"))

    async def main() -> None:
        policy = {"blocked_words": (word,), "whole_words": False}
        async with local_mesh(tmp_path, postprocess=policy) as mesh:
            body = {"model": "sim", "prompt": "Mask me", "max_tokens": 30, "temperature": 0, "logprobs": 2}
            for stream in (False, True):
                response = await mesh.post("/v1/completions", {**body, "stream": stream})
                if stream:
                    shown = "".join([json.dumps(event["choices"]) async for event in response.events()])
                    tokens = [
                        t for part in shown.split('"tokens": [')[1:] for t in part.split("]")[0].split(", ")
                    ]
                else:
                    answer = json.loads(await response.read())
                    tokens = [json.dumps(token) for token in answer["choices"][0]["logprobs"]["tokens"]]
                    assert "*" * len(word) in answer["choices"][0]["text"]
                tokens = [token for token in tokens if token]
                assert len(tokens) == 30
                assert word not in "".join(json.loads(token) for token in tokens)
                assert sum(token == '""' for token in tokens) >= 3
            for given in (ids, ids * 200):  # decoded at once, and in a thread
                asked = await mesh.post("/v1/completions", {**body, "prompt": given})
                assert json.loads(await asked.read())["error"]["code"] == "content_filter"
            asked = await mesh.post("/v1/completions", {**body, "prompt": ids * 20_000})
            told = json.loads(await asked.read())["error"]
            assert told["code"] == "context_length_exceeded", "what is too long is not read for words"

    asyncio.run(main())


def test_confidence_is_between_zero_and_one_on_request(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            answer = await mesh.json("/v1/chat/completions", {**CHAT, "confidence": True})
            score = json.dumps(answer)
            assert "confidence" in score
            plain = await mesh.json("/v1/chat/completions", CHAT)
            assert "confidence" not in json.dumps(plain)

    asyncio.run(main())


def test_a_vip_does_not_wait_behind_batch_work_which_later_finishes(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, engines=1, experts={"max_num_seqs": 4}) as mesh:

            async def batch(number: int) -> str:
                body = {"model": "sim", "prompt": f"batch {number}", "max_tokens": 300}
                answer = await mesh.json("/v1/completions", body, headers={"x-priority-band": "batch"})
                return answer["choices"][0]["text"]

            crowd = [asyncio.create_task(batch(number)) for number in range(12)]
            async with asyncio.timeout(5):
                while len(mesh.ranks[0].streams) < 4:
                    await asyncio.sleep(0.002)
            vip = {"model": "sim", "prompt": "vip", "max_tokens": 5}
            answer = await mesh.json("/v1/completions", vip, headers={"x-priority-band": "vip"})
            assert answer["choices"][0]["text"] == said("vip", 5)
            assert not all(task.done() for task in crowd), "the VIP overtook"
            assert [await task for task in crowd] == [said(f"batch {number}", 300) for number in range(12)]

    asyncio.run(main())


BAD: list[tuple[str, Any, int, str | None]] = [
    ("not json", b"{", 400, None),
    ("nan", b'{"model":"sim","messages":[{"role":"user","content":"x"}],"temperature":NaN}', 400, None),
    (
        "huge number",
        b'{"model":"sim","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        400,
        None,
    ),
    ("deep", b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, None),
    ("lone surrogate", b'{"model":"sim","messages":[{"role":"user","content":"\\ud800"}]}', 400, None),
    ("bytes that are no utf-8", b'{"model":"sim","messages":[{"role":"user","content":"\xff"}]}', 400, None),
    ("garbage behind", b'{"model":"sim","messages":[{"role":"user","content":"x"}]} x', 400, None),
    ("wrong type", {**CHAT, "max_tokens": "many"}, 400, "max_tokens"),
    ("temperature", {**CHAT, "temperature": 9}, 400, "temperature"),
    ("top_p", {**CHAT, "top_p": 0}, 400, "top_p"),
    ("n", {**CHAT, "n": 100_000}, 400, "n"),
    ("max_tokens", {**CHAT, "max_tokens": 2**70}, 400, "max_tokens"),
    ("beyond the context", {**CHAT, "max_tokens": 1_000_000}, 400, "max_tokens"),
    ("logprobs", {**CHAT, "logprobs": True, "top_logprobs": 1000}, 400, "top_logprobs"),
    ("seed", {**CHAT, "seed": 1.5}, 400, "seed"),
    ("no messages", {"model": "sim", "messages": []}, 400, "messages"),
    ("unknown field", {**CHAT, "frobnicate": 1}, 400, "frobnicate"),
    ("long prompt", {**CHAT, "messages": [{"role": "user", "content": "x" * 40_000}]}, 400, "messages"),
    ("unknown model", {**CHAT, "model": "nobody"}, 404, "model"),
    ("regex bomb", {**CHAT, "guided_regex": "(a+)+" * 500 + "$"}, 400, None),
]


def test_bad_input_is_refused_by_name_and_never_reaches_an_engine(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, engines=1) as mesh:
            for name, body, status, param in BAD:
                response = await mesh.post("/v1/chat/completions", body)
                answer = json.loads(await response.read())
                assert response.status == status, (name, answer)
                assert answer["error"]["message"], name
                if param is not None:
                    assert (answer["error"]["param"] or "").startswith(param), (name, answer)
            packed = await mesh.post("/v1/completions", b"{}", headers={"content-encoding": "gzip"})
            assert json.loads(await packed.read())["error"]["param"] == "content-encoding"
            too_large = await mesh.post("/v1/chat/completions", b" " * 5_000_000)
            assert too_large.status == 413
            assert mesh.gateways[0].mesh.queue.num_held == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "path", "tenant", "status"),
    [
        ("GET", "/nowhere", "acme", 404),
        ("DELETE", "/v1/models", "acme", 405),
        ("GET", "/v1/models", "", 401),
        ("GET", "/v1/models", "wrong-key", 401),
        ("POST", "/v1/chat/completions", "", 401),
        ("GET", "/v1/models/nobody", "acme", 404),
        ("GET", "/v1/models/sim", "acme", 200),
        ("GET", "/healthz", "", 200),
        ("GET", "/readyz", "", 200),
        ("GET", "/health", "", 200),
        ("GET", "/metrics", "", 200),
        ("GET", "/openapi.json", "", 200),
    ],
)
def test_routes(tmp_path: Path, method: str, path: str, tenant: str, status: int) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            assert (await mesh.send(method, path, b"", tenant=tenant)).status == status

    asyncio.run(main())


def test_the_engines_dead_the_answer_is_honest(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, engines=1) as mesh:
            await mesh.ranks[0].stop()
            response = await mesh.post(
                "/v1/completions",
                {"model": "sim", "prompt": "x", "max_tokens": 5},
                headers={"x-request-deadline-ms": "300"},
            )
            assert response.status in (503, 504)
            assert b'"error"' in await response.read()

    asyncio.run(main())


def test_metrics_show_what_happened(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            await mesh.json("/v1/chat/completions", CHAT)
            _, page = await mesh.get("/metrics")
            assert "expertmesh" in page
            assert "# TYPE" in page

    asyncio.run(main())


def test_an_operator_sees_the_cache_and_can_make_it_forget_a_tenant(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path) as mesh:
            body = {**CHAT, "temperature": 0}
            for tenant in ("acme", "rival"):
                await (await mesh.post("/v1/chat/completions", body, tenant=tenant)).read()
            status, figures = await mesh.get("/admin/cache")
            assert status == 200 and json.loads(figures)["cache"]["stored"] >= 1
            purged = await mesh.json("/admin/cache/purge", {"tenant": "acme"})
            assert purged["confirmed"] is True
            for tenant, verdict in (("acme", "miss"), ("rival", "hit")):
                again = await mesh.post("/v1/chat/completions", body, tenant=tenant)
                assert again.headers["x-cache"] == verdict
                await again.read()
            for bad in (b"{", b"{}", b'{"tenant":"a","model":"b"}', b'{"person":"x"}', b'{"all":true}'):
                refused = await mesh.post("/admin/cache/purge", bad)
                assert refused.status == 400, bad
            assert (await mesh.send("GET", "/admin/cache", b"", tenant="")).status == 401

    asyncio.run(main())
