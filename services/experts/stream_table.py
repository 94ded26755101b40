"""The streams that gateways run on one engine: whose each is, and that it ends with its gateway or its epoch.

Rules: joins the Engine port and links, one plain call each way; knows no queue, no health, no Ray. `stream_id`
is the gateway's (unique per link), `key` is ours (unique per engine).

1. Every frame goes to the link that submitted its stream, under that link's own stream id.
2. A link that goes down ends all its streams in the engine, at once.
3. A Submit of an older epoch than ours is refused; a newer epoch ends the streams of older ones.
4. Once closed, every Submit is refused as retryable.
5. Frames of a stream that asked for it (`stream_interval`) are joined, each token kept and in order: the first goes at
   once, a later one within `HOLD_S`, and nothing is held behind an end or a failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from ..link.asyncio_link import Link
from ..link.messages import Abort, AnyMessage, StreamFailed, Submit
from ..outcome import Reason
from ..request import TokenFrame
from .engine import Engine, StreamError

log = logging.getLogger(__name__)

HOLD_S = 0.05
"""A frame of its own costs the gateway as much as a token. Far below what tells a dead engine from a slow one."""

After = Callable[[float, Callable[[], None]], object]
"""Calls back after so many seconds, once."""


class _Stream:
    """One running stream, and the epoch it was granted in. `held`: frames that wait to be sent as one."""

    __slots__ = ("begun", "epoch", "held", "interval", "key", "link", "stream_id")

    def __init__(self, key: int, link: Link, stream_id: int, epoch: int, interval: int) -> None:
        self.key, self.link, self.stream_id, self.epoch = key, link, stream_id, epoch
        self.interval, self.begun = interval, False
        self.held: TokenFrame | None = None


def join(first: TokenFrame, second: TokenFrame) -> TokenFrame:
    """Two frames of one stream as one."""
    logprobs = None
    if first.logprobs is not None or second.logprobs is not None:
        logprobs = (*(first.logprobs or ()), *(second.logprobs or ()))
    return TokenFrame(
        first.stream_id,
        first.token_ids + second.token_ids,
        second.finish,
        logprobs,
        max(first.cached_tokens, second.cached_tokens),
        first.index,
    )


def on_the_loop(delay_s: float, callback: Callable[[], None]) -> object:
    """`After` of the event loop that runs."""
    return asyncio.get_running_loop().call_later(delay_s, callback)


class StreamTable:
    """Handler of the links that gateways open. `on_empty` is called whenever the last stream is gone."""

    def __init__(self, engine: Engine, on_empty: Callable[[], None], after: After = on_the_loop) -> None:
        self.epoch = 0
        self._after = after
        self._holding: set[_Stream] = set()
        self._engine = engine
        self._on_empty = on_empty
        self._closed_because = ""
        self._streams: dict[int, _Stream] = {}
        self._links: dict[Link, dict[int, int]] = {}
        self._last_key = 0

    def __len__(self) -> int:
        return len(self._streams)

    def new_key(self) -> int:
        """An engine stream id that no other stream has."""
        self._last_key += 1
        return self._last_key

    # the Handler of gateways' links -------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._links[link] = {}

    def link_message(self, link: Link, message: AnyMessage) -> None:
        if type(message) is Submit:
            self._submit(link, message)
        elif type(message) is Abort:
            self._abort(link, message.stream_id)

    def link_down(self, link: Link, why: str) -> None:
        keys = self._links.pop(link, {})
        if keys:
            log.info("gateway %s went (%s): %d streams aborted", link.name, why, len(keys))
        for key in keys.values():
            self._engine.abort(key)
            self._streams.pop(key, None)
        self._tell_if_empty()

    # ends that the rank decides -----------------------------------------------------------------------

    def fence(self, epoch: int) -> None:
        """Enter `epoch`. The gateways of older streams were told, or are told by this."""
        self.epoch = epoch
        for stream in [s for s in self._streams.values() if s.epoch < epoch]:
            stream.held = None  # nobody may take a token of a fenced epoch
            self._fail(stream, Reason.ENGINE_LOST, f"fenced: this engine is now in epoch {epoch}")

    def fail_all(self, reason: Reason, message: str) -> None:
        """Hand every stream back to its gateway, to run elsewhere."""
        for stream in list(self._streams.values()):
            self._fail(stream, reason, message)

    def close(self, because: str) -> None:
        """Refuse every new stream from now on."""
        self._closed_because = because

    def hang_up(self, why: str) -> None:
        """Close the gateways' links."""
        for link in list(self._links):
            link.close(why)

    # inside -------------------------------------------------------------------------------------------

    def _submit(self, link: Link, message: Submit) -> None:
        mine = self._links.get(link)
        if mine is None:
            return
        refusal = self._closed_because
        if message.epoch < self.epoch:
            refusal = f"granted in epoch {message.epoch}, this engine is in epoch {self.epoch}"
        if refusal:
            # Never begun here, so nothing was lost by it: not a death that the gateway may hold against the request.
            link.send(StreamFailed(message.stream_id, Reason.DRAINING, refusal, True))
            return
        if message.stream_id in mine:
            link.send(StreamFailed(message.stream_id, Reason.INTERNAL, "stream id is in use", False))
            return
        key = self.new_key()
        stream = _Stream(key, link, message.stream_id, message.epoch, message.job.stream_interval)
        self._streams[key] = stream
        mine[message.stream_id] = key
        self._engine.submit(key, message.job, partial(self._emit, stream))

    def _abort(self, link: Link, stream_id: int) -> None:
        key = self._links.get(link, {}).get(stream_id)
        if key is not None:
            self._engine.abort(key)
            self._forget(self._streams[key])

    def _emit(self, stream: _Stream, item: TokenFrame | StreamError) -> None:
        if isinstance(item, TokenFrame):
            item.stream_id = stream.stream_id
            if stream.interval > 1:
                self._join(stream, item)
            else:
                stream.link.send(item)
            if item.finish is not None:
                self._forget(stream)
        else:
            self._send_held(stream)
            stream.link.send(StreamFailed(stream.stream_id, item.reason, item.message, item.retryable))
            self._forget(stream)

    def _join(self, stream: _Stream, frame: TokenFrame) -> None:
        held = stream.held
        frame = join(held, frame) if held is not None else frame
        if not stream.begun or frame.finish is not None or len(frame.token_ids) >= stream.interval:
            stream.begun, stream.held = True, None
            stream.link.send(frame)
            return
        stream.held = frame
        if not self._holding:
            self._after(HOLD_S, self._send_all_held)
        self._holding.add(stream)

    def _send_held(self, stream: _Stream) -> None:
        if stream.held is not None:
            stream.link.send(stream.held)
            stream.held = None

    def _send_all_held(self) -> None:
        holding, self._holding = self._holding, set()
        for stream in holding:
            self._send_held(stream)

    def _fail(self, stream: _Stream, reason: Reason, message: str) -> None:
        self._engine.abort(stream.key)
        self._emit(stream, StreamError(stream.key, reason, message, True))

    def _forget(self, stream: _Stream) -> None:
        stream.held = None  # of an end it was sent, of an abort nobody wants it
        self._streams.pop(stream.key, None)
        self._links.get(stream.link, {}).pop(stream.stream_id, None)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self._streams:
            self._on_empty()
