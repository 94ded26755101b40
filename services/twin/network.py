"""The twin's network: links as services/link keeps them, over hosts that lose sight of one another.

Rules: a link is ordered and loses nothing while it lives, as TCP; everything sent in one turn arrives as one frame.
A direction that is blocked holds frames back (retransmission) until it heals, or until the silent peer is declared
dead after `DEAD_AFTER_S` (services/link/asyncio_link.py). Different links overtake one another freely.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..link.messages import AnyMessage, Fence, Grant, Preempt, Refuse
from ..request import TokenFrame
from .kernel import Process, Simulation

DEAD_AFTER_S = 1.0
REPEATABLE = (TokenFrame, Grant, Refuse, Preempt, Fence)
"""What may come twice when a peer repeats itself after a reconnect: the receiver must not mind."""


class Handler(Protocol):
    """A link's owner, as services.link.asyncio_link.Handler."""

    def link_up(self, link: Any) -> None: ...
    def link_message(self, link: Any, message: AnyMessage) -> None: ...
    def link_down(self, link: Any, why: str) -> None: ...


class End:
    """One side of a link; quacks like services.link.asyncio_link.Link. `name` is the peer's name."""

    def __init__(self, network: Network, owner: Process, handler: Handler) -> None:
        self.network, self.owner, self.handler = network, owner, handler
        self.peer: End = self
        self.name = ""
        self.is_open = True
        self.connected = True  # False: this end knows that it is over
        self.silent = False  # it ended because its peer said nothing
        self.held: list[list[AnyMessage]] = []
        self._outbox: list[AnyMessage] | None = None
        self._last_arrival_s = 0.0
        self.incarnation = owner.incarnation

    def send(self, message: AnyMessage) -> None:
        """Goes with the frame of this turn; dropped when the link is over."""
        if not self.connected:
            return
        if self.network.sim.keep_log:
            self.network.sim.note(self.owner.name, f"→ {self.peer.owner.name}: {message}")
        if self._outbox is not None:
            self._outbox.append(message)
            return
        self._outbox = [message]
        self.network.ship(self, self._outbox)

    def close(self, why: str = "closed by us") -> None:
        """This side hangs up: it hears nothing more, its own handler is told at once."""
        self.silent = why == "silent"
        self.network.hang_up(self, why)

    def flushed(self, frame: list[AnyMessage]) -> None:
        if self._outbox is frame:
            self._outbox = None

    def arrival_s(self, at_s: float) -> float:
        """FIFO: never before what was sent earlier."""
        self._last_arrival_s = max(self._last_arrival_s, at_s)
        return self._last_arrival_s


