"""One rank in the twin: the simulated engine's timing core behind the real stream table and the real liveness rule.

Rules: replaces services/experts/rank.py's asyncio (timers, sockets), nothing that decides. Its address names the
incarnation, so that a gateway with an old lease does not reach the new process.
"""

from __future__ import annotations

from ..experts.engine import EngineInfo, Sink
from ..experts.liveness import LivenessState, Verdict, begin, observe
from ..experts.sim_model import SimModel, SimTiming
from ..experts.stream_table import StreamTable
from ..link.messages import AnyMessage, EngineAccepted, EngineDrain, EngineLoad, EngineUp
from ..outcome import Reason
from ..request import GenerateJob
from .kernel import Process, Simulation
from .network import End, Network
from .redial import TwinRedial

LOAD_EVERY_S = 0.1
STUCK_AFTER_S = 1.0
RESTART_S = 0.5


class EngineNode(Process):
    """`queue` is the name of the queue's process. Handler of the links that gateways open (through the table)."""

    def __init__(
        self, sim: Simulation, network: Network, name: str, queue: str, timing: SimTiming, model: str = "sim", pool: str = "default"
    ) -> None:  # fmt: skip
        super().__init__(sim, name)
        self.network, self.queue, self.timing, self.model_name, self.pool = (
            network,
            queue,
            timing,
            model,
            pool,
        )
        self.model = SimModel(timing)
        self.wedged = False
        self.slow = 1.0
        self.retired = False
        network.add(self)

    @property
    def address(self) -> str:
        return f"{self.name}#{self.incarnation}"

    def boot(self) -> None:
        self.model = SimModel(self.timing)
        self.model.slow = self.slow
        self.wedged = self.stepping = False
        self.draining = False
        self.table = StreamTable(self, self._on_empty)  # type: ignore[arg-type]
        self.liveness: LivenessState = begin(STUCK_AFTER_S, LOAD_EVERY_S, self.sim.now_s)
        self.redial = TwinRedial(self.network, self, self.queue, _QueueSide(self))
        self.redial.start()
        self.after(LOAD_EVERY_S, self._tick)

    # the engine port, for the table -----------------------------------------------------------------------

    async def start_engine(self) -> EngineInfo:
        """Not called: the node is its own life cycle."""
        raise NotImplementedError

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> None:
        error = self.model.submit(stream_id, job, sink)
        if error is not None:
            sink(error)
        elif not self.stepping and not self.wedged:
            self.stepping = True
            self.after(0.0, self._plan)

    def abort(self, stream_id: int) -> None:
        self.model.abort(stream_id)

    def _plan(self) -> None:
        seconds = None if self.wedged else self.model.begin_step()
        self.stepping = seconds is not None
        if seconds is not None:
            self.after(seconds, self._step)

    def _step(self) -> None:
        if not self.wedged:
            self.model.end_step()
        self._plan()

    # links of gateways ------------------------------------------------------------------------------------

    def link_up(self, link: End) -> None:
        self.table.link_up(link)  # type: ignore[arg-type]

    def link_message(self, link: End, message: AnyMessage) -> None:
        self.table.link_message(link, message)  # type: ignore[arg-type]

    def link_down(self, link: End, why: str) -> None:
        self.table.link_down(link, why)  # type: ignore[arg-type]

    # the queue --------------------------------------------------------------------------------------------

    def tell_queue(self, message: AnyMessage) -> None:
        if self.redial.link is not None:
            self.redial.link.send(message)

    @property
    def stuck(self) -> bool:
        return self.liveness.verdict is Verdict.STUCK

    def announce(self, link: End) -> None:
        timing = self.timing
        link.send(
            EngineUp(
                self.name, self.address, self.model_name, timing.max_num_seqs, timing.kv_tokens,
                timing.block_tokens, timing.max_model_len, self.pool, "", self.table.epoch,
            )
        )  # fmt: skip
        if self.draining or self.stuck:
            link.send(EngineDrain(self.name, 0.0))

    def accepted(self, message: EngineAccepted) -> None:
        if message.epoch > self.table.epoch:
            self.table.fence(message.epoch)

    def _tick(self) -> None:
        self.after(LOAD_EVERY_S, self._tick)
        sample = self.model.sample_load()
        was_stuck = self.stuck
        self.liveness = observe(self.liveness, sample, self.sim.now_s)
        if self.stuck and not was_stuck:
            because = "no token moves"
            self.table.close(because)
            self.tell_queue(EngineDrain(self.name, 0.0))
            self.table.fail_all(Reason.ENGINE_LOST, because)
            self.after(RESTART_S, self._replace)
        self.tell_queue(
            EngineLoad(
                self.name,
                sample.running,
                sample.waiting,
                sample.kv_free_tokens,
                sample.step_s,
                sample.tokens_total,
            )
        )

    # faults -----------------------------------------------------------------------------------------------

    def running(self) -> list[tuple[str, int]]:
        """Streams now, as (gateway, stream id)."""
        links = self.table._links  # noqa: SLF001  # type: ignore[reportPrivateUsage]
        return [(link.name, stream_id) for link, mine in links.items() for stream_id in mine]

    def recover_speed(self) -> None:
        self.slow = self.model.slow = 1.0

    def crash(self, restart_s: float, *, silent: bool = False) -> None:
        """kill -9 (or the host's end, `silent`), and a new process later."""
        if not self.alive or self.retired:
            return
        self.network.killed(self, silent=silent)
        self.kill()
        self.sim.at(self.sim.now_s + restart_s, None, self._restart)

    def _restart(self) -> None:
        if not self.alive and not self.retired:
            self.start()

    def _replace(self) -> None:
        """The supervisor replaces a rank that reports itself stuck."""
        self.crash(RESTART_S)

    def drain(self, notice_s: float, back_after_s: float) -> None:
        """An interruption notice: cordon, finish or hand back, gone; another machine comes later."""
        if not self.alive or self.draining:
            return
        self.sim.note(self.name, f"drains, {notice_s} s notice")
        self.draining = True
        self.tell_queue(EngineDrain(self.name, notice_s))
        self.after(0.8 * notice_s, self._hand_back)
        self.after(notice_s, self._vanish, back_after_s)

    def _hand_back(self) -> None:
        self.table.close("this engine drains")
        self.table.fail_all(Reason.DRAINING, "the engine drains")

    def _vanish(self, back_after_s: float) -> None:
        self.crash(back_after_s, silent=True)

    def _on_empty(self) -> None:
        """A drained engine may leave at once; the twin lets it wait for its notice to end."""


class _QueueSide:
    """Handler of the rank's link to the queue."""

    def __init__(self, node: EngineNode) -> None:
        self._node = node

    def link_up(self, link: End) -> None:
        self._node.announce(link)

    def link_message(self, link: End, message: AnyMessage) -> None:
        if type(message) is EngineAccepted and message.engine_id == self._node.name:
            self._node.accepted(message)

    def link_down(self, link: End, why: str) -> None:
        """The redial keeps trying; streams go on without a queue."""
