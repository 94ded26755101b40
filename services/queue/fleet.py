"""The fleet: registration, epochs, loss and the sum of room over all engines of one model.

Rules: state of engines and what is known of them from before a restart; tells nobody anything (scheduler.py does).

Epochs fence: what a gateway sends to an engine, and what the engine answers, carries the epoch of its registration.
An engine that only lost its link keeps its epoch; one that was fenced or began anew gets a higher one. `first_epoch`
is larger in every incarnation of the queue, so that an engine unknown to it can never get an old number.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..link.messages import EngineUp
from .engines import EngineState
from .entry import Entry

PREFIX_CAPACITY = 262_144


class Fleet:
    """Engines by id."""

    def __init__(self, first_epoch: int) -> None:
        self._first_epoch = first_epoch
        self.engines: dict[str, EngineState] = {}
        self.with_room: dict[int, EngineState] = {}
        """Engines with a free slot, by `order` (engines.py keeps it)."""
        self._fenced: dict[str, int] = {}
        self._lost: set[str] = set()
        """Groups, and engines without one, that said that they are dead."""
        self.limbo: dict[str, list[Entry]] = {}
        """Leases that gateways hold on engines which have not registered (yet), by engine."""
        self.longest_tokens = 0

    def register(self, message: EngineUp, now_s: float) -> tuple[EngineState, EngineState | None]:
        """The engine's state, and the earlier incarnation that it replaces, if there is one to fence."""
        old = self.engines.get(message.engine_id)
        if old is not None and message.epoch == old.epoch:
            old.linked, old.draining = True, self._is_lost(message)
            old.address, old.key = message.address, message.key
            old.silent_since_s = old.moved_s = now_s
            self.weigh(old)
            return old, None
        fenced = self._fenced.get(message.engine_id, 0)
        if old is None and message.epoch > fenced:
            epoch = message.epoch  # it served before this queue began: its streams go on
        else:
            epoch = max(fenced, message.epoch, old.epoch if old is not None else 0, self._first_epoch) + 1
        if old is not None:
            self.remove(old)
        state = EngineState(message, epoch, self._free_order(), now_s)
        state.draining = self._is_lost(message)
        self.engines[message.engine_id], state.with_room = state, self.with_room
        self._measure()
        self.weigh(state)
        return state, old

    def remove(self, engine: EngineState) -> None:
        """Fence: this epoch and all lower ones are out."""
        self._fenced[engine.engine_id] = max(engine.epoch, self._fenced.get(engine.engine_id, 0))
        self.engines.pop(engine.engine_id, None)
        if self.with_room.get(engine.order) is engine:
            del self.with_room[engine.order]
        engine.with_room = {}  # leases that it has still end without a word to us
        self._measure()

    def lose(self, engine_id: str) -> list[EngineState]:
        """An engine said that it is dead: it and its group are out, and what registers of them again gets no leases,
        unless it began anew. Returns whom to fence."""
        engine = self.engines.get(engine_id)
        if engine is None or (engine.group or engine_id) in self._lost:
            return []
        self._lost.add(engine.group or engine_id)
        members = self.group_of(engine)
        for member in members:
            self.remove(member)
        return members

    def _is_lost(self, message: EngineUp) -> bool:
        name = message.group or message.engine_id
        if not message.epoch:
            self._lost.discard(name)
        return name in self._lost

    def group_of(self, engine: EngineState) -> list[EngineState]:
        """The engines that live and die with this one, itself included."""
        if not engine.group:
            return [engine]
        return [other for other in self.engines.values() if other.group == engine.group]

    def leave(self, engine_id: str, *, draining: bool) -> None:
        """It drains, or else its link is down: no new leases, for its group neither where the link is down."""
        engine = self.engines.get(engine_id)
        if engine is not None:
            engine.draining, engine.linked = engine.draining or draining, engine.linked and draining
            self.weigh(engine)

    def weigh(self, engine: EngineState) -> None:
        """Its link or its drain changed: who of its group may get new leases."""
        members = self.group_of(engine)
        whole = all(member.linked for member in members)
        for member in members:
            member.up = whole and not member.draining
            member.note_room()

    def is_fenced(self, engine_id: str, epoch: int) -> bool:
        return epoch <= self._fenced.get(engine_id, 0)

    def _measure(self) -> None:
        self.longest_tokens = max((e.max_model_len for e in self.engines.values()), default=0)

    def _free_order(self) -> int:
        """The lowest free bit, so that bit sets stay small however many engines come and go."""
        taken = {engine.order for engine in self.engines.values()}
        return next(i for i in range(len(taken) + 1) if i not in taken)

    def any_calm(self) -> bool:
        """Whether some engine has a slot that begins at once."""
        return any(engine.used < engine.capacity_at_once for engine in self.with_room.values())

    def token_s(self, now_s: float) -> float:
        """Seconds per token of the engine that is fastest now; 0 where one idles, or nothing is known."""
        return min((engine.token_s(now_s) for engine in self.engines.values() if engine.up), default=0.0)

    def tokens_per_s(self) -> float:
        """What all engines make with every slot taken, by the step times that they report; 0 while unknown."""
        return sum(e.capacity / e.model.fit.at(e.capacity) for e in self.engines.values() if e.up)

    def slots(self, pool_of: dict[str, int], num_bands: int) -> tuple[int, list[int]]:
        """Slots of shared engines, and per band those of engines in its own pool."""
        shared, own = 0, [0] * num_bands
        for engine in self.engines.values():
            if not engine.up:
                continue
            band = pool_of.get(engine.pool)
            if band is None:
                shared += engine.capacity
            else:
                own[band] += engine.capacity
        return shared, own

    def prefix_blocks(self) -> int:
        """How many blocks all KV caches hold together: as much as the prefix index should remember."""
        return min(PREFIX_CAPACITY, sum(e.kv_tokens // e.block_tokens for e in self.engines.values()))

    def dead(self, now_s: float, silent_s: float) -> Iterable[tuple[EngineState, str]]:
        """Engines to fence now, with the reason: the dead, and what lives and dies with them."""
        dead = [(e, why) for e in self.engines.values() if (why := e.dead(now_s, silent_s))]
        known = {e.engine_id for e, _ in dead}
        for engine, why in list(dead):
            for other in self.group_of(engine):
                if other.engine_id not in known:
                    known.add(other.engine_id)
                    dead.append((other, f"its group's {engine.engine_id} is {why}"))
        return dead

    def check_integrity(self) -> None:
        open_ones = {e.order: e for e in self.engines.values() if e.up and e.used < e.capacity}
        assert self.with_room == open_ones
        for engine in self.engines.values():
            assert len({e.order for e in self.engines.values()}) == len(self.engines)
            holders = [entry for entry in engine.leases.values() if entry.state == 1]
            assert engine.used == len(holders), (
                f"{engine.engine_id}: {engine.used} used, {len(holders)} leases"
            )
            assert engine.kv_reserved == sum(entry.wanted_tokens for entry in holders)
