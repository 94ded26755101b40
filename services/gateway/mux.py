"""The gateway's links to engines: one per engine, opened at the first grant, shared by all streams.

Rules: moves messages between streams and links; decides nothing about requests (flow.py does). A frame's way is one
dict look-up and one call. Streams are known by process-wide unique ids, so a late frame of a stream that was
closed, or of a fenced engine, finds nobody and is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from ..clock import Clock, SystemClock
from ..errors import LinkClosed
from ..link.asyncio_link import DEAD_AFTER_S, Link, connect
from ..link.messages import Abort, AnyMessage, Grant, StreamFailed, Submit
from ..request import TokenFrame
from .migrate import Loss

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 1.0
MAX_BACKOFF_S = 1.0


class Receiver(Protocol):
    """Gets what concerns one stream. Called on the event loop; must not raise. `now_s`: when the frame came."""

    def on_frame(self, frame: TokenFrame, now_s: float) -> None: ...
    def on_stream_failed(self, failed: StreamFailed) -> None: ...
    def on_lost(self, loss: Loss) -> None: ...


class EnginePeer:
    """One engine: its link, or the attempt to open it, and the streams on it."""

    def __init__(self, mux: EngineMux, grant: Grant) -> None:
        self._mux = mux
        self.engine_id, self.epoch, self.address = grant.engine_id, grant.epoch, grant.address
        self.link: Link | None = None
        self.streams: dict[int, Receiver] = {}
        self._waiting: list[Submit] = []
        self._dial = mux.dial(self, grant.address, grant.key)

    def unreachable(self, why: str) -> None:
        """Dialling failed: nothing was ever sent there."""
        self.lose(f"cannot reach it: {why}", Loss.UNREACHED)

    def submit(self, submit: Submit, receiver: Receiver) -> None:
        self.streams[submit.stream_id] = receiver
        if self.link is not None:
            self.link.send(submit)
        else:
            self._waiting.append(submit)

    def abort(self, stream_id: int) -> None:
        if self.streams.pop(stream_id, None) is None:
            return
        if self.link is not None:
            self.link.send(Abort(stream_id))
        else:
            self._waiting = [submit for submit in self._waiting if submit.stream_id != stream_id]

    def link_up(self, link: Link) -> None:
        self.link = link
        waiting, self._waiting = self._waiting, []
        for submit in waiting:
            link.send(submit)

    def link_message(self, link: Link, message: AnyMessage) -> None:
        self.link_messages(link, (message,))

    def link_messages(self, link: Link, messages: Sequence[AnyMessage]) -> None:
        """Hot path: an engine's step, with a token for each of its streams. First tokens go first, and leave at once:
        whoever joined last stands last in a step, and would wait for what all others are sent."""
        now_s = self._mux.clock.now_s()
        if len(messages) > 1:
            first, rest = first_tokens_first(messages)
            if first and rest:
                self._hand_on(first, now_s)
                self._mux.on_first()
                messages = rest
        self._hand_on(messages, now_s)

    def _hand_on(self, messages: Sequence[AnyMessage], now_s: float) -> None:
        for message in messages:
            if type(message) is TokenFrame:
                receiver = self.streams.get(message.stream_id)
                if receiver is not None:
                    if message.finish is not None:
                        del self.streams[message.stream_id]
                    receiver.on_frame(message, now_s)
            elif type(message) is StreamFailed:
                receiver = self.streams.pop(message.stream_id, None)
                if receiver is not None:
                    receiver.on_stream_failed(message)

    def link_down(self, link: Link, why: str) -> None:
        self.lose(why, Loss.SILENT if link.silent else Loss.DIED)

    def lose(self, why: str, loss: Loss) -> None:
        """Forget the engine; every stream on it asks for another."""
        self._mux.forget(self)
        self._dial.cancel()
        streams, self.streams = self.streams, {}
        if streams:
            log.warning("lost engine %s (%s): %d streams move", self.engine_id, why, len(streams))
        link, self.link = self.link, None
        if link is not None:
            link.close(why)
        for receiver in streams.values():
            receiver.on_lost(loss)


def first_tokens_first(
    messages: Sequence[AnyMessage],
) -> tuple[Sequence[AnyMessage], Sequence[AnyMessage]]:
    """Those that begin an answer, and all others, each in their order. A stream's order is kept: its first token comes
    before whatever else concerns it."""
    first = [message for message in messages if type(message) is TokenFrame and not message.index]
    if not first:
        return first, messages
    return first, [message for message in messages if type(message) is not TokenFrame or message.index]


class Cancellable(Protocol):
    """An attempt to connect that may be given up."""

    def cancel(self) -> object: ...


Dial = Callable[[EnginePeer, str, bytes], Cancellable]
"""Connects a peer to (address, key) in the background; then `peer.link_up` or `peer.unreachable` is called, later."""


def _nothing() -> None:
    """Nobody collects writes."""


class EngineMux:
    """All engines this gateway talks to. `name` is how engines know this gateway; one that says nothing for
    `silent_s` is lost; `dial` is TCP unless the twin brings its own network."""

    def __init__(
        self,
        name: str,
        dial: Dial | None = None,
        *,
        silent_s: float = DEAD_AFTER_S,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.clock = clock or SystemClock()
        self._silent_s = silent_s
        self.dial = dial if dial is not None else self._dial_tcp
        self.on_first: Callable[[], object] = _nothing
        """Called when the first tokens of a step were handed on, before the others: who collects writes writes now."""
        self._peers: dict[str, EnginePeer] = {}
        self._failures: dict[str, int] = {}

    @property
    def num_streams(self) -> int:
        return sum(len(peer.streams) for peer in self._peers.values())

    def open(self, grant: Grant, submit: Submit, receiver: Receiver) -> None:
        """Submit to the engine that a lease names, dialling it first if need be."""
        peer = self._peers.get(grant.engine_id)
        if peer is not None and (peer.address != grant.address or peer.epoch < grant.epoch):
            if peer.address != grant.address:
                peer.lose("it came back at another address", Loss.DIED)
                peer = None
            else:
                peer.epoch = grant.epoch
        if peer is None:
            peer = self._peers[grant.engine_id] = EnginePeer(self, grant)
        peer.submit(submit, receiver)

    def close(self, engine_id: str, stream_id: int) -> None:
        """Abort a stream; its late frames are dropped."""
        peer = self._peers.get(engine_id)
        if peer is not None:
            peer.abort(stream_id)

    def fence(self, engine_id: str, epoch: int) -> None:
        """The queue declared the engine dead up to `epoch`."""
        peer = self._peers.get(engine_id)
        if peer is not None and peer.epoch <= epoch:
            peer.lose("fenced by the queue", Loss.SILENT)

    def _dial_tcp(self, peer: EnginePeer, address: str, key: bytes) -> Cancellable:
        async def attempt() -> None:
            failures = self._failures.get(peer.engine_id, 0)
            if failures:  # the queue may offer a dead engine again until it fences it
                await asyncio.sleep(min(MAX_BACKOFF_S, 0.01 * 2**failures))
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await connect(address, key, peer, self.name, self._silent_s)
                self._failures.pop(peer.engine_id, None)
            except (OSError, LinkClosed, TimeoutError) as error:
                self._failures[peer.engine_id] = failures + 1
                peer.unreachable(str(error))

        return asyncio.create_task(attempt())

    def forget(self, peer: EnginePeer) -> None:
        if self._peers.get(peer.engine_id) is peer:
            del self._peers[peer.engine_id]

    def stop(self) -> None:
        """Close every link; streams on them are lost."""
        for peer in list(self._peers.values()):
            peer.lose("the gateway stops", Loss.SILENT)
