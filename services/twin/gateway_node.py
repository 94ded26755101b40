"""One gateway in the twin: the real flow, engine mux, text stage and choice, on the twin's network.

Rules: replaces services/gateway/generation.py's event loop and services/queue/client.py's sockets, nothing that
decides. A killed gateway takes its requests with it; their clients come back only where answers are journalled.
"""

from __future__ import annotations

from itertools import count

import msgspec

from ..answer import Delta, TokenText
from ..errors import ClientGone, MeshError, OverloadError
from ..gateway.flow import ChoiceFlow, Phase
from ..gateway.generation import Choice
from ..gateway.migrate import RetryBudget
from ..gateway.mux import EngineMux, EnginePeer
from ..gateway.stream import TextStage
from ..link.messages import (
    Acquire,
    AnyMessage,
    CancelTicket,
    Fence,
    Grant,
    Holding,
    Preempt,
    Progress,
    Refuse,
    Release,
    Submit,
)
from ..outcome import Outcome, Reason
from ..request import GenerateJob, TokenFrame, TokenLogprob
from ..text.sim_text import SimTextDecoder
from ..text.stops import StopMatcher
from .kernel import Process, Simulation
from .network import End, Network
from .oracle import Oracle, seeded
from .redial import TwinDial, TwinRedial
from .workload import Ask

PROGRESS_EVERY_S = 0.25


class GatewayNode(Process):
    """`queue` is the name of the queue's process."""

    def __init__(
        self, sim: Simulation, network: Network, name: str, queue: str, oracle: Oracle, model: str = "sim"
    ) -> None:
        super().__init__(sim, name)
        self.network, self.queue, self.oracle, self.model = network, queue, oracle, model
        self.burst_tokens = 2_000_000
        network.add(self)

    @property
    def link_name(self) -> str:
        return f"{self.name}.{self.incarnation}"

    def boot(self) -> None:
        self._ids = count(1)
        self.budget = RetryBudget(burst_tokens=self.burst_tokens)
        self.mux = EngineMux(self.link_name, self._dial)
        self.leases = TwinLeases(self)
        self.generations: dict[str, TwinGeneration] = {}
        self.leases.redial.start()
        self.after(PROGRESS_EVERY_S, self._tick)

    def now_s(self) -> float:
        """Clock port."""
        return self.sim.now_s

    def wall_s(self) -> float:
        """Clock port."""
        return self.sim.now_s

    def tokens(self, num_tokens: int, now_s: float) -> None:
        """Observer port: served tokens earn retries."""
        self.budget.earn(num_tokens)

    def open(self, grant: Grant, submit: Submit, receiver: WatchedChoice) -> None:
        """Engines port."""
        self.oracle.opened(self.link_name, receiver.generation, receiver.index, grant, submit)
        self.mux.open(grant, submit, receiver)

    def close(self, engine_id: str, stream_id: int) -> None:
        """Engines port."""
        self.oracle.closed(self.link_name, stream_id)
        self.mux.close(engine_id, stream_id)

    def admit(self, ask: Ask) -> None:
        """A client's request arrives; nobody takes it while this gateway is down."""
        if not self.alive:
            return
        self.generations[ask.request_id] = generation = TwinGeneration(self, ask, self._ids)
        self.after(ask.patience_s, generation.overdue)
        generation.start()

    def client_gone(self, ask: Ask) -> None:
        generation = self.generations.get(ask.request_id)
        if generation is not None:
            generation.stop_with(
                ClientGone(Reason.CLIENT_CANCELLED, "the client went away"), Outcome.CANCELLED
            )

    def crash(self, restart_s: float, *, silent: bool = False) -> None:
        """kill -9; another process takes its name later."""
        if not self.alive:
            return
        self.oracle.gateway_died(self.name)
        self.network.killed(self, silent=silent)
        self.kill()
        self.sim.at(self.sim.now_s + restart_s, None, self.start)

    def _dial(self, peer: EnginePeer, address: str, key: bytes) -> TwinDial:
        name, _, incarnation = address.partition("#")
        dial = TwinDial(lambda: peer.unreachable("refused"))
        self.network.dial(self, name, _Dialled(peer, dial), dial.failed, int(incarnation))
        return dial

    def _tick(self) -> None:
        self.after(PROGRESS_EVERY_S, self._tick)
        self.leases.report()

    def link_up(self, link: End) -> None:
        """Nobody dials a gateway in the twin."""

    def link_message(self, link: End, message: AnyMessage) -> None:
        """See link_up."""

    def link_down(self, link: End, why: str) -> None:
        """See link_up."""


