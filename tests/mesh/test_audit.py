"""The audit log of a running mesh: one record for each call, of equal meaning on both wires, and no word of anybody."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from services.audit.ed25519_keys import Ed25519Keys
from services.audit.seat import chains_in
from services.audit.verify import verify_all
from services.client.grpc_client import CallFailed, MeshClient, pb
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.quota.allowance import Allowance
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh
from tests.mesh.test_embeddings import NAME, rig

SECRET_PROMPT = "my card is 6222020200112233445"
PERSON = "zhang.san@example.cn"
SAME = ("outcome", "reason", "tenant", "key", "person", "address", "kind", "model", "revision", "policy", "stream",
        "choices", "max_tokens", "prompt_tokens", "completion_tokens", "prompt", "answer")  # fmt: skip


@contextlib.asynccontextmanager
async def audited_mesh(folder: Path, **parts: Any) -> AsyncIterator[LocalMesh]:
    gateway = {"audit": {"directory": str(folder / "audit"), "flush_ms": 1} | parts.pop("audit", {})}
    async with local_mesh(folder, engines=1, gateway=gateway, **parts) as mesh:
        yield mesh


def records(folder: Path, event: str = "call") -> list[dict[str, Any]]:
    """After the mesh has ended. The log must verify."""
    reports = verify_all(chains_in(folder / "audit"), Ed25519Keys())
    assert [(report.finding, report.closed) for report in reports] == [(None, True)] * len(reports)
    lines = [json.loads(line) for file in sorted((folder / "audit").rglob("*.jsonl")) for line in file.open()]
    return [line for line in lines if line["event"] == event]


def test_each_call_leaves_one_record_of_equal_meaning_on_both_wires(tmp_path: Path) -> None:
    async def main() -> None:
        async with audited_mesh(tmp_path) as mesh:
            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            async with MeshClient(address, KEYS["acme"]) as client:
                headers = {"cache-control": "no-store"}
                for stream in (False, True):
                    chat = {
                        "model": "sim",
                        "messages": [{"role": "user", "content": SECRET_PROMPT}],
                        "user": PERSON,
                    }
                    response = await mesh.post(
                        "/v1/chat/completions", chat | {"max_tokens": 12, "stream": stream}, headers=headers
                    )
                    await response.read()
                    text = {"model": "sim", "prompt": SECRET_PROMPT, "max_tokens": 12, "stream": stream}
                    await (await mesh.post("/v1/completions", text, headers=headers)).read()
                    fields: dict[str, Any] = {
                        "model": "sim", "messages": [{"role": "ROLE_USER", "content": SECRET_PROMPT}],
                        "sampling": {"max_tokens": 12}, "options": {"cache": "CACHE_USE_NO_STORE", "user": PERSON},
                    }  # fmt: skip
                    asked = ParseDict(fields, pb.ChatRequest())
                    plain = pb.TextRequest(
                        model="sim", prompts=[pb.Prompt(text=SECRET_PROMPT)], options=asked.options
                    )
                    plain.options.user = ""
                    plain.sampling.max_tokens = 12
                    if stream:
                        _ = [event async for event in client.stream_chat(asked)]
                        _ = [event async for event in client.stream_text(plain)]
                    else:
                        await client.chat(asked)
                        await client.text(plain)

    asyncio.run(main())
    found = records(tmp_path)
    assert len(found) == 8
    for number in (0, 1, 4, 5):
        http, grpc = found[number], found[number + 2]
        assert (http["protocol"], grpc["protocol"]) == ("http", "grpc")
        assert {name: http.get(name) for name in SAME} == {name: grpc.get(name) for name in SAME}
        assert http["outcome"] == "completed" and http["completion_tokens"] == 12
    assert [record["endpoint"] for record in found[:4]] == [
        "/v1/chat/completions", "/v1/completions", "GenerateChat", "GenerateText",
    ]  # fmt: skip
    assert found[0]["answer"] == found[4]["answer"]  # streamed or whole
    written = b"".join(file.read_bytes() for file in (tmp_path / "audit").rglob("*.jsonl")).decode()
    for secret in (SECRET_PROMPT, "6222", PERSON, "zhang", *KEYS.values()):
        assert secret not in written


def test_refusals_and_acts_are_recorded(tmp_path: Path) -> None:
    async def main() -> None:
        json_key_store.add(
            tmp_path / "keys.json", "key-of-poor", key_id="poor", tenant="poor", allowance=Allowance(1)
        )
        async with audited_mesh(tmp_path) as mesh:
            body = {"model": "sim", "prompt": "x", "max_tokens": 2}

            async def status(path: str = "/v1/completions", **more: Any) -> int:
                response = await mesh.post(path, body | more.pop("body", {}), **more)
                await response.read()
                return response.status

            assert await status(tenant="nobody") == 401
            assert await status(body={"model": "other " + SECRET_PROMPT}) == 404
            assert await status(tenant="key-of-poor") == 200
            assert await status(tenant="key-of-poor") == 429
            assert await status("/nowhere/" + PERSON) == 404
            assert await status("/admin/cache/purge", tenant="key-of-poor") == 403
            purge = await mesh.post("/admin/cache/purge", {"tenant": "acme", "person": PERSON})
            assert purge.status == 200
            await purge.read()
            async with MeshClient(f"127.0.0.1:{mesh.gateways[0].grpc_port}", "wrong") as client:
                with pytest.raises(CallFailed):
                    await client.models()

    asyncio.run(main())
    calls, acts = records(tmp_path), records(tmp_path, "act")
    assert [(one["outcome"], one.get("reason", "")) for one in calls] == [
        ("rejected", "unauthenticated"),
        ("rejected", "model_not_found"),
        ("completed", ""),
        ("rejected", "rate_limited"),
    ]
    assert "tenant" not in calls[0] and "model" not in calls[1] and calls[3]["key"] == "poor"
    assert [(one["endpoint"], one["outcome"], one.get("reason")) for one in acts] == [
        ("unknown", "rejected", "not_found"),
        ("/admin/cache/purge", "rejected", "forbidden"),
        ("/admin/cache/purge", "completed", None),
        ("ListModels", "rejected", "unauthenticated"),
    ]
    assert acts[1]["key"] == "poor" and acts[2]["key"] == "acme"
    assert json.loads(acts[2]["detail"])["tenant"] == "acme"
    written = b"".join(file.read_bytes() for file in (tmp_path / "audit").rglob("*.jsonl")).decode()
    assert PERSON not in written and "6222" not in written and "key-of-poor" not in written


def test_a_client_that_leaves_leaves_a_record(tmp_path: Path) -> None:
    async def main() -> None:
        async with audited_mesh(tmp_path, experts={"sim_step_s": 0.02}) as mesh:
            body = {"model": "sim", "prompt": "abcd", "max_tokens": 3000, "stream": True, "ignore_eos": True}
            response = await mesh.post("/v1/completions", body)
            events = response.events()
            for _ in range(3):
                await anext(events)
            response.hang_up()
            async with asyncio.timeout(20):
                while mesh.gateways[0].mesh.audit._open:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)

    asyncio.run(main())
    (record,) = records(tmp_path)
    assert (record["outcome"], record["reason"]) == ("cancelled", "client_cancelled")
    assert record["completion_tokens"] >= 3 and record["answer"]


def test_every_call_for_a_kept_answer_is_a_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with audited_mesh(tmp_path) as mesh:
            body, headers = {"model": "sim", "prompt": "abcd", "max_tokens": 6}, {"idempotency-key": "once"}
            first = await mesh.json("/v1/completions", body, headers=headers)
            again = await mesh.json("/v1/completions", body, headers=headers)
            assert first["choices"] == again["choices"]
            cached = {"model": "sim", "prompt": "efgh", "max_tokens": 6, "temperature": 0}
            await mesh.json("/v1/completions", cached)
            async with asyncio.timeout(20):
                while (await mesh.post("/v1/completions", cached)).headers["x-cache"] != "hit":
                    pass
            asked = {"model": "sim", "input": "abcd", "max_output_tokens": 6, "store": False}
            await mesh.json("/v1/responses", asked)

    asyncio.run(main())
    first, again, made, *_, kept, response = records(tmp_path)
    assert "journal" not in first and again["journal"] == "replayed" and again["answer"] == first["answer"]
    assert (made["cache"], kept["cache"]) == ("miss", "hit") and made["answer"] == kept["answer"]
    assert first["prompt"] == again["prompt"] != made["prompt"]
    assert response["endpoint"] == "/v1/responses" and response["answer"]


@pytest.mark.parametrize(("on_failure", "status"), [("refuse", 503), ("serve", 200)])
def test_a_log_that_cannot_be_written(tmp_path: Path, on_failure: str, status: int) -> None:
    async def main() -> None:
        async with audited_mesh(tmp_path, audit={"on_failure": on_failure}) as mesh:
            audit = mesh.gateways[0].mesh.audit
            assert audit is not None
            seat, body = audit.log._seat, {"model": "sim", "prompt": "x", "max_tokens": 2}

            def broken(fd: int, data: memoryview) -> int:
                raise OSError(28, "No space left on device")

            write, seat._write = seat._write, broken
            await mesh.json("/v1/completions", body)
            async with asyncio.timeout(20):
                while not audit.log._failing:
                    await asyncio.sleep(0.005)
            response = await mesh.post("/v1/completions", body)
            answer = json.loads(await response.read())
            assert response.status == status
            if status == 503:
                assert answer["error"]["code"] == "audit_unavailable"
                assert (await mesh.get("/readyz"))[0] == 503
            seat._write = write
            async with asyncio.timeout(20):
                while audit.log._failing:
                    await asyncio.sleep(0.005)
            await mesh.json("/v1/completions", body)

    asyncio.run(main())
    calls, (gap,) = records(tmp_path), records(tmp_path, "gap")
    assert len(calls) == (3 if status == 200 else 2)
    assert (gap["why"], gap.get("refused", 0)) == ("No space left on device", 1 if status == 503 else 0)


def test_embeddings_are_calls_too(tmp_path: Path) -> None:
    async def main() -> None:
        settings = {"audit": {"directory": str(tmp_path / "audit"), "flush_ms": 1}}
        async with rig(tmp_path, gateway=settings) as embeddings:
            asked = {"model": NAME, "input": SECRET_PROMPT, "user": PERSON}
            assert (await embeddings.http(asked))[0] == 200
            await embeddings.grpc(ParseDict({"model": NAME, "inputs": [SECRET_PROMPT]}, pb.EmbedRequest()))
            assert (await embeddings.http(asked, tenant="nobody"))[0] == 401

    asyncio.run(main())
    http, grpc, refused = records(tmp_path)
    assert (http["endpoint"], grpc["endpoint"]) == ("/v1/embeddings", "Embed")
    same = ("outcome", "tenant", "key", "address", "kind", "model", "policy", "prompt_tokens", "prompt")
    assert {name: http.get(name) for name in same} == {name: grpc.get(name) for name in same}
    assert http["model"] == NAME and http["prompt_tokens"] > 0 and http["person"]
    assert refused["reason"] == "unauthenticated"
    written = b"".join(file.read_bytes() for file in (tmp_path / "audit").rglob("*.jsonl")).decode()
    assert "6222" not in written and PERSON not in written


def test_auditors_read_and_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        add = json_key_store.add
        keys, audit = tmp_path / "keys.json", Permission.AUDIT
        add(keys, "key-of-auditor", key_id="auditor", tenant="office", permissions=(audit,))
        both = (audit, Permission.GENERATE, Permission.OPERATE)
        add(keys, "key-of-both", key_id="both", tenant="office", permissions=both)
        async with audited_mesh(tmp_path) as mesh:
            body = {"model": "sim", "prompt": "x", "max_tokens": 2}
            await mesh.json("/v1/completions", body)
            async with asyncio.timeout(20):
                while mesh.gateways[0].mesh.audit.log._pending:  # type: ignore[union-attr]
                    await asyncio.sleep(0.005)
            await asyncio.to_thread(mesh.gateways[0].mesh.audit.log.flush)  # type: ignore[union-attr]
            for tenant, status in (("acme", 403), ("key-of-both", 403), ("nobody", 401)):
                refused = await mesh.post("/audit", {"event": "call"}, tenant=tenant)
                await refused.read()
                assert refused.status == status
            found = await mesh.post("/audit", {"event": "call", "tenant": "acme"}, tenant="key-of-auditor")
            (line,) = (await found.read()).splitlines()
            assert found.status == 200 and json.loads(line)["completion_tokens"] == 2
            for path in ("/v1/completions", "/admin/queue"):
                refused = await mesh.post(path, body, tenant="key-of-auditor")
                await refused.read()
                assert refused.status == 403

    asyncio.run(main())
    # What an auditor's key asks of a model is a call, refused.
    assert [(one["key"], one["outcome"]) for one in records(tmp_path, "act") if one.get("key") == "auditor"] == [
        ("auditor", "completed"), ("auditor", "rejected")
    ]  # fmt: skip
