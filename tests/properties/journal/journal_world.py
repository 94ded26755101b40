"""A small mesh on virtual time for the journal's properties: the real pipeline, journal, queue and engines of the twin,
and clients that come back. What fails, and when, is whoever's drives it (test_gateway_death.py)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from services.answer import AnswerHead, AnswerTail, Delta
from services.api.event_ids import Cursor, parse
from services.config import CacheConfig, JournalConfig, QueueConfig
from services.errors import MeshError
from services.experts.sim_model import SimTiming
from services.gateway import pipeline
from services.gateway.http_responders import merge
from services.outcome import Reason
from services.request import InferenceRequest, SamplingParams
from services.sim_tokenizer import encode
from services.telemetry.trace import RequestTrace
from services.twin.cache_node import CacheNode
from services.twin.engine_node import EngineNode
from services.twin.gateway_node import ROOT_SECRET, GatewayNode
from services.twin.journal_node import JournalNode
from services.twin.kernel import Simulation
from services.twin.network import Network
from services.twin.queue_node import QueueNode
from services.twin.records import right_answer
from services.twin.workload import Ask

COME_BACK = {Reason.DRAINING, Reason.NOT_READY, Reason.INTERNAL}
"""What a client may hear while things are broken."""


class Bills:
    """In the oracle's place: only what is billed counts here."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def traced(self, trace: RequestTrace) -> None:
        if trace.usage is not None:
            self.tokens.append(trace.usage.completion_tokens)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Reader:
    """Somebody who wants one answer. `texts` is all it ever got, per choice; `fits` false: it got something wrong."""

    def __init__(self, ask: Ask, key: str) -> None:
        self.ask, self.key = ask, key
        self.right = [right_answer(ask, choice) for choice in range(ask.choices)]
        self.texts = [""] * ask.choices
        self.finished = [""] * ask.choices
        self.last_id = ""
        self.done = False
        self.resumable = True
        self.call: ReaderCall | None = None
        self.errors: list[MeshError] = []
        self.problems: list[object] = []

    def take(self, delta: Delta) -> None:
        choice, right = delta.choice, self.right[delta.choice]
        self.check(not self.finished[choice], delta, "after the end")
        self.texts[choice] += delta.text
        self.check(right.text.startswith(self.texts[choice]), self.texts[choice], right.text, self.last_id)
        if delta.finish is not None:
            self.finished[choice] = delta.finish
            self.check((self.texts[choice], delta.finish) == (right.text, right.finish), delta, right)

    def check(self, holds: bool, *what: object) -> None:
        """Noted, not raised: this runs inside the gateway, which would swallow it."""
        if not holds:
            self.problems.append(what)


class ReaderCall:
    """One connection of a reader: the pipeline's Call and Responder. `merges` events are merged into one, as when a
    client reads slowly; what was not sent when the connection breaks is lost."""

    protocol = "twin"
    traceparent = ""
    buffered_bytes = 0

    def __init__(self, world: JournalWorld, reader: Reader, gateway: GatewayNode, merges: int) -> None:
        self.world, self.reader, self.gateway, self.merges = world, reader, gateway, merges
        self.request_id = world.new_id()
        self.after = reader.last_id
        self.open = True
        self.on_gone_: Callable[[], None] | None = None
        self._waiting: list[Delta] = []
        self._cursor: Cursor | None = None
        self._prefix = ""

    credential = "tenant:1.0"

    async def read(self) -> InferenceRequest:
        ask = self.reader.ask
        return InferenceRequest(
            kind="completion", model="sim", sampling=ask.sampling, prompts=(ask.prompt,), n=ask.choices, stream=True,
            deadline_s=600.0, idempotency_key=self.reader.key, last_event_id=self.after,
        )  # fmt: skip

    def responder(self, request: InferenceRequest) -> ReaderCall:
        return self

    def on_gone(self, callback: Callable[[], None]) -> None:
        self.on_gone_ = callback

    def cut(self) -> None:
        """The connection breaks; the gateway, if it lives, notices."""
        self.open = False
        self.reader.call = None
        if self.on_gone_ is not None and self.gateway.alive:
            self.gateway.after(0.0, self.on_gone_)

    def begin(self, head: AnswerHead) -> None:
        if not self.open:
            return
        self.reader.resumable = bool(head.resumable)
        choices = self.reader.ask.choices
        if not head.resumable:
            self.world.unjournalled = True
            self.reader.check(not self.after, "not resumable, but resumed")
        self._prefix = head.request_id + "/"
        self._cursor = parse(self.after, choices) if self.after else Cursor(choices)

    def delta(self, delta: Delta) -> None:
        self._waiting.append(delta)
        if len(self._waiting) >= self.merges:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for delta in merge(waiting):
            if self.open:
                assert self._cursor is not None
                self.reader.take(delta)
                self._cursor.advance(delta)
                if self.reader.resumable:
                    self.reader.last_id = self._prefix + self._cursor.text().decode()

    def end(self, tail: AnswerTail) -> None:
        self._flush()
        if self.open:
            self.reader.done = True
            self.reader.call = None
            self.reader.check(all(self.reader.finished), "an end in the middle")
            right = sum(one.num_tokens for one in self.reader.right)
            self.reader.check(tail.usage.completion_tokens == right, tail.usage, right)

    def fail(self, error: MeshError) -> None:
        self._flush()
        if self.open:
            self.reader.check(error.reason in COME_BACK, error.reason, error.message, self.after)
            self.reader.errors.append(error)
            self.reader.call = None
            self.open = False


