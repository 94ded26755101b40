"""One gateway's process in the twin: the real pipeline with everything behind it, from the credential to the bill.

Rules: replaces sockets, the HTTP server, stored keys and metrics, nothing that decides. A killed gateway takes its
requests with it; their clients come back only where answers are journalled.
"""

from __future__ import annotations

import asyncio
from functools import cache as cached

from ..cache.client import CacheClient
from ..cache.key import CacheKeys
from ..config import CacheConfig, GatewayConfig, JournalConfig, PostprocessConfig
from ..errors import AuthError, ClientGone
from ..experts.engine import EngineInfo
from ..gateway import pipeline
from ..gateway.choice import Choice
from ..gateway.identity import Permission, Principal
from ..gateway.journal import Journal
from ..gateway.mesh import Mesh
from ..gateway.migrate import NOBODYS_DEATH, Loss, RetryBudget
from ..gateway.model import Model
from ..gateway.mux import EngineMux, EnginePeer
from ..link.messages import Acquire, AnyMessage, Grant, Release, StreamFailed, Submit
from ..outcome import Reason
from ..postprocess.chain import CompiledPolicy
from ..postprocess.policy import configured_policy
from ..queue.client import QueueClient
from ..queue.ticket import Ticket
from ..request import TokenFrame
from ..sim_tokenizer import VOCAB_SIZE
from ..telemetry.trace import RequestTrace
from ..text.sim_text import SimTokenizer
from .client import TwinCall
from .kernel import Process, Simulation
from .network import End, Network
from .oracle import Oracle
from .redial import TwinDial, TwinRedial
from .workload import Ask

ROOT_SECRET = "7e" * 32
BANDS = ("vip", "standard", "batch")
JOURNAL = JournalConfig(linger_s=1.0)
MAX_MODEL_LEN = 200


class GatewayNode(Process):
    """`queue` and `cache` are names of processes. Is the Leases and Engines port of its generations."""

    def __init__(
        self, sim: Simulation, network: Network, name: str, oracle: Oracle, *, model: str, journal: str = ""
    ) -> None:
        super().__init__(sim, name)
        self.network, self.oracle, self.model, self.journal_name = network, oracle, model, journal
        self.burst_tokens, self.max_model_len = 2_000_000, MAX_MODEL_LEN
        self._graves: list[object] = []
        network.add(self)

    @property
    def link_name(self) -> str:
        return f"{self.name}.{self.incarnation}"

    @property
    def num_answers(self) -> int:
        """Journalled answers that this gateway still has a part in."""
        return len(self.journal._runs) if self.journal is not None else 0  # pyright: ignore[reportPrivateUsage]

    def boot(self) -> None:
        config = CacheConfig(root_secret=ROOT_SECRET)  # type: ignore[arg-type]  # pydantic makes it a SecretStr
        self.mux = EngineMux(self.link_name, self._dial, clock=self)
        self.client = _WatchedClient(_nowhere, self.name, on_fence=self._on_fence, clock=self)
        self.client.node = self
        self.client.name = self.link_name  # the real one is random
        redial = TwinRedial(self.network, self, "queue", self.client, self.client.queue_died)  # type: ignore[arg-type]
        self.client._redial = redial  # type: ignore[assignment]
        self.cache = CacheClient(config, _nowhere, self.link_name, self)
        self.cache._redial = TwinRedial(self.network, self, "cache", self.cache)  # type: ignore[assignment,arg-type]
        self.journal: Journal | None = None
        if self.journal_name:
            self.journal = journal = Journal(JOURNAL, _nowhere, self.link_name)
            redial = TwinRedial(self.network, self, self.journal_name, journal.client)
            journal.client._redial = redial  # type: ignore[assignment,reportPrivateUsage]
            self._graves.append(journal)
            journal.start()
        self.mesh = Mesh(
            config=GatewayConfig(), cache_config=config, clock=self, identity=_Everybody(),  # type: ignore[arg-type]
            queue=self, engines=self, cache=self.cache, keys=_keys(), policy=_policy(),  # type: ignore[arg-type]
            band_ranks={band: rank for rank, band in enumerate(BANDS)}, telemetry=_Telemetry(self), openapi=b"",  # type: ignore[arg-type]
            journal=self.journal,
        )  # fmt: skip
        self.mesh.retry_budget = RetryBudget(burst_tokens=self.burst_tokens)
        info = EngineInfo(self.model, "twin", 1, 1 << 30, 16, self.max_model_len, VOCAB_SIZE)
        self.mesh.models.begin(Model(info, SimTokenizer()))
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._calls: dict[str, TwinCall] = {}
        self._wished: dict[str, str] = {}  # the revision that a request's key names
        self.client.start()
        self.cache.start()

    # clients ----------------------------------------------------------------------------------------------

    def admit(self, ask: Ask) -> None:
        """A client's request arrives."""
        self.oracle.arrived(ask)
        self.connect(TwinCall(ask, self.model, self.oracle), ask.request_id)

    def connect(self, call: TwinCall, name: str) -> None:
        """A client's connection; `name` is its own among those of this gateway."""
        self._calls[name] = call
        task = self.tasks[name] = self.loop.create_task(self._serve(call))
        task.add_done_callback(lambda done: self._done(name, done))

    def client_gone(self, ask: Ask) -> None:
        call = self._calls.get(ask.request_id)
        if call is not None:
            call.gone()

    async def _serve(self, call: TwinCall) -> None:
        try:
            await pipeline.serve(self.mesh, call)
        except asyncio.CancelledError:
            call.fail(ClientGone(Reason.CLIENT_CANCELLED, "the client went away"))

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        self.tasks.pop(name, None)
        self._calls.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    # Leases port ------------------------------------------------------------------------------------------

    def acquire(self, acquire: Acquire, holder: Choice) -> None:
        choice: Choice = getattr(holder, "_holder", holder)  # as long as the look-up runs: gateway/beside.py
        self.oracle.asked(acquire, len(choice.flow.emitted))
        self._wished.setdefault(acquire.request_id, acquire.revision)
        self.client.acquire(acquire, holder)

    def cancel(self, ticket: int) -> None:
        self.client.cancel(ticket)

    def release(self, release: Release) -> None:
        self.oracle.released(self.link_name, release)
        self.client.release(release)

    def progress(self, ticket: int, num_tokens: int) -> None:
        self.client.progress(ticket, num_tokens)

    def revision_of(self, model: str, session: str) -> str:
        return self.client.revision_of(model, session)

    def revisions(self, model: str) -> frozenset[str] | None:
        return self.client.revisions(model)

    # Engines port -----------------------------------------------------------------------------------------

    def open(self, grant: Grant, submit: Submit, receiver: Choice) -> None:
        self.oracle.opened(self.link_name, receiver.index, grant, submit, id(receiver))
        self.mux.open(
            grant, submit, _Watched(self, receiver, submit, self._wished.get(submit.job.request_id, ""))
        )

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
        for call in self._calls.values():
            call.broken()
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


