"""Client processes of the GPU benchmark: streams of token-id prompts over raw sockets, next to no work per token.

One process cannot read 15,000 tokens a second and also say honestly when they came; so `Pool` keeps several, started
once (a Python process takes a second), and gives them the same task. A closed loop: each of `concurrency` lanes sends
the next request when the last one ended. Both arms of a benchmark get the same prompts in the same order.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection

import uvloop

FIRST_ID, LAST_ID = 100, 99_000
LONG_S = 0.03
_COUNT = re.compile(rb'"completion_tokens": ?(\d+)')


@dataclass(frozen=True)
class Task:
    """What to send. `requests` in all; 0: until `stop`. Ports are taken in turn."""

    ports: tuple[int, ...]
    model: str
    key: str = "none"
    requests: int = 0
    concurrency: int = 1
    prompt_tokens: int = 512
    answer_tokens: int = 128
    seed: int = 1
    host: str = "127.0.0.1"


@dataclass
class Answer:
    """One stream, in seconds of CLOCK_MONOTONIC. `pause_s` is its longest gap, which ended at `pause_end_s`."""

    sent_s: float
    first_s: float = 0.0
    last_s: float = 0.0
    tokens: int = 0
    events: int = 0
    pause_s: float = 0.0
    pause_end_s: float = 0.0
    pauses: list[tuple[float, float, int]] = field(default_factory=list)
    """Begin, end and the events before, of each longer than LONG_S."""
    failed: str = ""


@dataclass
class Report:
    """Everything that happened. `gaps_s` is at most 20,000 of each process's gaps."""

    answers: list[Answer] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)

    @property
    def failures(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for answer in self.answers:
            if answer.failed:
                found[answer.failed] = found.get(answer.failed, 0) + 1
        return found


class _Stream(asyncio.Protocol):
    """One streamed answer on a connection of its own."""

    def __init__(
        self, request: bytes, ended: Callable[[Answer], None], gaps_s: list[float], wanted: int
    ) -> None:
        self.request, self.ended, self.gaps_s, self.wanted = request, ended, gaps_s, wanted
        self.head, self.tail = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.answer = Answer(time.monotonic())
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now_s, answer = time.monotonic(), self.answer
        if not self.head:
            self.head = data[:400]
        events = data.count(b'"text":')
        if events:
            answer.events += events
            if not answer.first_s:
                answer.first_s = now_s
            else:
                gap_s = now_s - answer.last_s
                if gap_s > answer.pause_s:
                    answer.pause_s, answer.pause_end_s = gap_s, now_s
                if gap_s > LONG_S:
                    answer.pauses.append((answer.last_s, now_s, answer.events - events))
                if len(self.gaps_s) < 20_000:
                    self.gaps_s.append(gap_s)
            answer.last_s = now_s
        self.tail = (self.tail + data)[-1200:]
        if self.tail.endswith(b"0\r\n\r\n"):
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        answer = self.answer
        counts = _COUNT.findall(self.tail)
        answer.tokens = int(counts[-1]) if counts else 0
        if not self.head.startswith(b"HTTP/1.1 200"):
            answer.failed = self.head.split(b"\r\n")[0].decode(errors="replace") or f"no answer ({exc})"
        elif not self.tail.endswith(b"0\r\n\r\n") or b"[DONE]" not in self.tail:
            answer.failed = f"cut off ({exc})"
        elif answer.tokens != self.wanted:
            answer.failed = f"{answer.tokens} tokens"
        self.ended(answer)


def _request(task: Task, rng: random.Random, port: int) -> bytes:
    body = json.dumps(
        {
            "model": task.model, "prompt": [rng.randrange(FIRST_ID, LAST_ID) for _ in range(task.prompt_tokens)],
            "max_tokens": task.answer_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()  # fmt: skip
    lines = (
        "POST /v1/completions HTTP/1.1", f"host: {task.host}:{port}", "content-type: application/json",
        f"authorization: Bearer {task.key}", f"content-length: {len(body)}",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _run(task: Task, number: int, stopped: Callable[[], bool]) -> Report:
    loop, rng, report = asyncio.get_running_loop(), random.Random(f"{task.seed}-{number}"), Report()
    turn = number
    requests = [_request(task, rng, task.ports[(number + i) % len(task.ports)]) for i in range(task.requests)]
    sent = 0

    async def lane() -> None:
        nonlocal turn, sent
        while not stopped() and (not task.requests or sent < task.requests):
            port = task.ports[turn % len(task.ports)]
            request = requests[sent] if task.requests else _request(task, rng, port)
            turn, sent = turn + 1, sent + 1
            done: asyncio.Future[Answer] = loop.create_future()
            try:
                await loop.create_connection(
                    lambda request=request, done=done: _Stream(
                        request, done.set_result, report.gaps_s, task.answer_tokens
                    ),
                    task.host,
                    port,
                )
            except OSError as error:
                report.answers.append(Answer(time.monotonic(), failed=f"no connection: {error.errno}"))
                await asyncio.sleep(0.05)
                continue
            report.answers.append(await done)

    await asyncio.gather(*(lane() for _ in range(task.concurrency)))
    return report


def _process(pipe: Connection, number: int) -> None:
    """Tasks in, reports out, until the pipe closes. A word while a task runs stops it."""
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        pipe.send(uvloop.run(_run(task, number, pipe.poll)))
        if not task.requests:
            pipe.recv()  # the word that stopped it


class Pool:
    """Client processes. A context manager."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("fork")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_process, args=(theirs, number), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._running: list[Connection] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join(5)

    def start(self, task: Task) -> None:
        """Begin: lanes and requests are shared out evenly; with fewer lanes than processes some stay idle."""
        used = min(len(self._pipes), task.concurrency)
        self._running = self._pipes[:used]
        for number, pipe in enumerate(self._running):
            share = replace(
                task, requests=_share(task.requests, used, number),
                concurrency=_share(task.concurrency, used, number),
            )  # fmt: skip
            pipe.send(share)

    def stop(self) -> None:
        """Send no new requests; those that run end by themselves."""
        for pipe in self._running:
            pipe.send("stop")

    def collect(self) -> Report:
        """Wait for the end and put everything together."""
        whole = Report()
        for pipe in self._running:
            part: Report = pipe.recv()
            whole.answers += part.answers
            whole.gaps_s += part.gaps_s
        return whole

    def run(self, task: Task) -> Report:
        self.start(task)
        return self.collect()


def _share(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def figures(report: Report) -> dict[str, float]:
    """Tokens per second from the first request sent to the last token, times in milliseconds."""
    fine = [answer for answer in report.answers if not answer.failed]
    if not fine:
        return {"ok": 0, "failed": len(report.answers)}
    took_s = max(answer.last_s for answer in fine) - min(answer.sent_s for answer in fine)
    ttft = [1e3 * (answer.first_s - answer.sent_s) for answer in fine]
    tpot = [1e3 * (answer.last_s - answer.first_s) / max(1, answer.tokens - 1) for answer in fine]
    gaps = [1e3 * gap for gap in report.gaps_s]
    return {
        "ok": len(fine),
        "failed": len(report.answers) - len(fine),
        "tokens_per_s": sum(answer.tokens for answer in fine) / took_s,
        "ttft_p50_ms": quantile(ttft, 0.5),
        "ttft_p99_ms": quantile(ttft, 0.99),
        "tpot_p50_ms": quantile(tpot, 0.5),
        "gap_p50_ms": quantile(gaps, 0.5),
        "gap_p99_ms": quantile(gaps, 0.99),
        "gap_max_ms": 1e3 * max((answer.pause_s for answer in fine), default=0.0),
        "took_s": took_s,
    }
