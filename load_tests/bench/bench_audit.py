"""What the audit log costs: a call and a token on the event loop, a record in the writer's thread, a start.

    python -m load_tests.bench.bench_audit

One process, a real disk, records as calls leave them (a prompt of 400 characters, an answer of 100 tokens). CPU time of
the thread that works, median of rounds with their range.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.answer import AnswerHead, AnswerTail, Delta
from services.audit.digest import Digests
from services.audit.ed25519_keys import Ed25519Keys
from services.audit.file_log import FileLog
from services.audit.seat import Seat, chains_in
from services.audit.verify import verify_all
from services.clock import SystemClock
from services.config_audit import AuditConfig
from services.gateway.audit import GatewayAudit
from services.gateway.identity import Identity, KeyRecord, digest_key
from services.request import InferenceRequest, SamplingParams, Usage

CALLS, TOKENS, ROUNDS = 4_000, 100, 9
PIECES = {number: b'"word%d "' % number for number in range(1000)}
REQUEST = InferenceRequest(
    "chat", "m", SamplingParams(TOKENS), messages=({"role": "user", "content": "Why is it so? " * 28},), stream=True,
    person="somebody",
)  # fmt: skip


class Client:
    """A call, and its responder."""

    request_id, traceparent, protocol, credential = "req-0123456789ab-1f", "", "http", "em-key"
    address, forwarded_for, endpoint = "10.0.0.1", "", "/v1/chat/completions"
    buffered_bytes = 0

    def responder(self, request: InferenceRequest) -> Client:
        return self

    def begin(self, head: AnswerHead) -> None: ...
    def delta(self, delta: Delta) -> None: ...
    def end(self, tail: AnswerTail) -> None: ...
    def plain(self, choice: int, pieces: Any, long_way: Any) -> Callable[[int], None]:
        def say(token_id: int) -> None:
            """Nobody listens."""

        return say


class Found:
    """The parts of a mesh that a record asks for."""

    def __init__(self) -> None:
        self.identity = Identity(b"p", [KeyRecord("k", digest_key(b"p", "em-key"), "acme")])
        self.policy = self.models = self.queue = self
        self.version, self.name, self.info, self.revision = "policy-1", "m", self, "0f" * 8

    def find(self, asked: str, principal: object) -> tuple[Found, str]:
        return self, ""

    def revision_of(self, model: str, session: str) -> str:
        return self.revision


async def answer(mesh: Any, call: Any, tokens: int = TOKENS) -> None:
    """As the pipeline does, without any work: `tokens` go the short way."""
    responder = call.responder(REQUEST)
    responder.begin(AnswerHead(call.request_id, "m", 1, "miss"))
    responder.delta(Delta(0, "First "))
    say = responder.plain(0, PIECES, None)
    for number in range(tokens):
        say(number)
    responder.delta(Delta(0, ".", "stop"))
    responder.end(AnswerTail(Usage(60, tokens)))


async def few(mesh: Any, call: Any) -> None:
    await answer(mesh, call, 0)


async def on_the_loop(audit: GatewayAudit | None, serve: Any, mesh: Any) -> float:
    """µs of CPU of a call."""
    begun_s = time.thread_time()
    for _ in range(CALLS):
        if audit is None:
            await serve(mesh, Client())
        else:
            await audit.serve(serve, mesh, Client())
    return (time.thread_time() - begun_s) / CALLS * 1e6


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-audit-"))
    config = AuditConfig(directory=str(folder), max_pending=1_000_000)
    log = FileLog(config, SystemClock(), Seat(folder, "bench"), Ed25519Keys(), thread=False)
    audit, mesh = GatewayAudit(log, Digests(b"s" * 32), SystemClock()), Found()
    arms: dict[str, list[float]] = {name: [] for name in ("off", "on", "off0", "on0", "cpu", "wall")}
    for _ in range(ROUNDS):
        arms["off"].append(asyncio.run(on_the_loop(None, answer, mesh)))
        arms["off0"].append(asyncio.run(on_the_loop(None, few, mesh)))
        arms["on0"].append(asyncio.run(on_the_loop(audit, few, mesh)))
        while log.flush():
            pass
        arms["on"].append(asyncio.run(on_the_loop(audit, answer, mesh)))
        cpu_s, wall_s = time.thread_time(), time.perf_counter()
        while log.flush():
            pass
        arms["cpu"].append((time.thread_time() - cpu_s) / CALLS * 1e6)
        arms["wall"].append(CALLS / (time.perf_counter() - wall_s))
    call = [on - off for on, off in zip(arms["on0"], arms["off0"], strict=True)]
    token = [(on - off - more) / TOKENS for on, off, more in zip(arms["on"], arms["off"], call, strict=True)]
    print("| what | measured |\n| --- | --- |")
    print(f"| a call on the event loop, µs more than without | {spread(call)} |")
    print(f"| a token of the short way, µs more than without | {spread(token)} |")
    print(f"| a record in the writer's thread, CPU µs, digests and disk included | {spread(arms['cpu'])} |")
    print(f"| records a second of one writer, in batches of 2,048 | {spread(arms['wall'])} |")
    pairs: list[float] = []
    for _ in range(300):
        log.write(lambda: b'{"time":"2026-11-23T00:00:00.000Z","event":"call"}')
        begun_s = time.perf_counter()
        log.flush()
        pairs.append((time.perf_counter() - begun_s) * 1e3)
    print(f"| one record to the disk (write and fsync), ms, p50 and p99 | {statistics.median(pairs):.2f}, "
          f"{statistics.quantiles(pairs, n=100)[98]:.2f} |")  # fmt: skip
    log.close()
    num_bytes = sum(file.stat().st_size for file in folder.rglob("*.jsonl"))
    begun_s = time.perf_counter()
    (report,) = verify_all(chains_in(folder), Ed25519Keys())
    taken_s = time.perf_counter() - begun_s
    assert report.finding is None, report.finding
    print(f"| `expertmesh audit verify`, records a second | {report.records / taken_s:,.0f} |")
    print(f"| bytes of a record | {num_bytes / report.records:.0f} |")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
