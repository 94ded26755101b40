"""A remote OpenAI-compatible server that misbehaves as its prompt says; run as a process of its own.

`python remote_server.py LOG [CERTIFICATE KEY]` prints its port and notes every request, and every connection that its
client closed early, in LOG. The last message says what to do: "cut 3" cuts the stream after three pieces.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any, TextIO

WORDS = ("One", " two", " three", " four", " five")


def chunk(text: str | None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish} | more
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


ANSWER = b"".join(map(chunk, WORDS)) + chunk(None, "stop") + b"data: [DONE]\n\n"
SSE = "content-type: text/event-stream\r\n"
HEADS = {
    "500": ("500 Oops", SSE), "429": ("429 Slow", "retry-after: 9\r\n" + SSE), "401": ("401 Who", SSE),
    "400": ("400 Bad", SSE), "307": ("307 There", "location: http://127.0.0.1:1/elsewhere\r\n"),
    "json": ("200 OK", "content-type: application/json\r\n"), "gzip": ("200 OK", SSE + "content-encoding: gzip\r\n"),
}  # fmt: skip
LAST = {
    "cut": b"", "done": b"data: [DONE]\n\n", "garbage": b"data: {not json\n\n", "html": b"<html>\n\n",
    "deep": b"data: " + b"[" * 30_000 + b"\n\n", "error": b'data: {"error": {"message": "secret"}}\n\n',
    "index": chunk("x", index=1), "tools": b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n',
    "type": b'data: {"choices": {"a": 1}}\n\n', "surrogate": b'data: {"choices":[{"delta":{"content":"\\ud800"}}]}\n\n',
    "endless": b"data: " + b"x" * 200_000, "finish": chunk(None, "because"), "utf8": b"data: \xff\xfe\n\n",
}  # fmt: skip
"""What comes after the pieces; then the connection ends."""


class Server:
    def __init__(self, log: TextIO) -> None:
        self._log = log

    def note(self, **what: Any) -> None:
        self._log.write(json.dumps(what) + "\n")
        self._log.flush()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            self.note(head=head, body=body)
            what, _, number = body["messages"][-1]["content"].partition(" ")
            pieces = WORDS[: int(number)] if number.isdecimal() else WORDS
            status, fields = HEADS.get(what, ("200 OK", SSE))
            if what == "mute":
                await reader.read()
                self.note(closed=what)
                return
            writer.write(f"HTTP/1.1 {status}\r\n{fields}connection: close\r\n\r\n".encode())
            if what == "hang":
                writer.write(b"".join(map(chunk, pieces)))
                await reader.read()  # until the client closes
                self.note(closed=what)
            elif what == "comments":
                while not reader.at_eof():
                    writer.write(b": still here\n\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            elif what == "flood":
                while not reader.at_eof():
                    writer.write(chunk("word " * 200))
                    await writer.drain()
            elif what in LAST:
                writer.write(b"".join(map(chunk, pieces)) + LAST[what])
            elif what == "say":
                writer.write(b"".join(map(chunk, number.split("|"))) + chunk(None, "length"))
            elif what == "bytes":
                for at in range(len(ANSWER)):
                    writer.write(ANSWER[at : at + 1])
                    await writer.drain()
            else:
                writer.write(ANSWER)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.note(closed="early")
        finally:
            writer.close()


async def main(log: str, *pair: str) -> None:
    tls = None
    if pair:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*pair)
    with open(log, "a") as file:  # noqa: ASYNC230
        server = await asyncio.start_server(Server(file).answer, "127.0.0.1", 0, ssl=tls)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
