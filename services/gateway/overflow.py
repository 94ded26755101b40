"""What our own queue refuses may be answered by a remote server (docs/hybrid.md). Off, nothing of this is loaded.

Rules: a shell around the pipeline's step 4 to 7 (`local`). locality.py says who may leave, remote_gate.py whether there
is room, remote_wire.py what the remote says, remote_answer.py what becomes of it. Until the client has seen a piece the
remote costs it nothing but time: it is refused as it would have been. Afterwards the answer ends with an error: half
an answer is never continued by another model. Nothing from there is kept for others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import msgspec

from ..answer import AnswerHead, AnswerTail, Responder
from ..config_remote import RemoteConfig
from ..errors import ClientGone, MeshError, OverloadError, ServiceError
from ..outcome import Reason
from ..postprocess.chain import request_texts
from ..request import Usage
from ..telemetry import names
from ..telemetry.masking import names_somebody
from ..telemetry.trace import RequestTrace
from .admission import Work
from .answers import CachedFlight
from .locality import Findings, Stay, to_send, why_stays
from .mesh import Mesh
from .remote_answer import MAY_LEAVE_FOR, RemoteAnswer
from .remote_gate import Gate, Visit
from .remote_wire import FATAL, OF_THE_REQUEST, EventReader, Piece, RemoteFault

log = logging.getLogger(__name__)
INLINE_CHARS = 16_384
"""Longer texts are searched in a thread."""

Local = Callable[[Mesh, Work, AnswerHead, CachedFlight, Responder, RequestTrace], Awaitable[AnswerTail]]


class Remote(Protocol):
    """The server elsewhere (httpx_remote.py)."""

    def ask(self, body: bytes) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of its answer; leaving closes it. Raises RemoteFault, there and while they are read."""
        ...

    async def close(self) -> None: ...


class Overflow:
    """One per gateway. Called as `local` is, and in its place."""

    def __init__(self, config: RemoteConfig, remote: Remote, local: Local) -> None:
        self._config, self._remote, self._local = config, remote, local
        self.gate = Gate(config.max_concurrent, config.pause_s)

    async def close(self) -> None:
        await self._remote.close()

    async def __call__(
        self,
        mesh: Mesh,
        work: Work,
        head: AnswerHead,
        flight: CachedFlight,
        responder: Responder,
        trace: RequestTrace,
    ) -> AnswerTail:
        """Here if possible, there if it must and may be. Raises MeshError."""
        if not flight.follows and not mesh.readiness.verdict(mesh.clock.now_s())[0]:
            tail = await self._there(mesh, work, head, flight, Reason.NOT_READY, responder, trace)
            if tail is not None:
                return tail
            flight = flight if not flight.abandoned else CachedFlight("bypass")
        try:
            return await self._local(mesh, work, head, flight, responder, trace)
        except OverloadError as refused:
            if refused.reason not in MAY_LEAVE_FOR or trace.num_tokens:
                raise
            tail = await self._there(mesh, work, head, flight, refused.reason, responder, trace)
            if tail is None:
                raise
            return tail

    async def _there(
        self,
        mesh: Mesh,
        work: Work,
        head: AnswerHead,
        flight: CachedFlight,
        why: Reason,
        responder: Responder,
        trace: RequestTrace,
    ) -> AnswerTail | None:
        """None: it stays, or nothing came of it; the client has seen nothing. Raises MeshError."""
        count = mesh.telemetry.metrics.number
        stays: str | None = await why_it_stays(mesh, work)
        visit = None
        if stays is None:
            visit = self.gate.enter(mesh.clock.now_s())
        if not isinstance(visit, Visit):
            count(names.REMOTE_STAYED, stays or str(visit)).value += 1
            return None
        outcome = "cancelled"
        try:
            flight.abandon()
            note_leaving(responder, trace, self._config.host, why.value)
            tail = await self._answered(mesh, work, head, visit, responder, trace)
            outcome = "completed"
        except RemoteFault as fault:
            outcome = fault.kind
            return None
        except MeshError as error:
            outcome = error.reason.value
            raise
        finally:
            visit.leave(mesh.clock.now_s())
            count(names.REMOTE, why.value, outcome).value += 1
        count(names.REMOTE_TOKENS, why.value, "prompt").value += tail.usage.prompt_tokens
        count(names.REMOTE_TOKENS, why.value, "completion").value += tail.usage.completion_tokens
        return tail

    async def _answered(
        self,
        mesh: Mesh,
        work: Work,
        head: AnswerHead,
        visit: Visit,
        responder: Responder,
        trace: RequestTrace,
    ) -> AnswerTail:
        """Raises RemoteFault while the client has seen nothing; later, and for other reasons, MeshError."""
        clock = mesh.clock
        answer = RemoteAnswer(work.request, mesh.policy, work.sampling.max_tokens)
        head = msgspec.structs.replace(head, served_by="remote")
        begun = False
        try:
            async with asyncio.timeout(work.deadline_s - clock.now_s()), AsyncExitStack() as stack:
                async for piece in self._pieces(
                    stack, to_send(work.request, work.sampling, self._config.model)
                ):
                    now_s = clock.now_s()
                    visit.answered(now_s)
                    if piece.text:
                        trace.tokens(1, now_s)
                    delta = answer.take(piece)
                    if delta is not None:
                        if not begun:
                            begun = True
                            responder.begin(head)
                        responder.delta(delta)
                        if responder.buffered_bytes > mesh.config.limits.stream_buffer_bytes:
                            raise ClientGone(Reason.SLOW_READER, "the client reads too slowly")
                    if answer.done:
                        break
        except RemoteFault as fault:
            self._failed(visit, fault, clock.now_s())
            if not begun:
                trace.num_tokens = 0
                raise
            message = "the remote server that answered this broke off: what was said is not the whole answer"
            raise ServiceError(Reason.ENGINE_LOST, message) from None
        except TimeoutError:
            raise OverloadError(Reason.DEADLINE_EXCEEDED, "the request's deadline has passed") from None
        finally:
            if begun:
                trace.num_tokens = await counted(answer, work)
        tail = AnswerTail(Usage(work.prompt_tokens, trace.num_tokens))
        responder.end(tail)
        return tail

    async def _pieces(self, stack: AsyncExitStack, body: dict[str, object]) -> AsyncIterator[Piece]:
        """Every wait is bounded: for the first text, then for each next one. Raises RemoteFault."""
        reader, patience_s = EventReader(), self._config.first_timeout_s
        async with within(patience_s):
            data = await stack.enter_async_context(self._remote.ask(msgspec.json.encode(body)))
        said = _said(reader, data)
        while True:
            async with within(patience_s):
                piece = await anext(said, None)
            if piece is None:
                raise RemoteFault("cut")
            yield piece
            if piece.finish is not None:
                return
            patience_s = self._config.idle_timeout_s

    def _failed(self, visit: Visit, fault: RemoteFault, now_s: float) -> None:
        if fault.kind in OF_THE_REQUEST:
            visit.answered(now_s)
            return
        visit.failed(now_s, fatal=fault.kind in FATAL)
        log.warning("the remote server %s did not answer as it should: %s", self._config.host, fault.kind)


