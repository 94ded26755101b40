"""Labels for AI-generated content through a whole mesh: once per answer, at its end, for people; in the metadata, for
programs; the same from the cache, over both wires, and when an engine or a gateway goes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from services.client.grpc_client import MeshClient, pb
from services.postprocess.policy import Policy
from tests.mesh.local_mesh import KEYS, LocalMesh, local_mesh

LABEL = "（本内容由人工智能生成）"
LABELLED = {"label_text": LABEL, "label_producer": "某公司 91310000"}
CHAT: dict[str, Any] = {
    "model": "sim",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 12,
    "temperature": 0,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {
    "n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}}}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


async def asked(
    mesh: LocalMesh, body: dict[str, Any], path: str = "/v1/chat/completions", **options: Any
) -> tuple[Any, Any]:
    """Headers and body of an answer; of a stream, its events."""
    response = await mesh.post(path, body, **options)
    page = (await response.read()).decode()
    assert response.status == 200, page
    if body.get("stream"):
        return response.headers, [
            json.loads(line[6:]) for line in page.splitlines() if line.startswith("data: {")
        ]
    return response.headers, json.loads(page)


def texts(events: list[dict[str, Any]]) -> dict[int, str]:
    said: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            said[choice["index"]] = said.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return said


def test_answers_to_people_end_with_it_and_all_say_it_to_programs(tmp_path: Path) -> None:
    async def run() -> None:
        (tmp_path / "plain").mkdir()
        async with local_mesh(tmp_path / "plain") as mesh:
            headers, plain = await asked(mesh, CHAT | {"n": 2})
            assert "x-aigc" not in headers
        async with local_mesh(tmp_path, postprocess=LABELLED) as mesh:
            wanted = [choice["message"]["content"] + "\n\n" + LABEL for choice in plain["choices"]]
            headers, answer = await asked(mesh, CHAT | {"n": 2})
            assert [choice["message"]["content"] for choice in answer["choices"]] == wanted
            assert answer["usage"] == plain["usage"]
            assert [c["finish_reason"] for c in answer["choices"]] == [
                c["finish_reason"] for c in plain["choices"]
            ]
            label = {
                "Label": "1",
                "ContentProducer": LABELLED["label_producer"],
                "ProduceID": headers["x-request-id"],
            }
            said = json.dumps({"AIGC": label}, separators=(",", ":")).lower()  # as our client reads headers
            assert headers["x-aigc"] == said
            headers, events = await asked(mesh, CHAT | {"n": 2, "stream": True})
            assert headers["x-cache"] == "hit" and texts(events) == dict(enumerate(wanted))
            fresh = {"cache-control": "no-store"}
            _, events = await asked(mesh, CHAT | {"n": 2, "stream": True}, headers=fresh)
            assert texts(events) == dict(enumerate(wanted))
            _, answer = await asked(mesh, {"prompt": "hello", "max_tokens": 4, "temperature": 0}, "/generate")
            assert answer["response"].endswith("\n\n" + LABEL)
            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            request = pb.ChatRequest(
                model="sim", messages=[pb.Message(role=pb.ROLE_USER, content="hello")],
                sampling=pb.Sampling(max_tokens=12, temperature=0, n=2),
            )  # fmt: skip
            async with MeshClient(address, KEYS["acme"], deadline_s=60.0) as client:
                whole = await client.chat(request)
                assert [choice.content for choice in whole.choices] == wanted
                assert json.loads(whole.aigc)["AIGC"]["ProduceID"] == whole.request_id
                stream = [event async for event in client.stream_chat(request)]
                assert json.loads(stream[0].begin.aigc)["AIGC"]["Label"] == "1"
                text = await client.text(
                    pb.TextRequest(
                        model="sim", prompts=[pb.Prompt(text="x")], sampling=pb.Sampling(max_tokens=3)
                    )
                )
                assert text.aigc and LABEL not in text.choices[0].text

    asyncio.run(run())


def test_what_programs_read_stays_as_it_is(tmp_path: Path) -> None:
    async def run() -> None:
        async with local_mesh(tmp_path, postprocess=LABELLED) as mesh:
            headers, answer = await asked(mesh, CHAT | {"response_format": SCHEMA, "max_tokens": 60})
            assert (
                json.loads(answer["choices"][0]["message"]["content"]).keys() == {"n"} and headers["x-aigc"]
            )
            forced = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60}
            _, answer = await asked(mesh, CHAT | forced)
            message = answer["choices"][0]["message"]
            assert message["tool_calls"] and LABEL not in (message["content"] or "")
            _, answer = await asked(
                mesh, {"model": "sim", "prompt": "def f(", "max_tokens": 4}, "/v1/completions"
            )
            assert LABEL not in answer["choices"][0]["text"]
            thinking = CHAT | {"chat_template_kwargs": {"thinking": True}, "max_tokens": 2}
            _, answer = await asked(mesh, thinking)
            assert LABEL not in json.dumps(answer, ensure_ascii=False), (
                "cut off while it thought: nothing was said"
            )

    asyncio.run(run())


def test_it_is_there_once_whoever_dies_and_whatever_is_kept(tmp_path: Path) -> None:
    async def run() -> None:
        async with local_mesh(tmp_path, gateways=2, postprocess=LABELLED) as mesh:
            long = CHAT | {"max_tokens": 300, "stream": True}
            fresh = {"cache-control": "no-store"}
            _, events = await asked(mesh, long, headers=fresh)
            wanted = texts(events)
            assert wanted[0].count(LABEL) == 1
            response = await mesh.post("/v1/chat/completions", long, headers=fresh)
            broken: list[dict[str, Any]] = []
            async for event in response.events():
                broken.append(event)
                if len(broken) == 15:
                    await max(
                        mesh.ranks, key=lambda rank: len(rank.streams)
                    ).stop()  # as kill -9 looks from outside
            assert texts(broken) == wanted
            key = fresh | {"idempotency-key": "kept"}
            _, events = await asked(mesh, long, headers=key)
            headers, again = await asked(mesh, long, headers=key, gateway=1)
            assert headers["idempotent-replayed"] == "true" and headers["x-aigc"]
            assert texts(events) == texts(again) == wanted
            await asked(mesh, CHAT)
            mesh.policies.put_nowait(Policy(label_text="AI-generated"))
            while mesh.gateways[0].mesh.policy.policy.label_text != "AI-generated":
                await asyncio.sleep(0.005)
            headers, answer = await asked(mesh, CHAT)
            assert headers["x-cache"] == "miss" and "x-aigc" not in headers
            assert answer["choices"][0]["message"]["content"].endswith("\n\nAI-generated")

    asyncio.run(run())


def test_the_rest_of_a_stream_is_the_same_from_every_place(tmp_path: Path) -> None:
    async def run() -> None:
        async with local_mesh(tmp_path, gateways=2, postprocess=LABELLED) as mesh:
            key = {"cache-control": "no-store", "idempotency-key": "rest"}
            body = CHAT | {"stream": True, "n": 2, "temperature": 1, "seed": 5}

            async def read(**headers: str) -> list[tuple[str, str, dict[int, str]]]:
                """(event id, finish reasons, what was said) of each event of the stream."""
                response = await mesh.post(
                    "/v1/chat/completions", body, headers=key | headers, gateway=1 if headers else 0
                )
                page = (await response.read()).decode()
                assert response.status == 200, page
                found, last = list[tuple[str, str, dict[int, str]]](), ""
                for line in page.splitlines():
                    if line.startswith("id: "):
                        last = line[4:]
                    elif line.startswith("data: {"):
                        event = json.loads(line[6:])
                        ends = "".join(str(c["finish_reason"] or "") for c in event["choices"])
                        found.append((last, ends, texts([event])))
                return found

            def joined(events: list[tuple[str, str, dict[int, str]]]) -> dict[int, str]:
                return {n: "".join(said.get(n, "") for _, _, said in events) for n in range(2)}

            whole = await read()
            assert all(text.endswith(LABEL) and text.count(LABEL) == 1 for text in joined(whole).values())
            places = [i for i, (event_id, _, _) in enumerate(whole, 1) if event_id]
            assert len(places) > 10
            for place in places:
                rest = await read(**{"last-event-id": whole[place - 1][0]})
                assert joined(whole[:place] + rest) == joined(whole), whole[place - 1]

    asyncio.run(run())
