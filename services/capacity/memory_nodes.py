"""Machines in memory: the port's fake, for the twin, for tests and for `dev`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count

from services.capacity.nodes import Bounds, NodesError, PoolView, Received
from services.capacity.notices import BadNotice, Hook, Notice, parse_event


@dataclass(slots=True)
class _Group:
    min_size: int
    max_size: int
    instances: dict[str, str] = field(default_factory=dict[str, str])  # id -> starting | serving | leaving
    desired: int = 0


class MemoryNodes:
    """Groups that launch at once; `hold_launches` keeps new nodes in `starting`, as scarce spot does."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._ids = count(1)
        self.hold_launches = False
        self.answered: list[tuple[str, Hook]] = []

    def add_group(self, asg: str, min_size: int, max_size: int) -> None:
        """Make a group of `min_size` nodes."""
        self._groups[asg] = _Group(min_size, max_size)
        self.set_desired(asg, min_size)

    def launch_held(self) -> None:
        """Let every held node serve."""
        for group in self._groups.values():
            group.instances = {i: "serving" if s == "starting" else s for i, s in group.instances.items()}

    def lose(self, instance_id: str) -> None:
        """The cloud takes the machine; the group replaces it."""
        for group in self._groups.values():
            if group.instances.pop(instance_id, None) is not None:
                self._fill(group)

    def view(self, asgs: tuple[str, ...]) -> dict[str, PoolView]:
        return {name: self._view(name, self._groups[name]) for name in asgs if name in self._groups}

    def set_desired(self, asg: str, size: int) -> None:
        group = self._groups.get(asg)
        if group is None:
            raise NodesError(f"no group {asg}")
        if not group.min_size <= size <= group.max_size:
            raise NodesError(f"size {size} of {asg} is outside {group.min_size}..{group.max_size}")
        group.desired = size
        self._fill(group)

    def answer_hook(self, instance_id: str, hook: Hook) -> None:
        if (instance_id, hook) not in self.answered:
            self.answered.append((instance_id, hook))

    def terminate(self, instance_id: str) -> None:
        for name, group in self._groups.items():
            if instance_id in group.instances:
                if group.desired - 1 < group.min_size:
                    raise NodesError(f"{name} may not shrink below {group.min_size}")
                del group.instances[instance_id]
                group.desired -= 1

    def _fill(self, group: _Group) -> None:
        while len(group.instances) < group.desired:
            group.instances[f"i-{next(self._ids):017x}"] = "starting" if self.hold_launches else "serving"

    @staticmethod
    def _view(name: str, group: _Group) -> PoolView:
        def having(state: str) -> tuple[str, ...]:
            return tuple(i for i, s in group.instances.items() if s == state)

        bounds = Bounds(group.min_size, group.max_size)
        return PoolView(name, group.desired, having("starting"), having("serving"), having("leaving"), bounds)


class MemoryNoticeQueue:
    """A queue that redelivers what nobody acknowledged."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, str]] = deque()
        self._numbers = count(1)

    def send(self, body: str) -> None:
        """Put one EventBridge event in."""
        self._waiting.append((str(next(self._numbers)), body))

    def receive(self, wait_s: float) -> tuple[Received, ...]:
        return tuple(Received(_read(body), receipt) for receipt, body in list(self._waiting)[:10])

    def acknowledge(self, receipt: str) -> None:
        self._waiting = deque(item for item in self._waiting if item[0] != receipt)


def _read(body: str) -> Notice | None:
    try:
        return parse_event(body)
    except BadNotice:
        return None
