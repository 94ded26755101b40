"""Overflow to a remote server: who leaves, what leaves, what comes back; whatever the remote does, the client is told
in time what it would be told without it, or that half an answer is half an answer."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from typer.testing import CliRunner

from services.cli.keys import app
from services.client.grpc_client import CallFailed, MeshClient, pb
from services.config_remote import RemoteConfig
from services.gateway import json_key_store
from services.quota.allowance import Allowance
from services.quota.memory_store import MemoryQuotaStore
from tests.certificates import Authority
from tests.mesh.local_mesh import LocalMesh, local_mesh
from tests.mesh.overflowing import (
    CHAT,
    GUEST,
    SECRET_THERE,
    chat,
    figures,
    overflow_of,
    overflowing,
    remote_config,
    remote_server,
    until,
)

ALL = "One two three four five"


async def ask(
    mesh: LocalMesh, text: str = "hello", **more: Any
) -> tuple[int, dict[str, str], dict[str, Any]]:
    headers, tenant = more.pop("headers", None), more.pop("tenant", GUEST)
    response = await mesh.post(CHAT, chat(text, **more), tenant=tenant, headers=headers)
    return response.status, response.headers, json.loads(await response.read())


async def streamed(mesh: LocalMesh, text: str, **more: Any) -> tuple[int, str, list[dict[str, Any]]]:
    """Status, text, events."""
    response = await mesh.post(CHAT, chat(text, stream=True, **more), tenant=GUEST)
    if response.status != 200:
        return response.status, "", [json.loads(await response.read())]
    events = [event async for event in response.events()]
    said = [event["choices"][0]["delta"].get("content") or "" for event in events if event.get("choices")]
    return response.status, "".join(said), events


def test_what_the_queue_refuses_is_answered_elsewhere_for_those_who_may_leave(tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = {"audit": {"directory": str(tmp_path / "audit"), "flush_ms": 1}}
        async with (
            remote_server(tmp_path) as (port, noted),
            overflowing(tmp_path, remote_config(tmp_path, port), gateway=gateway) as mesh,
        ):
            status, headers, body = await ask(mesh, user="anna@example.com", temperature=0.5)
            assert (status, headers["x-served-by"]) == (200, "remote")
            choice = body["choices"][0]
            assert (choice["message"]["content"], choice["finish_reason"]) == (ALL, "stop")
            assert body["model"] == "sim"
            tokens = len(ALL) // 4 + 1 + 1  # of the simulated tokenizer: four bytes each, and the end
            assert body["usage"]["completion_tokens"] == tokens
            (sent,) = noted()
            assert sent["body"] == {
                "model": "big-one", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 32,
                "temperature": 0.5, "top_p": 1.0, "stream": True,
            }  # fmt: skip
            names = {line.split(":")[0] for line in sent["head"].splitlines()[1:] if line}
            assert names == {
                "host", "accept", "accept-encoding", "connection", "user-agent", "authorization", "content-type",
                "content-length",
            }  # fmt: skip
            assert f"authorization: bearer {SECRET_THERE}" in sent["head"]
            assert not any(word in json.dumps(sent) for word in ("guest", "anna", body["id"]))
            # Others, and who asks to stay, are refused as before.
            for who in ({"tenant": "rival"}, {"headers": {"x-locality": "local"}}):
                status, headers, body = await ask(mesh, **who)
                assert (status, body["error"]["code"]) == (429, "queue_full")
                assert "x-served-by" not in headers
            assert (await ask(mesh, headers={"x-locality": "remote"}))[2]["error"]["param"] == "x-locality"
            status, said, events = await streamed(mesh, "hello", stream_options={"include_usage": True})
            assert (status, said, events[-1]["usage"]["completion_tokens"]) == (200, ALL, tokens)
            assert len(noted()) == 2
            # Nobody's answer is another's: the same question is asked again.
            assert (await ask(mesh, "hello", temperature=0))[0] == 200
            assert (await ask(mesh, "hello", temperature=0))[1]["x-cache"] == "miss"
            assert len(noted()) == 4
            assert figures(mesh, "remote_requests_total") == {"completed queue_full": 4.0}
            stayed = figures(mesh, "remote_stayed_total")
            assert stayed["asked"] == 1.0 and stayed["key"] >= 1.0
            spent = figures(mesh, "remote_tokens_total")
            assert spent["queue_full completion"] == 4 * tokens
        left = [record for record in audited(tmp_path) if record.get("left")]
        assert [(one["tenant"], one["remote"], one["left"], one["outcome"]) for one in left] == [
            ("guest", f"127.0.0.1:{port}", "queue_full", "completed")
        ] * 4
        assert SECRET_THERE not in "".join(map(json.dumps, audited(tmp_path)))

    asyncio.run(scenario())


def audited(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for file in (folder / "audit").rglob("*.jsonl") for line in file.open()]
    return [line for line in lines if line.get("event") == "call"]


BEFORE = ["500", "429", "401", "400", "307", "json", "gzip", "mute", "comments", "hang 0", "cut 0", "done 0",
          "garbage 0", "html 0", "deep 0", "error 0", "index 0", "tools 0", "type 0", "surrogate 0", "endless 0",
          "finish 0", "utf8 0"]  # fmt: skip
AFTER = [what.replace("0", "2") for what in BEFORE if what.endswith(" 0")]


def test_a_remote_that_fails_before_its_first_word_costs_nobody_a_different_refusal(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with remote_server(tmp_path) as (port, noted):
            config = remote_config(tmp_path, port, first_timeout_s=0.4, idle_timeout_s=0.4)
            async with overflowing(tmp_path, config) as mesh:
                for what in BEFORE:
                    for stream in (False, True):
                        overflow_of(mesh).gate.breaker.__init__(trip_after=1000)
                        if stream:
                            status, _, (body,) = await streamed(mesh, what)
                        else:
                            status, headers, body = await ask(mesh, what)
                            assert "x-served-by" not in headers
                        assert (status, body["error"]["code"]) == (429, "queue_full"), (what, body)
                assert len([one for one in noted() if "body" in one]) == 2 * len(BEFORE)
                assert overflow_of(mesh).gate.num_visits == 0

    asyncio.run(scenario())


def test_half_an_answer_ends_with_an_error_and_what_was_said_was_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with remote_server(tmp_path) as (port, _):
            config = remote_config(tmp_path, port, idle_timeout_s=0.4)
            async with overflowing(tmp_path, config) as mesh:
                for what in [*AFTER, "flood"]:
                    overflow_of(mesh).gate.breaker.__init__(trip_after=1000)
                    status, said, events = await streamed(mesh, what)
                    assert status == 200 and said.startswith("word" if what == "flood" else "One two"), what
                    assert events[-1]["error"]["code"] == "engine_lost", what
                    assert "secret" not in json.dumps(events)
                    overflow_of(mesh).gate.breaker.__init__(trip_after=1000)
                    status, _, body = await ask(mesh, what)
                    assert (status, body["error"]["code"]) == (503, "engine_lost"), what
                assert overflow_of(mesh).gate.num_visits == 0

    asyncio.run(scenario())


def test_bytes_come_one_by_one_and_the_answer_is_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            remote_server(tmp_path) as (port, _),
            overflowing(tmp_path, remote_config(tmp_path, port)) as mesh,
        ):
            assert (await streamed(mesh, "bytes"))[1] == ALL

    asyncio.run(scenario())


def test_what_comes_back_is_filtered_stopped_and_labelled_like_ours(tmp_path: Path) -> None:
    async def scenario() -> None:
        post = {"blocked_words": ("badword",), "label_text": "(by AI)", "label_producer": "me"}
        async with (
            remote_server(tmp_path) as (port, noted),
            overflowing(tmp_path, remote_config(tmp_path, port), postprocess=post) as mesh,
        ):
            status, headers, body = await ask(mesh, "say a bad|word here")
            choice = body["choices"][0]
            assert status == 200 and "x-aigc" in headers
            assert choice["message"]["content"].startswith("a ******* here")
            assert choice["message"]["content"].endswith("(by AI)")
            assert choice["finish_reason"] == "length"
            _, _, body = await ask(mesh, "say abc S|T|OP def", stop=["STOP"])
            choice = body["choices"][0]
            assert (
                choice["message"]["content"].startswith("abc ") and "OP" not in choice["message"]["content"]
            )
            assert choice["finish_reason"] == "stop"
            before = len(noted())
            # What must not be read elsewhere is not sent there.
            for text in (
                "my number is 13812345678",
                "write to anna@example.com",
                "key sk-abcdefghij0123456789",
            ):
                assert (await ask(mesh, text))[0] == 429
            assert len(noted()) == before
            assert figures(mesh, "remote_stayed_total")["personal"] == 3.0

    asyncio.run(scenario())


def test_who_leaves_closes_the_remote_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            remote_server(tmp_path) as (port, noted),
            overflowing(tmp_path, remote_config(tmp_path, port)) as mesh,
        ):
            response = await mesh.post(CHAT, chat("hang", stream=True), tenant=GUEST)
            async for event in response.events():
                assert event
                break
            assert overflow_of(mesh).gate.num_visits == 1
            response.hang_up()
            await until(lambda: {"closed": "hang"} in noted())
            await until(lambda: overflow_of(mesh).gate.num_visits == 0)
            assert figures(mesh, "remote_requests_total") == {"cancelled queue_full": 1.0}
            status, _, body = await ask(mesh, "mute", headers={"x-request-timeout-s": "0.5"})
            assert (status, body["error"]["code"]) == (504, "deadline_exceeded")

    asyncio.run(scenario())


def test_a_dead_remote_is_tried_once_a_pause(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            config = remote_config(tmp_path, closed.getsockname()[1])
            async with overflowing(tmp_path, config) as mesh:
                for _ in range(5):
                    assert (await ask(mesh))[2]["error"]["code"] == "queue_full"
                assert figures(mesh, "remote_requests_total") == {"connect queue_full": 1.0}
                assert figures(mesh, "remote_stayed_total")["paused"] == 4.0

    asyncio.run(scenario())


def test_places_there_are_counted_and_a_vip_is_answered_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with remote_server(tmp_path) as (port, noted):
            config = remote_config(tmp_path, port, max_concurrent=2)
            async with overflowing(tmp_path, config) as mesh:
                hanging = [
                    await mesh.post(CHAT, chat("hang", stream=True, temperature=0), tenant=GUEST)
                    for _ in range(2)
                ]
                assert [one.status for one in hanging] == [200, 200]
                assert (await ask(mesh))[2]["error"]["code"] == "queue_full"
                assert figures(mesh, "remote_stayed_total")["full"] == 1.0
                status, headers, _ = await ask(
                    mesh, "urgent", tenant="acme", priority_band="vip", max_tokens=2
                )
                assert status == 200 and "x-served-by" not in headers
                assert len(noted()) == 2
                for one in hanging:
                    one.hang_up()

    asyncio.run(scenario())


def test_grpc_means_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            remote_server(tmp_path) as (port, noted),
            overflowing(tmp_path, remote_config(tmp_path, port, idle_timeout_s=0.4)) as mesh,
        ):
            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            async with MeshClient(address, GUEST) as client:
                whole = await client.chat(_chat("hello"))
                assert (whole.choices[0].content, whole.served_by) == (ALL, "remote")
                events = [event async for event in client.stream_chat(_chat("hello"))]
                assert events[0].begin.served_by == "remote"
                assert "".join(event.delta.text for event in events) == ALL
                call = client._channel.unary_unary("/expertmesh.v1.Inference/GenerateChat")(
                    _chat("hello").SerializeToString(), metadata=client._metadata
                )
                await call
                assert ("x-served-by", "remote") in list(await call.trailing_metadata())
                with pytest.raises(CallFailed) as cut:
                    [event async for event in client.stream_chat(_chat("cut 2"))]
                assert cut.value.reason == "ENGINE_LOST"
                sent = len(noted())
                client._metadata = (*client._metadata, ("x-locality", "local"))
                with pytest.raises(CallFailed) as stays:
                    await client.chat(_chat("hello"))
                assert stays.value.reason == "QUEUE_FULL" and len(noted()) == sent

    asyncio.run(scenario())


def _chat(text: str) -> pb.ChatRequest:
    fields = {
        "model": "sim",
        "messages": [{"role": "ROLE_USER", "content": text}],
        "sampling": {"max_tokens": 32},
    }
    return ParseDict(fields, pb.ChatRequest())


def test_tls_is_verified_and_no_proxy_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    ours, theirs = Authority("ours"), Authority("theirs")
    pair = ours.issue(tmp_path, "remote")
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    good, bad = ours.write(tmp_path, "ca-good"), theirs.write(tmp_path, "ca-bad")

    async def scenario() -> None:
        async with remote_server(tmp_path, *pair) as (port, noted):
            for folder, ca, status in (("good", good, 200), ("bad", bad, 429), ("bad", "", 429)):
                config = remote_config(tmp_path, port, "https", ca_file=str(ca))
                async with overflowing(tmp_path / folder, config) as mesh:
                    assert (await ask(mesh))[0] == status, (folder, ca)
                    if status == 429:
                        expected = {"tls queue_full": 1.0}
                        assert figures(mesh, "remote_requests_total") == expected
            assert len(noted()) == 1

    asyncio.run(scenario())


def test_while_no_engine_moves_a_mesh_elsewhere_answers(tmp_path: Path) -> None:
    """The remote is a gateway of ours, with the same model: the same bill for the same text."""
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()

    async def scenario() -> None:
        async with local_mesh(tmp_path / "there", engines=1) as there:
            key_file = tmp_path / "key"
            key_file.write_text("key-of-acme")
            config = RemoteConfig(
                url=f"http://127.0.0.1:{there.port()}/v1", model="sim", key_file=str(key_file)
            )
            async with overflowing(
                tmp_path / "here", config, full=False, experts={"sim_step_s": 0.0}
            ) as here:
                status, headers, local = await ask(here, temperature=0)
                assert status == 200 and "x-served-by" not in headers
                await here.ranks[0].stop()
                readiness = here.gateways[0].mesh.readiness
                readiness._proven_s = None  # as after ten seconds without a token
                asked = {"temperature": 0, "headers": {"cache-control": "no-cache"}}
                status, headers, body = await ask(here, **asked)
                assert (status, headers.get("x-served-by")) == (200, "remote")
                assert body["choices"] == local["choices"] and body["usage"] == local["usage"]
                # Who may not leave waits for an engine, as ever.
                readiness._proven_s = None
                waits = {"cache-control": "no-cache", "x-request-timeout-s": "0.3", "x-locality": "local"}
                status, _, body = await ask(here, temperature=0, headers=waits)
                assert (status, body["error"]["code"]) == (504, "deadline_exceeded")

    asyncio.run(scenario())


def test_a_remote_answer_costs_the_key_what_a_local_one_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with remote_server(tmp_path) as (port, _):
            allowance = Allowance(tokens_per_day=1000)
            async with overflowing(tmp_path, remote_config(tmp_path, port), allowance=allowance) as mesh:
                _, _, body = await ask(mesh)
                store = mesh.gateways[0].mesh.quotas._store
                assert isinstance(store, MemoryQuotaStore)
                await until(lambda: _used(store) == body["usage"]["total_tokens"])
                assert (await ask(mesh, "garbage 0"))[0] == 429  # nothing was said, so nothing is owed
                await until(lambda: _used(store) == body["usage"]["total_tokens"])

    asyncio.run(scenario())


def _used(store: MemoryQuotaStore) -> float:
    (levels,) = store._levels.values()
    return levels.day_tokens


def test_the_command_opens_and_closes_the_door(tmp_path: Path) -> None:
    keys_file = ["--file", str(tmp_path / "keys.json")]
    runner = CliRunner()
    assert runner.invoke(app, ["add", "news", "--id", "n", "--may-leave", *keys_file]).exit_code == 0
    assert "may leave" in runner.invoke(app, ["list", *keys_file]).stdout
    assert runner.invoke(app, ["locality", "n", "--stays", *keys_file]).exit_code == 0
    assert not json_key_store.load(tmp_path / "keys.json").keys[0].may_leave
    assert runner.invoke(app, ["locality", "n", "--may-leave", *keys_file]).exit_code == 0
    assert json_key_store.load(tmp_path / "keys.json").keys[0].may_leave
    assert runner.invoke(app, ["locality", "nobody", "--stays", *keys_file]).exit_code == 2