class _Dialled:
    """A peer's handler that hangs up when the dialling was given up meanwhile."""

    def __init__(self, peer: EnginePeer, dial: TwinDial) -> None:
        self._peer, self._dial = peer, dial

    def link_up(self, link: End) -> None:
        if self._dial.cancelled:
            link.handler = self  # nothing reaches the peer
            link.network.hang_up(link, "given up")
        else:
            link.handler = self._peer
            self._peer.link_up(link)  # type: ignore[arg-type]

    def link_message(self, link: End, message: AnyMessage) -> None:
        """A link that was given up."""

    def link_down(self, link: End, why: str) -> None:
        """A link that was given up."""


class TwinLeases:
    """The gateway's side of the queue: what services/queue/client.py does, on the twin's link."""

    def __init__(self, node: GatewayNode) -> None:
        self._node = node
        self._holders: dict[int, tuple[Choice, Acquire, float]] = {}
        self._granted: dict[int, Grant] = {}
        self._produced: dict[int, int] = {}
        self.redial = TwinRedial(node.network, node, node.queue, self)

    def acquire(self, acquire: Acquire, holder: Choice) -> None:
        self._holders[acquire.ticket] = (holder, acquire, self._node.sim.now_s)
        self._send(acquire)

    def cancel(self, ticket: int) -> None:
        self._holders.pop(ticket, None)
        self._send(CancelTicket(ticket))

    def release(self, release: Release) -> None:
        self._node.oracle.released(self._node.link_name, release)
        grant = self._granted.get(release.ticket)
        if grant is None or grant.lease_id == release.lease_id:
            self._granted.pop(release.ticket, None)
            self._produced.pop(release.ticket, None)
            self._holders.pop(release.ticket, None)
        self._send(release)

    def progress(self, ticket: int, num_tokens: int) -> None:
        self._produced[ticket] = self._produced.get(ticket, 0) + num_tokens

    @property
    def held(self) -> int:
        """Tickets that wait or run."""
        return len(self._holders)

    def report(self) -> None:
        """Every PROGRESS_EVERY_S: tokens so far; renews the leases."""
        if self._granted:
            tickets = tuple(self._granted)
            self._send(Progress(tickets, tuple(self._produced.get(ticket, 0) for ticket in tickets)))
            self._produced.clear()

    def _send(self, message: AnyMessage) -> None:
        if self.redial.link is not None:
            self.redial.link.send(message)

    def _asked(self, ticket: int) -> Acquire:
        """The registration again, older by the time since."""
        holder, acquire, asked_s = self._holders[ticket]
        waited_s = self._node.sim.now_s - asked_s
        return _later(acquire, waited_s, len(holder.flow.emitted))

    def link_up(self, link: End) -> None:
        for ticket in self._holders:
            grant = self._granted.get(ticket)
            if grant is None:
                link.send(self._asked(ticket))
            else:
                tokens = self._produced.pop(ticket, 0)
                link.send(Holding(self._asked(ticket), grant.lease_id, grant.engine_id, grant.epoch, tokens))

    def link_message(self, link: End, message: AnyMessage) -> None:
        if type(message) is Fence:
            self._node.mux.fence(message.engine_id, message.epoch)
            self._node.oracle.heard_fence(self._node.link_name, message)
            return
        assert isinstance(message, Grant | Refuse | Preempt)
        holding = self._holders.get(message.ticket)
        if holding is None:
            if type(message) is Grant:  # it was cancelled meanwhile
                self._send(Release(message.ticket, message.lease_id, 0, 0, Outcome.CANCELLED))
            return
        holder = holding[0]
        if type(message) is Grant:
            if message.ticket not in self._granted:
                self._granted[message.ticket] = message
            holder.on_grant(message)
        elif type(message) is Refuse:
            if message.ticket not in self._granted:
                del self._holders[message.ticket]
            holder.on_refuse(message)
        elif type(message) is Preempt:
            holder.on_preempt(message.lease_id)

    def link_down(self, link: End, why: str) -> None:
        """Streams go on; everything is told again when the link is back."""