class Network:
    """All links. `latency_s` is the mean one-way delay; `slow` adds seconds for single hosts."""

    def __init__(self, sim: Simulation, latency_s: float = 0.0005) -> None:
        self.sim = sim
        self.latency_s = latency_s
        self.slow: dict[str, float] = {}
        self.repeat_share = 0.0
        self.processes: dict[str, Process] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._ends: dict[End, None] = {}

    def add(self, process: Process) -> None:
        self.processes[process.name] = process

    def delay_s(self, source: str, target: str) -> float:
        added_s = max(self.slow.get(source, 0.0), self.slow.get(target, 0.0)) if self.slow else 0.0
        return self.latency_s * (0.5 + self.sim.rng.random()) + added_s

    # Connecting ------------------------------------------------------------------------------------------

    def dial(
        self,
        client: Process,
        target: str,
        handler: Handler,
        failed: Callable[[], None],
        incarnation: int = 0,
        refused: Callable[[], None] | None = None,
    ) -> None:
        """Connect to the process named `target`; `incarnation` stands for the address (0: wherever it is now). Where
        it is seen that nobody is there, `refused` is called, if given; then `failed`, as after any failure."""
        server = self.processes[target]
        delay = 2 * self.delay_s(client.name, target)
        if not self._reachable(client, server):
            client.after(DEAD_AFTER_S, failed)
        elif not server.alive or (incarnation and server.incarnation != incarnation):
            if refused is not None:
                client.after(delay, refused)
            client.after(delay, failed)
        else:
            client.after(delay, self._connect, client, server, handler, failed, server.incarnation)

    def _connect(
        self, client: Process, server: Process, handler: Handler, failed: Callable[[], None], incarnation: int
    ) -> None:
        if not server.alive or server.incarnation != incarnation or not self._reachable(client, server):
            failed()
            return
        near, far = End(self, client, handler), End(self, server, server)  # type: ignore[arg-type]
        near.peer, far.peer = far, near
        near.name, far.name = server.link_name, client.link_name
        self._ends[near] = self._ends[far] = None
        self.sim.enter(server)
        far.handler.link_up(far)
        self.sim.enter(client)
        near.handler.link_up(near)

    def _reachable(self, client: Process, server: Process) -> bool:
        there, back = (client.name, server.name), (server.name, client.name)
        return there not in self._blocked and back not in self._blocked and not server.stopped

    # Carrying --------------------------------------------------------------------------------------------

    def ship(self, end: End, frame: list[AnyMessage]) -> None:
        """Send a frame that still fills up during this turn."""
        at_s = end.arrival_s(self.sim.now_s + self.delay_s(end.owner.name, end.peer.owner.name))
        self.sim.at(self.sim.now_s, end.owner, end.flushed, frame)
        self.sim.at(at_s, None, self._arrive, end, frame)

    def _arrive(self, end: End, frame: list[AnyMessage]) -> None:
        end.flushed(frame)
        peer = end.peer
        if not peer.connected or not peer.owner.alive or peer.incarnation != peer.owner.incarnation:
            return
        if end.held or (end.owner.name, peer.owner.name) in self._blocked:
            end.held.append(frame)
            return
        if peer.owner.stopped:
            peer.owner.backlog.append((self._deliver, (peer, frame)))
        else:
            self.sim.enter(peer.owner)
            self._deliver(peer, frame)

    def _deliver(self, end: End, frame: list[AnyMessage]) -> None:
        handler = end.handler
        for message in frame:
            if not end.connected or not end.owner.alive:
                return
            handler.link_message(end, message)
            repeatable = self.repeat_share and isinstance(message, REPEATABLE) and end.connected
            if repeatable and self.sim.rng.random() < self.repeat_share:
                handler.link_message(end, message)

    # Ending ----------------------------------------------------------------------------------------------

    def hang_up(self, end: End, why: str) -> None:
        """`end` closes; the peer learns of it by the closing itself, or by the silence when that is blocked."""
        if not end.connected:
            return
        end.connected = False
        self._ends.pop(end, None)
        peer = end.peer
        if peer.connected:
            blocked = (end.owner.name, peer.owner.name) in self._blocked
            delay = DEAD_AFTER_S if blocked else self.delay_s(end.owner.name, peer.owner.name)
            self.sim.at(
                end.arrival_s(self.sim.now_s + delay), peer.owner, self._down, peer, "closed by the peer"
            )
        if end.owner.alive and end.incarnation == end.owner.incarnation:
            self.sim.enter(end.owner)
            end.handler.link_down(end, why)

    def _down(self, end: End, why: str) -> None:
        if not end.connected:
            return
        end.connected = False
        self._ends.pop(end, None)
        end.handler.link_down(end, why)

    def killed(self, process: Process, *, silent: bool) -> None:
        """The process is gone: peers see a reset, or only silence when the whole host went (`silent`)."""
        for end in [end for end in self._ends if end.owner is process]:
            end.connected = False
            del self._ends[end]
            peer = end.peer
            if peer.connected:
                delay = DEAD_AFTER_S if silent else self.delay_s(process.name, peer.owner.name)
                at_s = end.arrival_s(self.sim.now_s + delay)
                self.sim.at(at_s, peer.owner, self._down, peer, "reset")

    def silence(self, process: Process) -> None:
        """The process stopped: its peers give it up after a while."""
        for end in [end for end in self._ends if end.owner is process]:
            self.sim.at(
                self.sim.now_s + DEAD_AFTER_S, end.peer.owner, self._verdict, end.peer, process.incarnation
            )

    def _verdict(self, end: End, incarnation: int) -> None:
        process = end.peer.owner
        if end.connected and process.stopped and process.incarnation == incarnation:
            end.close("silent")

    # Partitions ------------------------------------------------------------------------------------------

    def block(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target` any more."""
        self.sim.note("network", f"{source} no longer reaches {target}")
        self._blocked.add((source, target))
        for end in self._ends:
            if end.owner.name == target and end.peer.owner.name == source:
                self.sim.at(self.sim.now_s + DEAD_AFTER_S, end.owner, self._lost_sight, end, source, target)

    def heal(self, source: str, target: str) -> None:
        """It does again; what a living link held back arrives."""
        if (source, target) not in self._blocked:
            return
        self.sim.note("network", f"{source} reaches {target} again")
        self._blocked.discard((source, target))
        for end in list(self._ends):
            if end.owner.name == source and end.peer.owner.name == target and end.held:
                held, end.held = end.held, []
                for frame in held:
                    self._arrive(end, frame)

    def cut(self, one: str, other: str) -> None:
        """Reset the links between two processes; both may dial again at once."""
        self.sim.note("network", f"links between {one} and {other} break")
        for end in [end for end in self._ends if end.owner.name == one and end.peer.owner.name == other]:
            if end.connected:
                self.hang_up(end, "reset")

    def speed_up(self, name: str) -> None:
        """The host's links are as quick as others again."""
        self.slow.pop(name, None)

    def stop_repeating(self) -> None:
        self.repeat_share = 0.0

    def heal_all(self) -> None:
        for source, target in sorted(self._blocked):
            self.heal(source, target)
        self.slow.clear()
        self.repeat_share = 0.0

    def _lost_sight(self, end: End, source: str, target: str) -> None:
        if end.connected and (source, target) in self._blocked:
            end.close("silent")
