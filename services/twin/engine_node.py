"""One rank's process in the twin: the real rank, stream table, liveness and simulated engine.

Rules: replaces the rank's sockets and its supervisor (Ray Serve's health check and restarts), nothing that decides.
Its address names the incarnation, so that a gateway with an old lease does not reach the new process.
"""

from __future__ import annotations

import msgspec

from ..experts.rank import Rank
from ..experts.sim_engine import SimEngine
from ..experts.sim_model import SimTiming
from ..link.messages import AnyMessage
from .kernel import Process, Simulation
from .network import End, Network
from .redial import TwinRedial, TwinServer

HEALTH_EVERY_S = 0.5
RESTART_S = 0.5


class Usage(msgspec.Struct, frozen=True):
    """`busy_s` in steps; `seq_s` weighted by the streams in them; tokens produced."""

    busy_s: float = 0.0
    seq_s: float = 0.0
    tokens: int = 0


class EngineNode(Process):
    """`queue` is the name of the queue's process. Handler of the links that gateways open (through the table)."""

    def __init__(
        self,
        sim: Simulation,
        network: Network,
        name: str,
        queue: str,
        timing: SimTiming,
        *,
        model: str,
        pool: str,
        revision: str = "",
    ) -> None:
        super().__init__(sim, name)
        self.network, self.queue, self.timing, self.model, self.pool = network, queue, timing, model, pool
        self.revision = revision
        self.slow = 1.0
        self.draining = False
        self._before = Usage()
        network.add(self)

    def boot(self) -> None:
        self.draining = False
        self.engine = SimEngine(self.timing, self.model, self.revision)
        self.engine.slow = self.slow
        self.rank = rank = Rank(
            self.engine, engine_id=self.name, resolve_queue=_nowhere, key=b"twin", pool=self.pool, clock=self,
            on_retired=self._retired,
        )  # fmt: skip
        rank._server = TwinServer(f"{self.name}#{self.incarnation}")  # type: ignore[assignment]
        rank._redial = TwinRedial(self.network, self, self.queue, rank)  # type: ignore[assignment,arg-type]
        self.loop.create_task(rank.start())
        self.after(HEALTH_EVERY_S, self._check_health)

    # links of gateways ------------------------------------------------------------------------------------

    def link_up(self, link: End) -> None:
        self.rank.streams.link_up(link)  # type: ignore[arg-type]

    def link_message(self, link: End, message: AnyMessage) -> None:
        self.rank.streams.link_message(link, message)  # type: ignore[arg-type]

    def link_down(self, link: End, why: str) -> None:
        self.rank.streams.link_down(link, why)  # type: ignore[arg-type]

    def running(self) -> list[tuple[str, int]]:
        """Streams now, as (gateway, stream id)."""
        links = self.rank.streams._links  # type: ignore[reportPrivateUsage]
        return [(link.name, stream_id) for link, mine in links.items() for stream_id in mine]

    def num_computing(self) -> int:
        """Streams inside the engine."""
        return self.engine.num_streams

    def usage(self) -> Usage:
        """Work of all its lives so far."""
        model, before = self.engine._model, self._before  # type: ignore[reportPrivateUsage]
        return Usage(
            before.busy_s + model.busy_s, before.seq_s + model.seq_s, before.tokens + model.tokens_total
        )

    # faults -----------------------------------------------------------------------------------------------

    def _check_health(self) -> None:
        if self.rank.stuck:
            self.crash(RESTART_S)
        else:
            self.after(HEALTH_EVERY_S, self._check_health)

    def crash(self, restart_s: float, *, silent: bool = False) -> None:
        """kill -9 (or the host's end, `silent`), and a new process later."""
        if not self.alive:
            return
        self._before = self.usage()
        self.network.killed(self, silent=silent)
        self.kill()
        self.sim.at(self.sim.now_s + restart_s, None, self._restart)

    def _retired(self) -> None:
        """It was asked to go and has drained: its process ends in order, and Serve starts another."""
        self.after(0.0, self.crash, RESTART_S)

    def _restart(self) -> None:
        if not self.alive:
            self.start()

    def wedge(self) -> None:
        """Alive, but no token moves."""
        if self.alive:
            self.engine.wedge()

    def slow_down(self, factor: float) -> None:
        self.slow = factor
        if self.alive:
            self.engine.slow = factor

    def drain(self, notice_s: float, back_after_s: float) -> None:
        """An interruption notice: cordon, finish or hand back, gone; another machine comes later."""
        if not self.alive or self.stopped or self.draining:
            return
        self.sim.note(self.name, f"drains, {notice_s} s notice")
        self.draining = True
        self.after(0.0, self._begin_drain, notice_s)
        self.after(notice_s, self._vanish, back_after_s)

    def _begin_drain(self, notice_s: float) -> None:
        self.loop.create_task(self.rank.drain(0.8 * notice_s))

    def _vanish(self, back_after_s: float) -> None:
        self.crash(back_after_s, silent=True)


async def _nowhere() -> tuple[str, bytes]:
    raise NotImplementedError("the twin's links need no address")
