"""An OpenAI-compatible engine that costs next to nothing: what the peers' gateways stand in front of.

One token per `step_s` and stream on a common clock (0: the whole answer at once), text completions, streaming and
not. `python -m load_tests.bench.mock_engine PORT STEP_S` (port 0: any; the port is printed).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"cmpl-mock","object":"text_completion","created":1,"model":"sim",'
    b'"choices":[{"index":0,"text":"bab ","logprobs":null,"finish_reason":%b}]}\n\n'
)
PLAIN, LAST = EVENT % b"null", EVENT % b'"length"'
LENGTH = re.compile(rb"content-length: *(\d+)", re.I)
MAX_TOKENS = re.compile(rb'"max_tokens": *(\d+)')


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


TOKEN = chunk(PLAIN)
END = chunk(LAST) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Clock:
    """One timer for all streams, as an engine step is one for its batch."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.streams: dict[Connection, int] = {}
        self.running = False

    def add(self, connection: Connection, num_tokens: int) -> None:
        self.streams[connection] = num_tokens
        if not self.running:
            self.running = True
            self._loop = asyncio.get_running_loop()
            self._next_s = self._loop.time() + self.step_s
            self._loop.call_at(self._next_s, self.step)

    def step(self) -> None:
        done = []
        for connection, left in self.streams.items():
            if left > 1:
                connection.transport.write(TOKEN)
                self.streams[connection] = left - 1
            else:
                connection.transport.write(END)
                done.append(connection)
        for connection in done:
            del self.streams[connection]
        self._next_s = max(self._next_s + self.step_s, self._loop.time())
        self.running = bool(self.streams)
        if self.running:
            self._loop.call_at(self._next_s, self.step)


class Connection(asyncio.Protocol):
    """One client connection, kept alive."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._clock.streams.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (at := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self._buffer, 0, at)
            end = at + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < end:
                return
            head, body, self._buffer = self._buffer[:at], self._buffer[at + 4 : end], self._buffer[end:]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            models = {
                "object": "list",
                "data": [{"id": "sim", "object": "model", "created": 1, "owned_by": "mock"}],
            }
            self.unary(json.dumps(models).encode())
            return
        wanted = MAX_TOKENS.search(body)
        num_tokens = int(wanted[1]) if wanted else 16
        if b'"stream": true' in body or b'"stream":true' in body:
            self.transport.write(HEAD)
            if self._clock.step_s:
                self._clock.add(self, num_tokens)
            else:
                self.transport.write(TOKEN * (num_tokens - 1) + END)
        else:
            text = "bab " * num_tokens
            usage = {"prompt_tokens": 1, "completion_tokens": num_tokens, "total_tokens": num_tokens + 1}
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "length"}
            answer = {
                "id": "cmpl-mock",
                "object": "text_completion",
                "created": 1,
                "model": "sim",
                "choices": [choice],
                "usage": usage,
            }
            self.unary(json.dumps(answer).encode())

    def unary(self, body: bytes) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )


async def main(port: int, step_s: float) -> None:
    clock = Clock(step_s)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(clock), "127.0.0.1", port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(1e9)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
