"""One gateway's process in the twin: the real generation, flow, engine mux and queue client.

Rules: replaces sockets and the HTTP server, nothing that decides. A killed gateway takes its requests with it; their
clients come back only where answers are journalled.
"""

from __future__ import annotations

import asyncio
from itertools import count

import msgspec

from ..answer import AnswerHead, AnswerTail, Delta, TokenText
from ..cache.seat import FeedPart
from ..errors import ClientGone, MeshError
from ..gateway.flow import ChoiceFlow
from ..gateway.generation import Choice, Generation
from ..gateway.migrate import RetryBudget
from ..gateway.mux import EngineMux, EnginePeer
from ..gateway.stream import TextStage
from ..link.messages import Acquire, AnyMessage, Grant, Release, StreamFailed, Submit
from ..outcome import Reason
from ..queue.client import QueueClient
from ..request import GenerateJob, TokenFrame, TokenLogprob
from ..text.sim_text import SimTextDecoder
from ..text.stops import StopMatcher
from .kernel import Process, Simulation
from .network import End, Network
from .oracle import Oracle, seeded
from .redial import TwinDial, TwinRedial
from .workload import Ask


class GatewayNode(Process):
    """`queue` is the name of the queue's process. Is the Leases and Engines port of its generations."""

    def __init__(
        self, sim: Simulation, network: Network, name: str, queue: str, oracle: Oracle, *, model: str
    ) -> None:
        super().__init__(sim, name)
        self.network, self.queue, self.oracle, self.model = network, queue, oracle, model
        self.burst_tokens = 2_000_000
        self._graves: list[object] = []
        network.add(self)

    @property
    def link_name(self) -> str:
        return f"{self.name}.{self.incarnation}"

    def boot(self) -> None:
        self.budget = RetryBudget(burst_tokens=self.burst_tokens)
        self.mux = EngineMux(self.link_name, self._dial)
        self.client = QueueClient(_nowhere, self.name, on_fence=self._on_fence, clock=self)
        self.client.name = self.link_name  # the real one is random
        self.client._redial = TwinRedial(self.network, self, self.queue, self.client)  # type: ignore[assignment,arg-type]  # noqa: SLF001
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ids = count(1)
        self.client.start()

    # clients ----------------------------------------------------------------------------------------------

    def admit(self, ask: Ask) -> None:
        """A client's request arrives."""
        task = self.loop.create_task(self._serve(ask))
        self.tasks[ask.request_id] = task
        task.add_done_callback(lambda done: self._done(ask, done))

    def client_gone(self, ask: Ask) -> None:
        task = self.tasks.get(ask.request_id)
        if task is not None:
            task.cancel()

    def _done(self, ask: Ask, task: asyncio.Task[None]) -> None:
        self.tasks.pop(ask.request_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _serve(self, ask: Ask) -> None:
        """What services.gateway.pipeline.serve does between the lease and the last token."""
        self.oracle.arrived(ask)
        client = _Client(self, ask)
        generation = self._prepare(ask, client)
        try:
            await generation.run(_NoFlight())
        except MeshError as error:
            self.oracle.failed(ask, error)
        except asyncio.CancelledError:
            self.oracle.failed(ask, ClientGone(Reason.CLIENT_CANCELLED, "the client went away"))
        else:
            self.oracle.completed(ask, [len(choice.flow.emitted) for choice in generation.choices])

    def _prepare(self, ask: Ask, client: _Client) -> Generation:
        now_s = self.sim.now_s
        deadline_s = now_s + ask.patience_s
        generation = Generation(
            head=AnswerHead(ask.request_id, self.model, 0), clock=self, leases=self, engines=self,
            responder=client, observer=client, deadline_s=deadline_s, max_buffered_bytes=1 << 20,
            want_logprobs=False, token_text=_no_token_text,
        )  # fmt: skip
        for index in range(ask.choices):
            sampling = seeded(ask.sampling, index)
            told = msgspec.structs.replace(sampling, stop=())  # engines know no stop strings
            job = GenerateJob(ask.request_id, ask.prompt, told, cache_salt=ask.tenant)
            template = Acquire(
                0, ask.request_id, self.model, ask.tenant, ask.band, len(ask.prompt) // 4, sampling.max_tokens,
                0.0, 0.0, ask.weight, preemptible=ask.band != "vip",
            )  # fmt: skip
            flow = ChoiceFlow(
                job,
                template,
                arrived_s=now_s,
                deadline_s=deadline_s,
                next_id=self._ids.__next__,
                budget=self.budget,
            )
            stops = StopMatcher(sampling.stop) if sampling.stop else None
            generation.add(flow, TextStage(SimTextDecoder(), stops))
        return generation

    # Leases port ------------------------------------------------------------------------------------------

    def acquire(self, acquire: Acquire, holder: Choice) -> None:
        self.oracle.asked(acquire, len(holder.flow.emitted))
        self.client.acquire(acquire, holder)

    def cancel(self, ticket: int) -> None:
        self.client.cancel(ticket)

    def release(self, release: Release) -> None:
        self.oracle.released(self.link_name, release)
        self.client.release(release)

    def progress(self, ticket: int, num_tokens: int) -> None:
        self.client.progress(ticket, num_tokens)

    # Engines port -----------------------------------------------------------------------------------------

    def open(self, grant: Grant, submit: Submit, receiver: Choice) -> None:  # type: ignore[override]
        self.oracle.opened(self.link_name, receiver.index, grant, submit)
        self.mux.open(grant, submit, _Watched(self, receiver, submit))

    def close(self, engine_id: str, stream_id: int) -> None:
        self.oracle.closed(self.link_name, stream_id)
        self.mux.close(engine_id, stream_id)

    def _on_fence(self, engine_id: str, epoch: int) -> None:
        self.mux.fence(engine_id, epoch)
        self.oracle.heard_fence(self.link_name, engine_id, epoch)

    def _dial(self, peer: EnginePeer, address: str, key: bytes) -> TwinDial:
        name, _, incarnation = address.partition("#")
        dial = TwinDial(lambda: peer.unreachable("refused"))
        self.network.dial(self, name, _Dialled(peer, dial), dial.failed, int(incarnation))
        return dial

    # faults -----------------------------------------------------------------------------------------------

    def crash(self, restart_s: float, *, silent: bool = False) -> None:
        """kill -9; another process takes its name later."""
        if not self.alive:
            return
        self.oracle.gateway_died(self.name)
        self._graves.append(
            self.tasks
        )  # or collecting them would run their `finally` in the next incarnation
        self.network.killed(self, silent=silent)
        self.kill()
        self.sim.at(self.sim.now_s + restart_s, None, self.start)

    def link_up(self, link: End) -> None:
        """Nobody dials a gateway in the twin."""

    def link_message(self, link: End, message: AnyMessage) -> None:
        """See link_up."""

    def link_down(self, link: End, why: str) -> None:
        """See link_up."""


class _Client:
    """The client's side: Responder and Observer of one request."""

    buffered_bytes = 0

    def __init__(self, node: GatewayNode, ask: Ask) -> None:
        self._node, self._ask = node, ask

    def begin(self, head: AnswerHead) -> None:
        """Nothing is checked of the head."""

    def delta(self, delta: Delta) -> None:
        self._node.oracle.shown(self._ask, delta)

    def end(self, tail: AnswerTail) -> None:
        """The twin ends requests itself (`completed`)."""

    def fail(self, error: MeshError) -> None:
        """The twin ends requests itself (`failed`)."""

    def tokens(self, num_tokens: int, now_s: float, choice: int = 0) -> None:
        self._node.budget.earn(num_tokens)

    def leased(self, queue_wait_s: float) -> None:
        """For telemetry."""

    def migrated(self, why: str) -> None:
        """For telemetry."""


class _Watched:
    """A mux receiver with the oracle looking on."""

    def __init__(self, node: GatewayNode, choice: Choice, submit: Submit) -> None:
        self._node, self._choice, self._submit = node, choice, submit

    def on_frame(self, frame: TokenFrame) -> None:
        grant = self._choice.flow.grant
        if grant is not None:
            self._node.oracle.frame(self._node.link_name, grant, frame, self._choice.flow.stream_id)
        if frame.finish is not None:
            self._node.oracle.closed(self._node.link_name, frame.stream_id)
        self._choice.on_frame(frame)

    def on_lost(self, *, contacted: bool) -> None:
        if contacted:
            self._lost(drained=False)
        self._choice.on_lost(contacted=contacted)

    def on_stream_failed(self, failed: StreamFailed) -> None:
        if failed.retryable:
            self._lost(drained=failed.reason == Reason.DRAINING)
        self._choice.on_stream_failed(failed)

    def _lost(self, *, drained: bool) -> None:
        emitted = len(self._choice.flow.emitted)
        self._node.oracle.lost(self._submit.job.request_id, self._choice.index, emitted, drained=drained)


class _Dialled:
    """A peer's handler that hangs up when the dialling was given up meanwhile."""

    def __init__(self, peer: EnginePeer, dial: TwinDial) -> None:
        self._peer, self._dial = peer, dial

    def link_up(self, link: End) -> None:
        link.handler = self if self._dial.cancelled else self._peer  # type: ignore[assignment]
        if self._dial.cancelled:
            link.close("given up")
        else:
            self._peer.link_up(link)  # type: ignore[arg-type]

    def link_message(self, link: End, message: AnyMessage) -> None:
        """A link that was given up."""

    def link_down(self, link: End, why: str) -> None:
        """A link that was given up."""


class _NoFlight:
    """A request that shares its answer with nobody."""

    feeds = follows = False

    def feed(self, part: FeedPart) -> None:
        raise AssertionError("nobody follows")

    def attach(self, follower: Generation) -> None:
        raise AssertionError("there is nobody to follow")


def _no_token_text(token_id: int, logprob: TokenLogprob) -> TokenText:
    raise AssertionError("the twin asks for no logprobs")


async def _nowhere() -> tuple[str, bytes]:
    raise NotImplementedError("the twin's links need no address")
