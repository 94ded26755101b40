"""The control loop's step: read ports, ask the pure planners, run the effects. Blocking, one caller.

Belongs here: which effect goes to which port, and what is tried again. Must not know: Ray, boto3, threads.
An effect that fails is kept and tried again at the next step; a notice is acknowledged only once its effects
are accepted, so that a controller that dies in between reads it again (rule 3 of `drain` makes that harmless).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from services.capacity import drain, pool_plan
from services.capacity.nodes import Nodes, NodesError, NoticeQueue, PoolView
from services.clock import Clock
from services.config_capacity import CapacityConfig, PoolConfig


class MeshDrainError(Exception):
    """The mesh did not take the drain; ask again."""


class MeshDrain(Protocol):
    """What the drain asks of the running mesh; `instance_id` is the cloud's name of a node."""

    def cordon(self, instance_id: str) -> None:
        """No new leases on the node. Raises MeshDrainError."""
        ...

    def migrate(self, instance_id: str, within_s: float) -> None:
        """Resubmit the node's running requests elsewhere. Returns at once. Raises MeshDrainError."""
        ...

    def drain(self, instance_id: str, within_s: float | None, preempted: bool) -> None:
        """Tell Ray. Raises MeshDrainError."""
        ...

    def is_empty(self, instance_id: str) -> bool:
        """Whether nothing of ours runs on the node any more (also true of a node that Ray does not know)."""
        ...


class Demand(Protocol):
    """Who says how many nodes are wanted (`queue_demand`)."""

    def __call__(
        self, pools: Mapping[str, PoolConfig], views: Mapping[str, PoolView], /
    ) -> Mapping[str, int]:
        """Nodes by pool, of pools as their groups allow and as they stand. Pools without an entry keep their size.
        Must not raise."""
        ...