class _WatchedClient(QueueClient):
    """Tells the oracle which leases pass on without a queue."""

    node: GatewayNode

    def _give(self, ticket: Ticket, grant: Grant) -> None:
        self.node.oracle.handed_on(self.node.link_name, grant, ticket.acquire)
        super()._give(ticket, grant)


class _Watched:
    """A mux receiver with the oracle looking on."""

    def __init__(self, node: GatewayNode, choice: Choice, submit: Submit, wished: str) -> None:
        self._node, self._choice, self._submit, self._wished = node, choice, submit, wished

    def on_frame(self, frame: TokenFrame, now_s: float) -> None:
        grant, node = self._choice.flow.grant, self._node
        if grant is not None:
            if self._wished and self._choice._feed is not None:  # pyright: ignore[reportPrivateUsage]
                node.oracle.fed(self._submit.job.request_id, self._wished, grant.revision)
            node.oracle.frame(node.link_name, grant, frame, self._choice.flow.stream_id)
        if frame.finish is not None:
            node.oracle.closed(node.link_name, frame.stream_id)
        self._choice.on_frame(frame, now_s)

    def on_lost(self, loss: Loss) -> None:
        if loss not in NOBODYS_DEATH:
            self._lost(drained=False)
        self._choice.on_lost(loss)

    def on_stream_failed(self, failed: StreamFailed) -> None:
        if failed.retryable:
            self._lost(drained=failed.reason == Reason.DRAINING)
        self._choice.on_stream_failed(failed)

    def _lost(self, *, drained: bool) -> None:
        emitted = len(self._choice.flow.emitted)
        grant = self._choice.flow.grant
        if grant is not None:
            self._node.oracle.lost(self._node.link_name, grant.lease_id, emitted, drained=drained)


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


class _Everybody:
    """Identity: the credential is `tenant:weight`, and every band is allowed."""

    def authenticate(self, credential: str) -> Principal:
        tenant, _, weight = credential.partition(":")
        if not tenant:
            raise AuthError(Reason.UNAUTHENTICATED, "no tenant")
        return Principal(tenant, tenant, BANDS, frozenset((Permission.GENERATE,)), float(weight))


class _Telemetry:
    """Traces that are thrown away; served tokens earn retries as the pipeline has it."""

    def __init__(self, node: GatewayNode) -> None:
        self._node = node

    def begin(self, request_id: str, protocol: str, traceparent: str = "") -> RequestTrace:
        return RequestTrace(self._node, request_id, protocol, emit=self._node.oracle.traced)

    def silent(self) -> RequestTrace:
        return RequestTrace(self._node, "", "")


@cached
def _policy() -> CompiledPolicy:
    return CompiledPolicy(configured_policy(PostprocessConfig()))


@cached
def _keys() -> CacheKeys:
    return CacheKeys(bytes.fromhex(ROOT_SECRET))


async def _nowhere() -> tuple[str, bytes]:
    raise NotImplementedError("the twin's links need no address")
