"""A request for embeddings from its credential to its vectors: as pipeline.py does it for answers, and far shorter.

Rules: the order of the steps stands here; HTTP and gRPC meet here. Authenticate, admit (rights, tokens, quota),
embed. There is no lease, no stream and no cache: a text costs milliseconds on a core. Knows no wire format, no Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from ..answer import AllowanceLeft
from ..api.embeddings import EmbeddingRequest
from ..embedding.desk import Refused, Wish
from ..embedding.service import Embedded
from ..errors import MeshError, OverloadError, RequestError, ServiceError
from ..outcome import Reason
from ..request import InferenceRequest, Usage, count_ids
from .admission import may_use, no_model
from .calls import cancels
from .embedding_model import EmbeddingModel
from .flow import error_for
from .identity import Permission, Principal
from .mesh import Mesh

log = logging.getLogger(__name__)

MANY_ROWS = 64
"""Answers of more are encoded in a thread: 2,048 vectors are 10 MB of JSON."""

TRIES = 3
AGAIN_S = 0.2
"""Serve needs a moment to know of a death; then a call waits for the next process by itself."""
AWAY_S = 5.0

_READ = msgspec.msgpack.Decoder(Embedded | Refused).decode


class EmbedWork(msgspec.Struct, frozen=True):
    """An admitted request, for telemetry (trace.Admitted)."""

    principal: Principal
    request: InferenceRequest
    band: str
    prompt_tokens: int


class EmbedCall(Protocol):
    """One request on some wire."""

    request_id: str
    traceparent: str
    protocol: str

    @property
    def credential(self) -> str: ...
    async def read_embedding(self) -> EmbeddingRequest: ...
    def welcome(self, callback: Callable[[], None]) -> None:
        """It is one of ours; `callback` when the client goes."""
        ...

    def encode(self, request: EmbeddingRequest, found: Embedded, model: str, usage: Usage) -> bytes:
        """The answer's body. Touches nothing else: it may be called in a thread."""
        ...

    def reply(self, body: bytes, left: AllowanceLeft | None) -> None: ...
    def fail(self, error: MeshError) -> None: ...


async def serve(mesh: Mesh, call: EmbedCall) -> None:
    """Answer `call`. Never raises, except when the task itself is cancelled because its client went."""
    trace = mesh.telemetry.begin(call.request_id, call.protocol, call.traceparent)
    task = mesh.calls.enter()
    try:
        principal = mesh.identity.authenticate(call.credential)
        principal.require(Permission.GENERATE)
        trace.identified(principal)
        if principal.allowance is not None:
            mesh.quotas.check(principal)
        request = await call.read_embedding()
        call.welcome(cancels(task))
        asked, limits = request.asked, mesh.config.limits
        wanted_s = asked.deadline_s if asked.deadline_s is not None else limits.default_deadline_s
        deadline_s = mesh.clock.now_s() + min(wanted_s, limits.max_deadline_s)
        model = find(mesh, principal, asked.model)
        card = model.card
        if request.dimensions not in (None, card.dimensions):
            message = f"dimensions: vectors of {card.name} have {card.dimensions}, and cannot be shortened"
            raise RequestError(Reason.UNSUPPORTED_FIELD, message, param="dimensions")
        rows = await tokenized(model, asked, deadline_s - mesh.clock.now_s())
        if mesh.policy.reads_input:  # after: what is too long is not decoded to be read
            await model.checked(asked, mesh.policy.check_input)
        trace.step("tokenized")
        tokens, band = sum(map(count_ids, rows)), principal.band_for(asked.band)
        trace.admitted(EmbedWork(principal, asked, band, tokens))
        left = None
        if (allowance := principal.allowance) is not None:
            left = await mesh.quotas.take(principal, allowance, tokens, trace, "input")
        remaining_s = max(0.0, deadline_s - mesh.clock.now_s())
        wish = Wish(rows, principal.tenant, mesh.band_rank(band), remaining_s)
        found = await embedded(model, wish)
        usage = Usage(tokens, 0)
        said = request, found, card.name, usage
        body = await asyncio.to_thread(call.encode, *said) if len(rows) > MANY_ROWS else call.encode(*said)
        call.reply(body, left)
        trace.completed(usage)
    except MeshError as error:
        trace.failed(error)
        call.fail(error)
    except asyncio.CancelledError:
        error = mesh.calls.why()
        trace.failed(error)
        if not mesh.calls.ending:
            raise
        task.uncancel()
        call.fail(error)
    except Exception as bug:  # logged whole, told briefly
        log.exception("request %s failed", call.request_id)
        message = f"an internal error ({type(bug).__name__}); it is logged with the request id"
        error = ServiceError(Reason.INTERNAL, message)
        trace.failed(error)
        call.fail(error)
    finally:
        mesh.calls.leave(task)
        trace.end()


def find(mesh: Mesh, principal: Principal, asked: str) -> EmbeddingModel:
    """Raises RequestError: unknown, not for this key, or one that generates; OverloadError (NOT_READY)."""
    model = mesh.embeddings
    name = model.card.name if model is not None else mesh.embeds_as
    if asked == name and name and may_use(principal, name, ""):
        if model is None:
            raise OverloadError(Reason.NOT_READY, "the embedding model is still loading", retry_after_s=2.0)
        return model
    if asked in mesh.models and may_use(principal, asked, ""):
        other = f"; '{name}' does" if name and may_use(principal, name, "") else ""
        message = f"the model '{asked}' generates text and makes no embeddings{other}"
        raise RequestError(Reason.INVALID_FIELD, message, param="model")
    raise no_model(asked)


async def tokenized(model: EmbeddingModel, asked: InferenceRequest, remaining_s: float) -> tuple[bytes, ...]:
    """Packed ids of each text; what waits for its turn beyond the deadline is not tokenised. Raises MeshError."""
    try:
        async with asyncio.timeout(remaining_s):
            return await model.rows(asked)
    except TimeoutError:
        message = "the deadline passed before the texts were tokenised"
        raise OverloadError(Reason.DEADLINE_EXCEEDED, message) from None


async def embedded(model: EmbeddingModel, wish: Wish) -> Embedded:
    """The vectors, also when the service's process dies meanwhile: the texts are sent again, TRIES times in all, as one
    of them may be what it died of. Raises MeshError, also when the deadline passes."""
    data = msgspec.msgpack.encode(wish)
    try:
        async with asyncio.timeout(wish.remaining_s):
            for _ in range(TRIES):
                try:
                    answer = _READ(await model.embed(data))
                    break
                except ServiceError as error:
                    log.warning("the embedding service did not answer: %s", error)
                    await asyncio.sleep(AGAIN_S)
            else:
                message = "the embedding service is away"
                raise OverloadError(Reason.NOT_READY, message, retry_after_s=AWAY_S)
    except TimeoutError:
        message = "the deadline passed before the texts were embedded"
        raise OverloadError(Reason.DEADLINE_EXCEEDED, message) from None
    if isinstance(answer, Refused):
        retry_s = answer.retry_after_s if answer.retry_after_s >= 0 else None
        raise error_for(answer.reason, answer.message, retry_s)
    return answer
