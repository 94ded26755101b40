"""What an engine's messages, and its absence, mean to the queue: the engines' part of scheduler.py.

Rules: as there.
"""

from __future__ import annotations

from ..link.messages import EngineAccepted, EngineDrain, EngineLoad, EngineUp, Fence, Preempt
from .engines import EngineState
from .entry import LEASED
from .events import ToAllGateways, ToEngine
from .rollout.counts import LOST
from .state import QueueState


class EngineMoves:
    """Base of Scheduler."""

    state: QueueState

    def _engine_up(self, message: EngineUp, now_s: float) -> None:
        state = self.state
        engine, replaced = state.fleet.register(message, now_s)
        state.costs.meet(engine)
        if replaced is not None:
            self._abandon(replaced)
        for entry in state.fleet.limbo.pop(message.engine_id, ()):
            if entry.state != LEASED:
                continue
            if entry.epoch == engine.epoch:
                state.attach(entry, engine)
            else:
                state.tell(entry, Preempt(entry.ticket, entry.lease_id))
                state.end_lease(entry)
        state.prefixes.capacity = max(1024, state.fleet.prefix_blocks())
        state.resize()
        state.effects.append(ToEngine(engine.engine_id, EngineAccepted(engine.engine_id, engine.epoch)))

    def _engine_load(self, message: EngineLoad, now_s: float) -> None:
        engine = self.state.fleet.engines.get(message.engine_id)
        if engine is not None:
            before = engine.capacity
            engine.load(message, now_s)
            slowdown = self.state.calm.strictest(now_s)[1]
            engine.calm.look(message.running, message.step_s, slowdown, now_s)
            if engine.capacity != before:
                self.state.resize()

    def _engine_drain(self, message: EngineDrain, now_s: float) -> None:
        if message.lost:
            for engine in self.state.fleet.lose(message.engine_id):
                self._abandon(engine)
        else:
            self.state.fleet.leave(message.engine_id, draining=True)
        self.state.resize()

    def _engine_unlinked(self, engine_id: str) -> None:
        self.state.fleet.leave(engine_id, draining=False)
        self._dismiss(self.state.fleet.engines.get(engine_id))
        self.state.resize()

    def _dismiss(self, engine: EngineState | None) -> None:
        """An engine that drained and left in order is forgotten at once: nobody need wait for its silence."""
        if engine is not None and engine.draining and not engine.linked and not engine.leases:
            self.state.fleet.remove(engine)
            self.state.prefixes.forget(engine.bit)

    def _abandon(self, engine: EngineState) -> None:
        """Fence an engine: its streams are abandoned everywhere, its leases are over."""
        for entry in list(engine.leases.values()):
            if not engine.draining:
                self.state.ends.end(LOST)
            self.state.end_lease(entry)
        self.state.prefixes.forget(engine.bit)
        self.state.effects.append(ToAllGateways(Fence(engine.engine_id, engine.epoch)))
