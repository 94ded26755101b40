"""How a node goes: decide(state, event, now_s, policy) -> (state, effects). Pure.

Belongs here: the order of cordon, replacement, migration, drain and farewell. Must not know: AWS's messages
(`notices`), Ray, boto3, clocks.

The rules, each a property in tests/properties/capacity:
 1. An interruption acts at once: cordon, migrate streams, drain with deadline min(drain_seconds,
    remaining - reserve), in this order, and never waits for a replacement.
 2. A rebalance asks for a replacement first; the node serves until the replacement is ready, then it is
    cordoned and drained without a deadline. No replacement within its patience: the node goes on serving.
 3. A node that its pool gives up drains within drain_seconds: Serve ends a replica on a draining node when another
    one has taken its place or the deadline is near, and a pool that shrinks has no place for another one. For the
    same reason a drain without a deadline that lasts longer than its patience gets one.
 4. What was said twice (metadata and queue, or a redelivery) is done once; only an earlier deadline is news.
 5. A deadline never moves later.
 6. Each lifecycle hook is answered exactly once: when its node has drained, or at the deadline.
 7. After its farewell a node is forgotten only when it is gone; until then no late message revives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType

from services.capacity.notices import Hook, Notice, Signal
from services.config_capacity import DrainConfig


class Phase(IntEnum):
    """Only ever rises, but for a rebalance that found no replacement."""

    SERVING = 0
    AWAITING_REPLACEMENT = 1
    DRAINING = 2
    DRAINED = 3


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node. `deadline_s` on the caller's clock; None = no deadline."""

    phase: Phase = Phase.SERVING
    deadline_s: float | None = None
    asked_s: float = 0.0
    hook: Hook | None = None
    hook_answered: bool = False
    terminate_when_drained: bool = False


@dataclass(frozen=True, slots=True)
class State:
    nodes: Mapping[str, NodeState] = field(default_factory=lambda: MappingProxyType({}))


# ---------------------------------------------------------------- events
@dataclass(frozen=True, slots=True)
class Noticed:
    """A notice, with the seconds it leaves (None: no deadline), measured when it was read."""

    notice: Notice
    remaining_s: float | None


@dataclass(frozen=True, slots=True)
class ScaleIn:
    """The pool controller gives this node up."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class ReplacementReady:
    """A node that stands in for this one serves."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing runs on the node any more."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The machine no longer exists."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = Noticed | ScaleIn | ReplacementReady | Drained | Gone | Tick


# ---------------------------------------------------------------- effects
@dataclass(frozen=True, slots=True)
class Replace:
    """Bring up another node of the same pool; tell me with ReplacementReady."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Cordon:
    """No new work for the node."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class MigrateStreams:
    """Resubmit the node's running requests elsewhere within `within_s`."""

    instance_id: str
    within_s: float


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Tell Ray. `within_s` None: take your time."""

    instance_id: str
    within_s: float | None
    preempted: bool


@dataclass(frozen=True, slots=True)
class AnswerHook:
    """Let Auto Scaling go on."""

    instance_id: str
    hook: Hook


@dataclass(frozen=True, slots=True)
class Terminate:
    """End the machine and lower the group's desired size by one."""

    instance_id: str


Effect = Replace | Cordon | MigrateStreams | DrainNode | AnswerHook | Terminate


def decide(state: State, event: Event, now_s: float, policy: DrainConfig) -> tuple[State, tuple[Effect, ...]]:
    """One step. No side effects; unknown nodes are fine everywhere."""
    if isinstance(event, Tick):
        return _tick(state, now_s, policy)
    key = event.notice.instance_id if isinstance(event, Noticed) else event.instance_id
    if isinstance(event, Gone):
        return _with(state, key, None), ()
    node = state.nodes.get(key, NodeState())
    match event:
        case Noticed(notice, remaining_s):
            node, effects = _noticed(node, notice, remaining_s, now_s, policy)
        case ScaleIn():
            node = replace(node, terminate_when_drained=True)
            node, effects = _begin(node, key, policy.drain_seconds, now_s, preempted=False)
        case ReplacementReady():
            waiting = node.phase is Phase.AWAITING_REPLACEMENT
            node, effects = _begin(node, key, None, now_s, preempted=True) if waiting else (node, ())
        case Drained():
            node, effects = _drained(node, key)
    if node == NodeState():
        return state, effects
    return _with(state, key, node), effects