class Controller:
    """All pools of one installation."""

    def __init__(
        self,
        config: CapacityConfig,
        nodes: Nodes,
        queue: NoticeQueue | None,
        mesh: MeshDrain,
        clock: Clock,
        demand: Demand,
    ) -> None:
        self._config, self._nodes, self._queue, self._mesh, self._clock, self._demand = (
            config,
            nodes,
            queue,
            mesh,
            clock,
            demand,
        )
        self._state = drain.State()
        self._memory = pool_plan.Memory()
        self._retry: list[drain.Effect] = []
        self._replacing: dict[
            str, frozenset[str]
        ] = {}  # node -> nodes that served when its replacement was asked for
        self.failures: list[str] = []
        self.views: Mapping[str, PoolView] = {}

    @property
    def state(self) -> drain.State:
        """For people and tests."""
        return self._state

    def step(self, wait_s: float = 0.0) -> None:
        """One round: notices, what has drained, time, sizes. Never raises for a cloud or a mesh that fails."""
        self.failures = []
        retry, self._retry = self._retry, []
        self._run(tuple(retry))
        self._hear(wait_s)
        self._tell(drain.Tick())
        try:
            views = self._nodes.view(tuple(p.asg for p in self._config.pools.values()))
        except NodesError as error:
            self.failures.append(f"view: {error}")
            return
        self._look(views)
        self._resize(views)

    def _hear(self, wait_s: float) -> None:
        if self._queue is None:
            return
        try:
            for received in self._queue.receive(wait_s):
                if received.notice is not None:
                    self._tell(
                        drain.Noticed(received.notice, received.notice.remaining_s(self._clock.wall_s()))
                    )
                self._queue.acknowledge(received.receipt)
        except NodesError as error:
            self.failures.append(f"queue: {error}")

    def _look(self, views: Mapping[str, PoolView]) -> None:
        """What became of the nodes that are on their way."""
        there = {i: v for v in views.values() for i in (*v.starting, *v.serving, *v.leaving)}
        for instance_id, node in list(self._state.nodes.items()):
            if (
                node.phase is not drain.Phase.SERVING
                and instance_id not in there
                and node.asked_s + 1 < self._clock.now_s()
            ):
                self._tell(drain.Gone(instance_id))
                self._replacing.pop(instance_id, None)
                # What a machine that no longer exists could not take would otherwise be tried for ever.
                self._retry = [effect for effect in self._retry if effect.instance_id != instance_id]
            elif node.phase is drain.Phase.DRAINING and self._mesh.is_empty(instance_id):
                self._tell(drain.Drained(instance_id))
            elif node.phase is drain.Phase.AWAITING_REPLACEMENT and instance_id in there:
                before = self._replacing.setdefault(instance_id, frozenset(there[instance_id].serving))
                if set(there[instance_id].serving) - before:
                    self._replacing.pop(instance_id)
                    self._tell(drain.ReplacementReady(instance_id))

    @property
    def lent(self) -> Mapping[str, int]:
        """Nodes that the fallback runs in a spot pool's place, by pool."""
        return {name: kept.lent for name, kept in self._memory.pools.items() if kept.lent}

    def _resize(self, views: Mapping[str, PoolView]) -> None:
        """Nodes that we drain count as leaving, though Auto Scaling still calls them in service."""
        going = {
            i for i, n in self._state.nodes.items() if n.phase in (drain.Phase.DRAINING, drain.Phase.DRAINED)
        }
        seen = {
            name: _without(views[p.asg], going) for name, p in self._config.pools.items() if p.asg in views
        }
        pools = {name: _as_allowed(p, views.get(p.asg)) for name, p in self._config.pools.items()}
        self.views = seen
        self._memory, actions = pool_plan.plan(
            self._memory, pools, seen, self._demand(pools, seen), self._clock.now_s(), self._config.scale
        )
        for action in actions:
            if isinstance(action, pool_plan.GiveUp):
                self._tell(drain.ScaleIn(action.instance_id))
                continue
            try:
                self._nodes.set_desired(action.asg, action.size)
            except NodesError as error:
                self.failures.append(f"resize {action.asg}: {error}")

    def _tell(self, event: drain.Event) -> None:
        self._state, effects = drain.decide(self._state, event, self._clock.now_s(), self._config.drain)
        self._run(effects)

    def _run(self, effects: tuple[drain.Effect, ...]) -> None:
        for effect in effects:
            try:
                self._run_one(effect)
            except (NodesError, MeshDrainError) as error:
                self.failures.append(f"{type(effect).__name__} {effect.instance_id}: {error}")
                self._retry.append(effect)

    def _run_one(self, effect: drain.Effect) -> None:
        match effect:
            case drain.Replace():
                pass  # Auto Scaling's capacity rebalance launches it; `_look` sees it serve
            case drain.Cordon(instance_id):
                self._mesh.cordon(instance_id)
            case drain.MigrateStreams(instance_id, within_s):
                self._mesh.migrate(instance_id, within_s)
            case drain.DrainNode(instance_id, within_s, preempted):
                self._mesh.drain(instance_id, within_s, preempted)
            case drain.AnswerHook(instance_id, hook):
                self._nodes.answer_hook(instance_id, hook)
            case drain.Terminate(instance_id):
                self._nodes.terminate(instance_id)


def _without(view: PoolView, going: set[str]) -> PoolView:
    leaving = tuple(dict.fromkeys((*view.leaving, *(i for i in view.serving if i in going))))
    # Auto Scaling's desired size no longer counts what it is terminating itself; ours still does.
    return PoolView(
        view.asg,
        view.desired,
        view.starting,
        tuple(i for i in view.serving if i not in going),
        tuple(i for i in leaving if i not in view.leaving),
        view.bounds,
    )


def _as_allowed(pool: PoolConfig, view: PoolView | None) -> PoolConfig:
    """The group's own bounds rule: an operator changes them without a new node anywhere."""
    if view is None or view.bounds is None:
        return pool
    allowed = view.bounds
    return pool.model_copy(
        update={
            "min_size": allowed.min_size,
            "max_size": allowed.max_size,
            "on_demand_base": allowed.on_demand_base,
        }
    )
