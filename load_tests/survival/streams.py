"""Streams of every class that the simulated model can be asked for, each compared with what it must say.

Rules: a client that costs little (200 streams at 50 tokens a second run beside the mesh on two cores), no judgement of
times; what the simulated model answers is a function of the prompt (services/experts/sim_answers.py), so every lost,
doubled or foreign token is a wrong answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import orjson

from services.experts.sim_answers import expected_ids
from services.request import GuidedDecoding, SamplingParams
from services.sim_tokenizer import decode, encode
from services.text.sim_text import SimTokenizer

from .differences import differences

KINDS = ("plain", "sampled", "choices", "stop", "logprobs", "schema", "chat", "unary")
RESUMABLE = ("plain", "sampled", "choices")
"""Classes that are asked with an idempotency key where gateways are killed."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 20},
        "n": {"type": "integer"},
    },
    "required": ["tags", "n"],
}
GIVE_UP_S = 120.0


class _Patience:
    """A time limit that counts while this process runs: where the whole host stood still, nobody was late."""

    def __init__(self, limit_s: float) -> None:
        self._left = round(limit_s)

    async def wait(self, work: Coroutine[Any, Any, None]) -> None:
        """Raises TimeoutError, and what the work raises."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait((task,), timeout=1.0))[0]:
                self._left -= 1
                if self._left <= 0:
                    raise TimeoutError
        finally:
            task.cancel()
        await task


class Failed(Exception):
    """What the client was told instead of an answer, or what is wrong with it."""


class Stream:
    """One request, by `person` (a session that sticks) if given; right when one of `revisions` wrote all of it, which
    is then `revision` ("": the simulated model without a revision of its own). `event_s` are times of its events
    (monotonic); `error` is "" when every token was right."""

    def __init__(
        self,
        kind: str,
        number: int,
        tokens: int = 200,
        *,
        salt: str = "",
        person: str = "",
        revisions: tuple[str, ...] = ("",),
    ) -> None:
        self.kind, self.number, self.tokens, self.person = kind, number, tokens, person
        self.prompt = f"{kind} {salt}{number}"
        self.revisions = revisions
        self.revision: str | None = None
        self.event_s: list[float] = []
        self.error = ""
        self.done = False
        self.connections = 0
        self.resumed_s: list[float] = []
        self.lost_s = 0.0
        self.waited: list[str] = []
        """What it met on its way back, since it lost its connection; of the longest way kept in `longest_way`."""
        self.longest_way: tuple[float, list[str]] = (0.0, [])
        self.last_id = ""
        self.kept = False
        self.begun_anew = 0
        """How often it lost an answer that was not kept, and told so: a busy journal is not waited for."""
        self.texts: dict[int, str] = {}
        self.usage: dict[str, int] = {}

    @property
    def longest_gap_s(self) -> float:
        """Between any two of its events in a row; 0.0 with fewer than two."""
        return max(map(float.__sub__, self.event_s[1:], self.event_s), default=0.0)

    # what is asked, what must come ------------------------------------------------------------------------

    def body(self) -> tuple[str, dict[str, Any]]:
        """Path and body."""
        body: dict[str, Any] = {"model": "sim", "max_tokens": self.tokens, "temperature": 0}
        if self.person:
            body["user"] = self.person
        if self.kind != "unary":
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.kind in ("schema", "chat"):
            body["messages"] = [{"role": "user", "content": self.prompt}]
            if self.kind == "schema":
                body["max_tokens"] = 2 * self.tokens
                body["response_format"] = {
                    "type": "json_schema",
                    "json_schema": {"name": "t", "schema": SCHEMA},
                }
            return "/v1/chat/completions", body
        body["prompt"] = self.prompt
        match self.kind:
            case "sampled":
                body |= {"temperature": 1.0, "seed": self.number}
            case "choices":
                body["n"] = 2
            case "logprobs":
                body["logprobs"] = 1
            case "stop":
                body["stop"] = [self.stop()]
            case _:
                pass
        return "/v1/completions", body

    def stop(self) -> str:
        """A stop string that lies across tokens, far into the answer. The prompt alone decides it, whoever answers."""
        text = self._said(self.revisions[0])
        at = len(text) * 5 // 8
        return text[at : at + 12]

    def _said(self, revision: str, seed: int | None = None) -> str:
        params = SamplingParams(self.tokens, temperature=0.0 if seed is None else 1.0, seed=seed)
        prompt = encode(self.prompt)
        if self.kind in ("schema", "chat"):
            prompt = SimTokenizer().render_chat([{"role": "user", "content": self.prompt}])
        if self.kind == "schema":
            guided = GuidedDecoding("json_schema", msgspec.json.encode(SCHEMA).decode())
            params = SamplingParams(2 * self.tokens, temperature=0.0, guided=guided)
        return decode(expected_ids(prompt, params.max_tokens, params, adapter=revision)).decode()

    def expected(self, revision: str) -> dict[int, str]:
        """The text of each choice, as this revision of the model says it."""
        match self.kind:
            case "sampled":
                return {0: self._said(revision, self.number)}
            case "choices":
                return dict.fromkeys((0, 1), self._said(revision))
            case "stop":
                text = self._said(revision)
                at = text.find(self.stop())
                return {0: text if at < 0 else text[:at]}
            case _:
                return {0: self._said(revision)}

    # the client -------------------------------------------------------------------------------------------

    async def run(
        self, port: int, key: str, *, resumable: bool = False, headers: str = "cache-control: no-store\r\n"
    ) -> None:
        """To the end. With `resumable` the client brings a key and comes back, whatever breaks, with its last event id;
        without, a broken connection is a failure. Never raises."""
        patience = _Patience(GIVE_UP_S)
        while not self.done and not self.error:
            more = headers
            if resumable:
                more += f"idempotency-key: {self.prompt.replace(' ', '-')}\r\n"
                more += f"last-event-id: {self.last_id}\r\n" if self.last_id else ""
            try:
                self.connections += 1
                await patience.wait(self._connect(port, key, more, resumable))
            except TimeoutError:
                self.error = "no end in sight"
            except Failed as failed:
                self.error = str(failed)
            except (OSError, asyncio.IncompleteReadError) as broken:
                self._met(f"{type(broken).__name__} {broken}")
                if not resumable:
                    self.error = f"connection: {broken!r}"
            if not self.done and not self.error:
                if not self.lost_s:
                    self.lost_s, self.waited = time.monotonic(), [f"after {len(self.event_s)} events"]
                await asyncio.sleep(0.02)
        if not self.error:
            self.error = self._wrong()

    def _met(self, what: str) -> None:
        if self.lost_s:
            self.waited.append(f"{time.monotonic() - self.lost_s:.2f} {what}")

    def _back(self, now_s: float) -> None:
        took_s, self.lost_s = now_s - self.lost_s, 0.0
        self.resumed_s.append(took_s)
        self.longest_way = max(self.longest_way, (took_s, self.waited))

    async def _connect(self, port: int, key: str, headers: str, resumable: bool) -> None:
        path, body = self.body()
        data = json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        try:
            writer.write(
                f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n{headers}"
                f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n".encode()
                + data
            )
            status = (await reader.readline()).split()
            if len(status) < 3:
                raise ConnectionError("closed before an answer")
            self._met(f"status {status[1].decode()}")
            if status[1] != b"200":
                rest = (await reader.read()).partition(b"\r\n\r\n")[2].decode(errors="replace")[:300]
                if resumable and status[1] == b"503":
                    await asyncio.sleep(0.05)
                    return
                raise Failed(f"{status[1].decode()}: {rest}")
            if self.kind == "unary":
                await self._read_whole(reader)
                return
            names: dict[bytes, bytes] = {}
            while line := (await reader.readline()).strip():
                name, _, value = line.lower().partition(b": ")
                names[name] = value
            self._begin(names)
            await self._read_events(reader)
        finally:
            writer.close()

    def _begin(self, names: dict[bytes, bytes]) -> None:
        """An answer's head. Who was told that its answer is not kept, and lost it, begins anew."""
        if self.texts and not self.last_id:
            if self.kept:
                raise Failed("it is kept, and has no event ids")
            self.texts, self.usage, self.begun_anew = {}, {}, self.begun_anew + 1
        self.kept = names.get(b"x-resumable") == b"true"
        self._met(f"head of {names.get(b'x-request-id', b'?').decode()}, kept {self.kept}")

    async def _read_whole(self, reader: asyncio.StreamReader) -> None:
        _, _, data = (await reader.read()).partition(b"\r\n\r\n")
        try:
            answer = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise ConnectionError("half an answer") from None
        self.event_s.append(time.monotonic())
        self.texts = {choice["index"]: choice["text"] for choice in answer["choices"]}
        self.usage, self.done = answer["usage"], True

    async def _read_events(self, reader: asyncio.StreamReader) -> None:
        event_id = self.last_id
        while (line := await reader.readline()).endswith(b"\n"):  # half a line is a lost connection
            if line.startswith(b"data: {"):
                now_s = time.monotonic()
                event = orjson.loads(line[6:])
                if "error" in event:
                    if self.last_id:
                        self._met("handed over")
                        return  # come back
                    raise Failed(f"event: {event['error']}")
                if self.lost_s:
                    self._back(now_s)
                self.event_s.append(now_s)
                self.last_id = event_id
                self._take(event)
            elif line.startswith(b"id: "):
                event_id = line[4:].strip().decode()
            elif line.startswith(b"data: [DONE]"):
                self.done = True
                return
        if not self.done:
            raise ConnectionError("the stream broke off")

    def _take(self, event: dict[str, Any]) -> None:
        for choice in event["choices"]:
            delta = choice.get("delta")
            piece = choice["text"] if delta is None else delta.get("content") or ""
            index = choice["index"]
            self.texts[index] = self.texts.get(index, "") + piece
        self.usage = event.get("usage") or self.usage

    def _wrong(self) -> str:
        for revision in self.revisions:
            if self.texts == self.expected(revision):
                self.revision = revision
                break
        else:
            wrong = differences(self.texts, self.expected(self.revisions[0]))
            return f"wrong after {self.connections} connections: {wrong}"
        choices = 2 if self.kind == "choices" else 1
        told = self.usage.get("completion_tokens")
        if self.kind not in ("stop", "schema") and told != self.tokens * choices:
            return f"wrong usage: {self.usage}"
        return ""