def _noticed(
    node: NodeState, notice: Notice, remaining_s: float | None, now_s: float, policy: DrainConfig
) -> tuple[NodeState, tuple[Effect, ...]]:
    key = notice.instance_id
    match notice.signal:
        case Signal.INTERRUPTION:
            left_s = policy.drain_seconds if remaining_s is None else remaining_s - policy.reserve_s
            return _begin(node, key, max(0.0, min(policy.drain_seconds, left_s)), now_s, preempted=True)
        case Signal.REBALANCE:
            if node.phase is not Phase.SERVING:
                return node, ()
            return replace(node, phase=Phase.AWAITING_REPLACEMENT, asked_s=now_s), (Replace(key),)
        case Signal.TERMINATING:
            if node.hook is not None and node.hook == notice.hook:
                return node, ()
            node = replace(node, hook=notice.hook, hook_answered=False, terminate_when_drained=False)
            if node.phase is Phase.DRAINED:
                return _answer(node, key)
            return _begin(node, key, policy.drain_seconds, now_s, preempted=False)
        case Signal.LAUNCHING:
            return node, ()  # the node answers its own join hook, when it is healthy


def _begin(
    node: NodeState, key: str, within_s: float | None, now_s: float, *, preempted: bool
) -> tuple[NodeState, tuple[Effect, ...]]:
    """Start the drain, or tighten the one that runs."""
    if node.phase is Phase.DRAINED:
        return node, ()
    deadline_s = None if within_s is None else now_s + within_s
    if node.phase is Phase.DRAINING:
        if (
            within_s is None
            or deadline_s is None
            or (node.deadline_s is not None and deadline_s >= node.deadline_s)
        ):
            return node, ()
        return replace(node, deadline_s=deadline_s), (
            MigrateStreams(key, within_s),
            DrainNode(key, within_s, preempted),
        )
    node = replace(node, phase=Phase.DRAINING, deadline_s=deadline_s, asked_s=now_s)
    if within_s is None:
        return node, (Cordon(key), DrainNode(key, None, preempted))
    return node, (Cordon(key), MigrateStreams(key, within_s), DrainNode(key, within_s, preempted))


def _drained(node: NodeState, key: str) -> tuple[NodeState, tuple[Effect, ...]]:
    if node.phase is not Phase.DRAINING:
        return node, ()
    node = replace(node, phase=Phase.DRAINED)
    if node.hook is not None:
        return _answer(node, key)
    return node, (Terminate(key),) if node.terminate_when_drained else ()


def _answer(node: NodeState, key: str) -> tuple[NodeState, tuple[Effect, ...]]:
    if node.hook is None or node.hook_answered:
        return node, ()
    return replace(node, hook_answered=True), (AnswerHook(key, node.hook),)


def _tick(state: State, now_s: float, policy: DrainConfig) -> tuple[State, tuple[Effect, ...]]:
    effects: list[Effect] = []
    nodes = dict(state.nodes)
    for key, node in state.nodes.items():
        if node.phase is Phase.DRAINING and node.deadline_s is not None and now_s >= node.deadline_s:
            nodes[key], more = _drained(node, key)
            effects += more
        elif now_s - node.asked_s < policy.replacement_patience_s:
            continue
        elif node.phase is Phase.AWAITING_REPLACEMENT:
            nodes[key] = replace(node, phase=Phase.SERVING)
        elif node.phase is Phase.DRAINING and node.deadline_s is None:
            nodes[key], more = _begin(node, key, policy.drain_seconds, now_s, preempted=False)
            effects += more
    return (State(MappingProxyType(nodes)), tuple(effects)) if nodes != dict(state.nodes) else (state, ())


def _with(state: State, key: str, node: NodeState | None) -> State:
    nodes = {k: v for k, v in state.nodes.items() if k != key}
    if node is not None:
        nodes[key] = node
    return State(MappingProxyType(nodes))
