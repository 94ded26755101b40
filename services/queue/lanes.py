"""One queue per revision of a model, and which of them a message is for.

Rules: schedulers and desks, no links; the authority carries messages between them and the world. Revisions do not
share a queue because they do not share engines: a revision that is full, or slow, must not stand before the other in
one line. A request is in the lane that its gateway chose for it (rollout/weights.py); one that waits in a lane that
gets no sessions any more moves to another, unless its answer has begun: that ends where it began.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import msgspec

from ..config import QueueConfig
from ..link.messages import Acquire, EngineUp, Holding, Revisions
from ..outcome import Reason
from .entry import WAITING, Entry
from .events import Effect
from .rollout.desk import Desk
from .rollout.plan import FINAL, Seen
from .rollout.recycle import Recycling, Unit, next_unit
from .scheduler import Scheduler
from .stats import QueueSnapshot
from .view import snapshot

MAX_MODELS = 64
MAX_REVISIONS = 16
MAX_SILENT = 1000

Key = tuple[str, str]
"""Model and revision."""


class Lanes:
    """`incarnation` is greater in every start of the queue; nothing is granted before `grants_from_s`."""

    def __init__(self, config: QueueConfig, incarnation: int, grants_from_s: float) -> None:
        self.config = config
        self.desks: dict[str, Desk] = {}
        self._incarnation, self._grants_from_s = incarnation, grants_from_s
        self._schedulers: dict[Key, Scheduler] = {}
        self._empty_since_s: dict[Key, float] = {}
        self._unserved_since_s: dict[str, float] = {}
        self._made = 0
        self._recycling = Recycling()

    @property
    def all(self) -> list[Scheduler]:
        return list(self._schedulers.values())

    def __contains__(self, key: Key) -> bool:
        return key in self._schedulers

    def get(self, key: Key) -> Scheduler:
        return self._schedulers[key]

    def make(self, model: str, revision: str, now_s: float) -> Scheduler | None:
        """The lane's scheduler, new perhaps; None when there are too many."""
        scheduler = self._schedulers.get((model, revision))
        if scheduler is None:
            if model not in self.desks:
                if len(self.desks) >= MAX_MODELS:
                    return None
                self.desks[model] = Desk(model, self.config.rollout, 0)
            if sum(1 for name, _ in self._schedulers if name == model) >= MAX_REVISIONS:
                return None
            grace_s = max(0.0, self._grants_from_s - now_s)
            # Each numbers its leases from another place, which makes logs and tests readable.
            scheduler = Scheduler(self.config, incarnation=self._incarnation + self._made, grace_s=grace_s)
            self._made += 1
            self._schedulers[model, revision] = scheduler
        return scheduler

    def meet(self, engine: EngineUp, now_s: float) -> Scheduler | None:
        """The lane of an engine that comes; None when there are too many. Revisions share tokenizer and template: the
        card stays while engines serve the model."""
        scheduler = self.make(engine.model, engine.revision, now_s)
        if scheduler is not None:
            desk = self.desks[engine.model]
            if not desk.card or not any(s.state.fleet.engines for _, s in self.revisions(engine.model)):
                desk.card = engine.card
        return scheduler

    def for_acquire(self, message: Acquire, now_s: float) -> Scheduler | None:
        desk, revision = self.desks.get(message.model), message.revision
        if desk is not None:
            revision = desk.route(revision, message.pinned or message.emitted_tokens > 0, message.request_id)
        return self.make(message.model, revision, now_s)

    def for_holding(self, message: Holding, now_s: float) -> Scheduler | None:
        return self.make(message.acquire.model, message.revision or message.acquire.revision, now_s)

    # what there is ----------------------------------------------------------------------------------------

    def revisions(self, model: str) -> Iterator[tuple[str, Scheduler]]:
        return ((revision, s) for (name, revision), s in self._schedulers.items() if name == model)

    def seen(self, model: str, now_s: float) -> dict[str, Seen]:
        """What the desk decides by."""
        release = self.desks[model].release
        watched = release.plan.new if release is not None and release.phase not in FINAL else None
        seen: dict[str, Seen] = {}
        for revision, scheduler in self.revisions(model):
            state = scheduler.state
            fleet = state.fleet.engines.values()
            up = [engine for engine in fleet if engine.up]
            silent: list[float] = []
            if revision == watched:
                fresh = (entry for engine in up for entry in engine.leases.values())
                silent = [now_s - e.granted_s for e in fresh if not e.output_tokens and not e.emitted_tokens]
            seen[revision] = Seen(
                len(up),
                sum(engine.model.max_num_seqs for engine in up),
                sum(len(engine.leases) for engine in fleet) + state.resuming,
                state.ends.frozen(tuple(silent[:MAX_SILENT])),
            )
        return seen

    def units(self, now_s: float) -> dict[str, tuple[list[str], Unit]]:
        """What may be renewed: groups, or engines alone, with the ids of their engines."""
        found: dict[str, tuple[list[str], Unit]] = {}
        for (model, revision), scheduler in self._schedulers.items():
            for engine in scheduler.state.fleet.engines.values():
                name = engine.group or engine.engine_id
                ids, unit = found.get(name, ([], Unit(name, revision, 0.0, True, False, model)))
                age_s = max(unit.age_s, now_s - engine.born_s)
                leaving = unit.leaving or engine.draining
                found[name] = (
                    [*ids, engine.engine_id],
                    Unit(name, revision, age_s, unit.serves and engine.up, leaving, model),
                )
        return found

    def to_renew(self, now_s: float) -> str:
        """The worker that is to go now because of its age; "": none."""
        rollout = self.config.rollout
        self._recycling, name = next_unit(
            [unit for _, unit in self.units(now_s).values()], self._recycling, now_s,
            after_s=rollout.recycle_after_s, back_within_s=rollout.recycle_back_within_s,
        )  # fmt: skip
        return name

    def snapshots(self, now_s: float) -> tuple[QueueSnapshot, ...]:
        """One picture per lane: named by its model, and by its revision too where there are several."""
        out: list[QueueSnapshot] = []
        for model, revision in sorted(self._schedulers):
            several = sum(1 for _ in self.revisions(model)) > 1
            name = f"{model}@{revision}" if several else model
            state, table = self._schedulers[model, revision].state, self.desks[model].table
            out.append(
                msgspec.structs.replace(
                    snapshot(state, name, now_s), revision=revision, share=table.share(revision),
                    ended=state.ends.ended, lost=state.ends.bad,
                )
            )  # fmt: skip
        return tuple(out)

    # moving -----------------------------------------------------------------------------------------------

    def strays(self, now_s: float) -> list[tuple[Scheduler, str, Acquire]]:
        """Requests that wait where no sessions go any more, taken out: for which scheduler, of which gateway, how."""
        moves: list[tuple[Scheduler, str, Acquire]] = []
        for (model, revision), scheduler in list(self._schedulers.items()):
            desk = self.desks[model]
            if not desk.table.shares or desk.table.share(revision) > 0.0:
                continue
            for entry in _waiting(scheduler):
                if entry.pinned:
                    continue
                target = self.make(model, desk.route("", False, entry.request_id), now_s)
                if target is not None and target is not scheduler:
                    scheduler.state.drop(entry)
                    moves.append((target, entry.gateway, _as_acquire(entry, scheduler, model, now_s)))
        return moves

    def give_up(self, now_s: float) -> list[Effect]:
        """Answers that began with a revision of which there has been no engine for long, though others serve: they
        cannot be continued. Empty lanes of that kind are forgotten."""
        effects: list[Effect] = []
        for key, scheduler in list(self._schedulers.items()):
            state, desk = scheduler.state, self.desks[key[0]]
            if state.fleet.engines or not desk.table.shares or desk.table.share(key[1]) > 0.0:
                self._empty_since_s.pop(key, None)
                continue
            since_s = self._empty_since_s.setdefault(key, now_s)
            if now_s - since_s < self.config.rollout.gone_patience_s:
                continue
            state.effects = []
            for entry in _waiting(scheduler):
                text = f"this answer began with revision {key[1]!r} of the model, which is gone"
                state.refuse(entry, Reason.ENGINE_LOST, text)
            effects += state.effects
            if not any(state.gateways.values()) and not any(state.fleet.limbo.values()):
                del self._schedulers[key], self._empty_since_s[key]
        return effects

    def forget(self, served: Container[str], now_s: float) -> list[Revisions]:
        """Models of which no engine is left, and for which nobody waits, are forgotten after a while: what to tell the
        gateways. `served` are those that engines are linked for."""
        told: list[Revisions] = []
        for model, desk in list(self.desks.items()):
            states = [scheduler.state for _, scheduler in self.revisions(model)]
            if model in served or any(any(s.gateways.values()) or s.fleet.engines for s in states):
                self._unserved_since_s.pop(model, None)
            elif (
                now_s - self._unserved_since_s.setdefault(model, now_s) >= self.config.rollout.forget_model_s
            ):
                told.append(Revisions(model, desk.version + 1, ()))
                del self.desks[model], self._unserved_since_s[model]
                for key in [key for key in self._schedulers if key[0] == model]:
                    del self._schedulers[key]
                    self._empty_since_s.pop(key, None)
        return told


def _waiting(scheduler: Scheduler) -> list[Entry]:
    state = scheduler.state
    if not state.bands.waiting:
        return []
    return [e for table in state.gateways.values() for e in table.values() if e.state == WAITING]


def _as_acquire(entry: Entry, scheduler: Scheduler, model: str, now_s: float) -> Acquire:
    """What its gateway would say if it asked again now."""
    return Acquire(
        entry.ticket, entry.request_id, model, entry.tenant, scheduler.state.configs[entry.band].name,
        entry.prompt_tokens, entry.max_tokens, now_s - entry.arrived_s, entry.deadline_s - now_s, entry.weight,
        entry.prefix, entry.avoid, entry.emitted_tokens, entry.preemptible, registered=True,
        charged=entry.charged,
    )  # fmt: skip