class JournalWorld:
    """`num_gateways` gateways, two engines, one of everything else. All faults are methods."""

    def __init__(self, seed: int = 0, num_gateways: int = 3, **journal: Any) -> None:
        self.sim = sim = Simulation(seed)
        self.bills = Bills()
        self.network = network = Network(sim, 0.001)
        self.unjournalled = False
        self.killed_owner = False
        self._ids = 0
        oracle: Any = self.bills
        cache = CacheConfig(root_secret=ROOT_SECRET)  # type: ignore[arg-type]
        timing = SimTiming(
            prefill_tokens_per_s=5_000.0, step_s=0.01, step_per_seq_s=0.0, max_num_seqs=16, kv_tokens=10_000,
            max_model_len=200, max_batched_tokens=256, block_tokens=16,
        )  # fmt: skip
        self.queue = QueueNode(sim, network, "queue", QueueConfig(), oracle)
        self.cache = CacheNode(sim, network, "cache", cache)
        self.journal = JournalNode(sim, network, "journal", JournalConfig(**journal))
        self.engines = [
            EngineNode(sim, network, f"e{i}", "queue", timing, model="sim", pool="default") for i in range(2)
        ]
        self.gateways = [
            GatewayNode(sim, network, f"g{i}", oracle, model="sim", journal="journal")
            for i in range(num_gateways)
        ]
        for process in (self.queue, self.cache, self.journal, *self.engines, *self.gateways):
            process.start()
        self.wait(0.8)

    def new_id(self) -> str:
        self._ids += 1
        return f"q{self._ids}"

    def wait(self, seconds: float) -> None:
        self.sim.run(self.sim.now_s + seconds)

    def connect(self, reader: Reader, gateway: int, merges: int = 1) -> None:
        """A reader asks a gateway for its answer, or for the rest of it."""
        node = self.gateways[gateway]
        if reader.done or reader.call is not None or not node.alive or node.stopped:
            return
        if not reader.resumable and any(reader.texts):  # the mesh said that it cannot be resumed: all anew
            reader.texts, reader.finished = [""] * reader.ask.choices, [""] * reader.ask.choices
            reader.last_id = ""
        call = reader.call = ReaderCall(self, reader, node, merges)
        node.after(0.0, self._serve, node, call)

    def _serve(self, node: GatewayNode, call: ReaderCall) -> None:
        node.tasks[call.request_id] = node.loop.create_task(pipeline.serve(node.mesh, call))

    def kill(self, gateway: int, restart_s: float) -> None:
        """kill -9 of a gateway: its clients' connections break."""
        node = self.gateways[gateway]
        node.crash(restart_s)

    @property
    def ends(self) -> int:
        """Answers that ended, over all lives of the journal."""
        return self.journal.num_ended


def ask(
    text: str, num_tokens: int, *, choices: int = 1, stop: tuple[str, ...] = (), temperature: float = 0.0
) -> Ask:
    """What a reader wants."""
    sampling = SamplingParams(max_tokens=num_tokens, temperature=temperature, stop=stop)
    return Ask(0, 0.0, 0, "tenant", "standard", encode(text), sampling, 600.0, choices)


def with_stop(wanted: Ask, rng: Random) -> Ask:
    """The same with a stop string that the answer has."""
    text = right_answer(wanted, 0).text
    at = rng.randrange(len(text) // 2, len(text) - 3)
    return msgspec.structs.replace(
        wanted, sampling=msgspec.structs.replace(wanted.sampling, stop=(text[at : at + 3],))
    )
