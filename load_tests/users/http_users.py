"""Locust users that speak OpenAI's HTTP, streamed: one reads chats, the other completions."""

from __future__ import annotations

import socket
import time
from typing import Any

import msgspec
from geventhttpclient import HTTPClient

from ..slo import Answered
from ..workloads import Ask
from .answer_reader import SseReader, refused
from .mesh_user import MeshUser

_ENCODE = msgspec.json.Encoder().encode


def _client(url: str) -> HTTPClient:
    """A client that sends at once. It writes head and body apart, and with Nagle's algorithm the body then
    waits for the head's acknowledgement: 40 ms that users of other clients never see."""
    client = HTTPClient.from_url(url, network_timeout=300.0, connection_timeout=10.0)
    pool: Any = client._connection_pool  # pyright: ignore[reportPrivateUsage]  # its hook has no public way in
    pool.after_connect = _send_at_once
    return client


def _send_at_once(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class HttpUser(MeshUser):
    """A user with one kept-alive connection."""

    abstract = True
    protocol = "HTTP"

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._headers = {
            "authorization": f"Bearer {self.options.api_key}",
            "content-type": "application/json",
        }
        if self.options.band:
            self._headers["x-priority-band"] = self.options.band
        self._client = _client(environment.host)

    def on_stop(self) -> None:
        self._client.close()

    def answer(self, ask: Ask, due_s: float) -> Answered:
        response = self._client.request("POST", self.endpoint, _ENCODE(self.body(ask)), self._headers)
        if response.status_code != 200:
            return refused(response.status_code, bytes(response.read()), (time.perf_counter() - due_s) * 1e3)
        reader = SseReader(due_s)
        while event := response.readline(b"\n\n"):
            reader.event(bytes(event), time.perf_counter())
        response.release()
        return reader.answered(time.perf_counter())

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


class ChatUser(HttpUser):
    """Chats."""

    weight = 3
    endpoint = "/v1/chat/completions"

    def question(self, ask: Ask) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": ask.text}]}


class CompletionUser(HttpUser):
    """Plain completions."""

    weight = 1
    endpoint = "/v1/completions"

    def question(self, ask: Ask) -> dict[str, object]:
        return {"prompt": ask.text}