class WatchedChoice(Choice):
    """The gateway's own Choice, with the oracle looking on."""

    def __init__(self, generation: TwinGeneration, index: int, flow: ChoiceFlow, text: TextStage) -> None:
        super().__init__(generation, index, flow, text)  # type: ignore[arg-type]
        self.generation = generation

    def on_frame(self, frame: TokenFrame) -> None:
        self.generation.oracle.frame(self.generation.node.link_name, self, frame)
        super().on_frame(frame)


class TwinGeneration:
    """What services.gateway.generation.Generation is to its choices, without an event loop."""

    want_logprobs = False

    def __init__(self, node: GatewayNode, ask: Ask, ids: count[int]) -> None:
        self.node, self.ask, self.oracle = node, ask, node.oracle
        self.clock, self.leases, self.engines, self.observer = node, node.leases, node, node
        self.ended = False
        self.choices: list[WatchedChoice] = []
        now_s = node.sim.now_s
        for index in range(ask.choices):
            sampling = seeded(ask.sampling, index)
            told = msgspec.structs.replace(sampling, stop=())  # engines know no stop strings
            job = GenerateJob(ask.request_id, ask.prompt, told, cache_salt=ask.tenant)
            template = Acquire(
                0, f"{ask.request_id}.{index}", node.model, ask.tenant, ask.band, len(ask.prompt) // 4,
                sampling.max_tokens, 0.0, 0.0, ask.weight, preemptible=ask.band != "vip",
            )  # fmt: skip
            flow = ChoiceFlow(
                job, template, arrived_s=now_s, deadline_s=now_s + ask.patience_s, next_id=ids.__next__,
                budget=node.budget,
            )  # fmt: skip
            stops = StopMatcher(sampling.stop) if sampling.stop else None
            text = TextStage(SimTextDecoder(), stops)
            self.choices.append(WatchedChoice(self, index, flow, text))

    def start(self) -> None:
        self.oracle.arrived(self)
        for choice in self.choices:
            choice.apply(choice.flow.start(self.node.sim.now_s))

    def token_text(self, token_id: int, logprob: TokenLogprob) -> TokenText:
        raise AssertionError("the twin asks for no logprobs")

    def deltas(self, delta: Delta) -> None:
        self.oracle.shown(self, delta)

    def finished(self, choice: Choice) -> None:
        self.oracle.closed(self.node.link_name, choice.flow.stream_id)
        self.oracle.finished(self, choice)
        if all(one.flow.phase is Phase.DONE for one in self.choices):
            self._end()

    def failed(self, choice: Choice, error: MeshError, outcome: Outcome) -> None:
        self.stop_with(error, outcome)

    def overdue(self) -> None:
        error = OverloadError(Reason.DEADLINE_EXCEEDED, "the request's deadline has passed")
        self.stop_with(error, Outcome.EVICTED)

    def stop_with(self, error: MeshError, outcome: Outcome) -> None:
        if self.ended:
            return
        self._end()
        self.oracle.failed(self, error, outcome)
        for choice in self.choices:
            if choice.flow.phase is not Phase.DONE:
                choice.apply(choice.flow.on_abort(error))

    def _end(self) -> None:
        self.ended = True
        self.node.generations.pop(self.ask.request_id, None)


def _later(acquire: Acquire, waited_s: float, emitted: int) -> Acquire:
    """A registration told again: older, with less time left."""
    age_s, remaining_s = acquire.age_s + waited_s, acquire.remaining_s - waited_s
    return msgspec.structs.replace(
        acquire, age_s=age_s, remaining_s=remaining_s, emitted_tokens=emitted, registered=True
    )