async def _said(reader: EventReader, data: AsyncIterator[bytes]) -> AsyncIterator[Piece]:
    async for some in data:
        for piece in reader.feed(some):
            yield piece


@asynccontextmanager
async def within(patience_s: float) -> AsyncGenerator[None]:
    """Raises RemoteFault (silent)."""
    try:
        async with asyncio.timeout(patience_s):
            yield
    except TimeoutError:
        raise RemoteFault("silent") from None


async def why_it_stays(mesh: Mesh, work: Work) -> Stay | None:
    """As locality.why_stays; the texts are searched only where nothing else keeps the request."""
    own = work.model is mesh.models.first and not work.adapter and not work.pinned
    stays = why_stays(work.principal, work.request, Findings(own))
    if stays is not None:
        return stays
    texts = [text for _, text in request_texts(work.request)]
    if sum(map(len, texts)) <= INLINE_CHARS:
        found = searched(mesh, texts)
    else:
        found = await asyncio.to_thread(searched, mesh, texts)
    return why_stays(work.principal, work.request, Findings(own, *found))


async def counted(answer: RemoteAnswer, work: Work) -> int:
    """As RemoteAnswer.num_tokens; in a thread where that takes long."""
    tokenizer = work.model.tokenizer
    if answer.num_chars <= tokenizer.inline_chars:
        return answer.num_tokens(tokenizer)
    return await asyncio.to_thread(answer.num_tokens, tokenizer)


def searched(mesh: Mesh, texts: list[str]) -> tuple[bool, bool]:
    """(a sensitive word, something that looks like an identifier of a person)."""
    return mesh.policy.says_a_word(texts), any(map(names_somebody, texts))


def note_leaving(responder: Any, trace: RequestTrace, host: str, why: str) -> None:
    """Before a byte leaves: for the audit log (audited_call.py) and the request's log line."""
    trace.left = why
    if (left := getattr(responder, "left", None)) is not None:
        left(host, why)
