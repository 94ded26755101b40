"""What a journalled token costs in the gateway beside a plain one: frame in, SSE event out, batches to the journal.

    python -m load_tests.bench.bench_journal

One process, no sockets: real choices, text, responders and messages, frames of one token, a wire that counts bytes.
Rounds alternate; CPU time per token, median and range.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from services.answer import AnswerHead, TokenText
from services.api import encode
from services.clock import SystemClock
from services.config import JournalConfig
from services.gateway.choice import Choice
from services.gateway.flow import ChoiceFlow
from services.gateway.generation import Generation
from services.gateway.http_responders import StreamResponder
from services.gateway.journal_part import Part
from services.gateway.journal_run import Run
from services.gateway.migrate import RetryBudget
from services.gateway.stream import TextStage
from services.gateway.viewer import Viewer
from services.link.frames import encode_frame
from services.link.journal_messages import JournalAppend
from services.link.messages import Acquire, Grant
from services.request import (
    GenerateJob,
    InferenceRequest,
    SamplingParams,
    TokenFrame,
    TokenLogprob,
    pack_ids,
    unpack_ids,
)
from services.sim_tokenizer import encode as tokens_of
from services.telemetry.trace import RequestTrace
from services.text.sim_text import SimTokenizer

TOKENS, ROUNDS, BATCH, TOGETHER = 20_000, 15, 5, 50
"""`BATCH` tokens a flush: 100 ms at 20 ms a token; the appends of `TOGETHER` answers leave in one frame."""
IDS = unpack_ids(tokens_of("bak cel dim fon " * 5_000))[:TOKENS]
SAMPLING = SamplingParams(TOKENS, temperature=0.0)
REQUEST = InferenceRequest("completion", "m", SAMPLING, prompts=("x",), stream=True)


def nothing(*_: object) -> None:
    """What nobody does."""


def no_text(token_id: int, logprob: TokenLogprob) -> TokenText:
    raise NotImplementedError("nobody asks for log-probabilities here")


class Wire:
    closed = write_paused = False
    buffered_bytes = 0

    def __init__(self) -> None:
        self.num_bytes = 0

    def respond(self, status: int, headers: bytes, body: bytes) -> None: ...
    def start_stream(self, headers: bytes) -> None: ...
    def end_stream(self, data: bytes = b"") -> None: ...
    def write_chunk(self, data: bytes) -> None:
        self.num_bytes += len(data)

    def chunk_writer(
        self, prefix: bytes, suffix: bytes, pieces: Mapping[int, bytes]
    ) -> Callable[[int], None]:
        def say(token_id: int) -> None:
            self.write_chunk(prefix + pieces[token_id] + suffix)

        return say


class Nobody:
    """Leases, engines and the journal's link."""

    config = JournalConfig()
    state = "own"

    def __init__(self) -> None:
        self.marked: list[Part] = []
        self.num_bytes = 0
        self.waiting: list[JournalAppend] = []

    def __getattr__(self, name: str) -> Any:
        return nothing

    def mark(self, run: Part, *, ahead: bool) -> None:
        self.marked.append(run)

    def append(self, parts: Any) -> int:
        self.waiting.append(JournalAppend(1, 1, parts))
        if len(self.waiting) == TOGETHER:
            self.num_bytes += len(encode_frame(self.waiting))
            self.waiting.clear()
        return 1


def generation(responder: Any, make_choice: Any) -> Generation:
    clock = SystemClock()
    nobody: Any = Nobody()
    made = Generation(
        head=AnswerHead("req-0123456789ab-1f", "m", 1, resumable=True), clock=clock, leases=nobody, engines=nobody,
        responder=responder, observer=RequestTrace(clock, "r", "http"), deadline_s=1e12, max_buffered_bytes=1 << 30,
        want_logprobs=False, token_text=no_text, make_choice=make_choice,
    )  # fmt: skip
    job = GenerateJob("r", pack_ids([1]), REQUEST.sampling)
    flow = ChoiceFlow(
        job, Acquire(0, "r", "m", "t", "standard", 1, TOKENS, 0.0, 0.0), arrived_s=0.0, deadline_s=1e12,
        next_id=iter(range(1, 9)).__next__, budget=RetryBudget(),
    )  # fmt: skip
    made.add(flow, TextStage(SimTokenizer().decoder()))
    flow.start(0.0)
    flow.on_grant(Grant(flow.ticket, 1, "e", "a", 1, 0.0), 0.0)
    return made


def plain(*, event_ids: bool = False) -> tuple[float, int]:
    wire = Wire()
    made = generation(StreamResponder(wire, encode.stream(REQUEST), "r"), Choice)
    if not event_ids:
        made._head = AnswerHead("req-0123456789ab-1f", "m", 1)  # pyright: ignore[reportPrivateUsage]
    push = made.choices[0].on_frame
    began = time.process_time()
    for i, token_id in enumerate(IDS):
        push(TokenFrame(1, (token_id,), None, None, 0, i), 0.02 * i)
    return time.process_time() - began, wire.num_bytes


def journalled() -> tuple[float, int]:
    wire = Wire()
    nobody: Any = Nobody()
    begun_by: Any = REQUEST
    part = Run(nobody, nobody, begun_by, nobody, b"", RequestTrace(SystemClock(), "r", "http"))
    part._call, part._owned = nobody, asyncio.get_running_loop().create_future()  # pyright: ignore[reportPrivateUsage]
    part._owned.set_result(None)  # pyright: ignore[reportPrivateUsage]
    part.show.head = AnswerHead("req-0123456789ab-1f", "m", 1)
    made = generation(part.show, part.make_choice)
    part._generation = made  # pyright: ignore[reportPrivateUsage]
    part.show.attach(Viewer(StreamResponder(wire, encode.stream(REQUEST), "r"), None, 1 << 30))
    push = made.choices[0].on_frame
    began = time.process_time()
    for i, token_id in enumerate(IDS):
        push(TokenFrame(1, (token_id,), None, None, 0, i), 0.02 * i)
        if i % BATCH == 0:
            part.flush()
    return time.process_time() - began, wire.num_bytes


async def main() -> None:
    arms = {"plain": plain, "with event ids": lambda: plain(event_ids=True), "journalled": journalled}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, run in arms.items():
            seconds, num_bytes = run()
            assert num_bytes > 100 * TOKENS
            found[name].append(seconds / TOKENS * 1e6)
    for name, values in found.items():
        print(f"{name:<15} {statistics.median(values):5.2f} µs a token ({min(values):.2f}–{max(values):.2f})")


if __name__ == "__main__":
    asyncio.run(main())
