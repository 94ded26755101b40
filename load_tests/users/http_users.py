"""Locust users that speak OpenAI's HTTP, streamed: one reads chats, the other completions.

Each user has its own seed, so a run asks the same questions in the same order whatever the timing. Besides
Locust's own entry for the whole request, TTFT and every gap are reported as requests of type TTFT and ITL.
"""

from __future__ import annotations

import socket
import time
from itertools import count
from typing import Any, ClassVar

import msgspec
from geventhttpclient import HTTPClient
from locust import User, constant, task

from ..slo import Answered
from ..workloads import Ask, Mix, workload
from .answer_reader import AnswerReader, refused

_ENCODE = msgspec.json.Encoder().encode
_NUMBERS = count()


def _client(url: str) -> HTTPClient:
    """A client that sends at once. It writes head and body apart, and with Nagle's algorithm the body then
    waits for the head's acknowledgement: 40 ms that users of other clients never see."""
    client = HTTPClient.from_url(url, network_timeout=300.0, connection_timeout=10.0)
    pool: Any = client._connection_pool  # pyright: ignore[reportPrivateUsage]  # its hook has no public way in
    pool.after_connect = _send_at_once
    return client


def _send_at_once(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class MeshUser(User):
    """Asks, reads to the end, asks again. Settings come from locustfile.py's options."""

    abstract = True
    wait_time = constant(0)
    path: ClassVar[str]
    answers: ClassVar[list[Answered]] = []
    """What all users of this process saw, for the verdict."""
    model: ClassVar[str] = ""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        options = environment.parsed_options
        seed = options.seed * 1_000_003 + next(_NUMBERS)
        self._asks = workload(seed, Mix(max_tokens=options.max_tokens))
        self._headers = {"authorization": f"Bearer {options.api_key}", "content-type": "application/json"}
        if options.band:
            self._headers["x-priority-band"] = options.band
        self._client = _client(environment.host)

    def on_stop(self) -> None:
        self._client.close()

    @task
    def ask(self) -> None:
        """One request, from question to last token."""
        ask = next(self._asks)
        due_s = time.perf_counter()
        try:
            answer = self._answer(_ENCODE(self.body(ask)), due_s)
        except (OSError, ValueError) as error:  # geventhttpclient's errors are ValueErrors or OSErrors
            ms = (time.perf_counter() - due_s) * 1e3
            answer = Answered(ms, ms, error=f"{type(error).__name__}: {error}"[:200])
        self._report(ask, answer)

    def body(self, ask: Ask) -> dict[str, object]:
        """The request's JSON."""
        settings = {"temperature": 0} if ask.greedy else {"temperature": 0.8, "top_p": 0.95}
        return {
            "model": self.model,
            "max_tokens": ask.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **settings,
            **self.question(ask),
        }

    def question(self, ask: Ask) -> dict[str, object]:
        """The part of the body that differs between endpoints."""
        raise NotImplementedError

    def _answer(self, body: bytes, due_s: float) -> Answered:
        response = self._client.request("POST", self.path, body, self._headers)
        if response.status_code != 200:
            return refused(response.status_code, bytes(response.read()), (time.perf_counter() - due_s) * 1e3)
        reader = AnswerReader(due_s)
        while event := response.readline(b"\n\n"):
            reader.event(bytes(event), time.perf_counter())
        response.release()
        return reader.answered(time.perf_counter())

    def _report(self, ask: Ask, answer: Answered) -> None:
        self.answers.append(answer)
        self._fire("HTTP", f"{self.path} {ask.kind}", answer.e2e_ms, answer.error)
        if not answer.error:
            self._fire("TTFT", ask.kind, answer.ttft_ms)
            for gap_ms in answer.gaps_ms:
                self._fire("ITL", ask.kind, gap_ms)

    def _fire(self, kind: str, name: str, ms: float, error: str = "") -> None:
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=ms, response_length=0,
            exception=RuntimeError(error) if error else None, context={},
        )  # fmt: skip


class ChatUser(MeshUser):
    """Chats."""

    weight = 3
    path = "/v1/chat/completions"

    def question(self, ask: Ask) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": ask.text}]}


class CompletionUser(MeshUser):
    """Plain completions."""

    weight = 1
    path = "/v1/completions"

    def question(self, ask: Ask) -> dict[str, object]:
        return {"prompt": ask.text}
